import { CronTime } from 'cron';
import { DefaultSessionSerializer } from '../session/session.codec.js';
import { VisitStore } from '../store/visit.store.js';
import { parseDuration } from './duration.js';
import { parseEncryption } from './encryption.js';
import { Unfit } from './unfit.js';

/** One option: its default, the one place where it is written, and what it takes. */
export interface Option {
  readonly default: () => unknown;
  /** The value in the form the library uses; throws `Unfit` when it is none. */
  readonly parse: (value: unknown) => unknown;
}

export type OptionTable = { readonly [name: string]: Option | OptionTable };

function unfit(expected: string): never {
  throw new Unfit(expected);
}

function option(defaultValue: unknown, parse: (value: unknown) => unknown): Option {
  return { default: typeof defaultValue === 'function' ? (defaultValue as () => unknown) : () => defaultValue, parse };
}

const duration = (fallback: unknown, { min = 0, off = false } = {}) =>
  option(fallback, (value) => {
    if (off && value === false) return false;
    const parsed = parseDuration(value);
    if (parsed === null) return unfit(`a duration such as 30000 or "30s"${off ? ', or false' : ''}`);
    return parsed >= min ? parsed : unfit(`a duration of at least ${min} ms`);
  });

const oneOf = (fallback: unknown, ...values: readonly unknown[]) =>
  option(fallback, (value) => (values.includes(value) ? value : unfit(`one of ${values.map((one) => JSON.stringify(one)).join(', ')}`)));

const bool = (fallback: unknown) => option(fallback, (value) => (typeof value === 'boolean' ? value : unfit('true or false')));

const count = (fallback: number, min: number) =>
  option(fallback, (value) =>
    Number.isSafeInteger(value) && (value as number) >= min ? value : unfit(`a whole number of at least ${min}`),
  );

const cron = (fallback: string) =>
  option(fallback, (value) => {
    if (value === false) return false;
    const expected = `a cron expression such as ${JSON.stringify(fallback)}, or false`;
    if (typeof value !== 'string') return unfit(expected);
    try {
      new CronTime(value);
    } catch (error) {
      unfit(`${expected} (${(error as Error).message})`);
    }
    return value;
  });

const has = (value: unknown, ...methods: string[]) =>
  typeof value === 'object' && value !== null && methods.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');

/** RFC 6265bis 4.1.1: a cookie's name is a token. */
const COOKIE_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/;
const COOKIE_DOMAIN = /^\.?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

const SOURCES: Record<string, readonly string[]> = { cookie: ['cookie'], query: ['query'], body: ['body'], form: ['query', 'body'] };

function parseSource(value: unknown): readonly string[] {
  const expected = 'a list of "cookie", "query", "body", "form", such as "cookie, form"';
  const names = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? (value as unknown[]) : unfit(expected);
  const sources = names.flatMap((name) => SOURCES[typeof name === 'string' ? name.trim().toLowerCase() : ''] ?? unfit(expected));
  return sources.length > 0 ? [...new Set(sources)] : unfit(expected);
}

function parseName(value: unknown): string {
  if (typeof value === 'string' && /^[A-Za-z][\w.-]{0,63}$/.test(value)) return value;
  return unfit('a name of letters, digits, "_", "." or "-", such as "tg_visit"');
}

/** As browsers send them (RFC 6454, 6.2): no path, lower case, no default port. */
function parseOrigins(value: unknown): readonly string[] {
  const isOrigin = (one: unknown): boolean =>
    typeof one === 'string' && /^https?:/.test(one) && URL.canParse(one) && new URL(one).origin === one;
  return Array.isArray(value) && value.every(isOrigin) ? (value as string[]) : unfit('a list of origins such as "https://www.example.org"');
}

const SITE_DATA = ['cache', 'cookies', 'storage', 'executionContexts', 'clientHints', 'prefetchCache', 'prerenderCache'];

function parseSiteData(value: unknown): readonly string[] {
  if (typeof value === 'boolean') return value ? ['cache', 'storage'] : [];
  const isList = Array.isArray(value) && value.length > 0 && value.every((one) => SITE_DATA.includes(one as string));
  if (!isList) return unfit(`true, false or a list of ${SITE_DATA.map((one) => JSON.stringify(one)).join(', ')}`);
  return [...new Set(value as string[])];
}

export const optionTable = {
  dataSource: option(undefined, (value) =>
    has(value, 'createQueryRunner') || (typeof value === 'object' && value !== null && 'type' in value)
      ? value
      : unfit('an open DataSource of typeorm, or the options of one, such as { type: "mysql", url: "mysql://…" }'),
  ),
  store: option(undefined, (value) =>
    value instanceof VisitStore || has(value, 'find', 'create', 'save', 'rekey') ? value : unfit('a VisitStore'),
  ),
  storeTimeout: duration('10s', { min: 1 }),
  timeout: duration('20m', { min: 1 }),
  permanentTimeout: duration('30d', { min: 1 }),
  absoluteTimeout: duration(false, { min: 1, off: true }),
  renewAfter: duration(false, { min: 1, off: true }),
  onRetiredKey: oneOf('refuse', 'refuse', 'end'),
  source: option('cookie', parseSource),
  paramName: option('tg_visit', parseName),
  cookie: {
    name: option('visit', (value) =>
      typeof value === 'string' && COOKIE_NAME.test(value) ? value : unfit('a cookie name that browsers accept, such as "visit"'),
    ),
    path: option('/', (value) => (typeof value === 'string' && /^\/[!-:<-~]*$/.test(value) ? value : unfit('a path that begins with "/"'))),
    domain: option(undefined, (value) =>
      typeof value === 'string' && COOKIE_DOMAIN.test(value) ? value : unfit('a host name such as "example.org"'),
    ),
    secure: oneOf(() => (process.env['NODE_ENV'] === 'production' ? true : 'auto'), true, false, 'auto'),
    sameSite: oneOf('lax', 'strict', 'lax', 'none'),
    httpOnly: bool(true),
    partitioned: bool(false),
    permanent: bool(false),
    clearSiteData: option(false, parseSiteData),
    allowInsecure: bool(false),
  },
  cache: { signedIn: oneOf('no-cache', 'no-cache', 'no-store') },
  creation: oneOf('lazy', 'immediate', 'lazy'),
  touch: { interval: duration('30s', { min: 1 }), resolution: duration('60s') },
  streams: { endWithVisit: bool(true) },
  expunge: {
    schedule: cron('0 3 * * *'),
    keepDays: option(7, (value) =>
      typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : unfit('a number of days, 0 or more'),
    ),
    batchSize: count(250, 1),
  },
  wipe: { schedule: cron('*/5 * * * *') },
  session: {
    maxBytes: count(1_048_576, 16),
    maxExclusive: duration('5m', { min: 1 }),
    serializer: option(
      () => new DefaultSessionSerializer(),
      (value) => (has(value, 'encode', 'decode') ? value : unfit('an object with encode() and decode()')),
    ),
    onUnreadable: oneOf('empty', 'empty', 'throw'),
    encryption: option(undefined, parseEncryption),
  },
  formTokens: {
    max: count(16, 1),
    field: option('form_token', parseName),
  },
  csrf: {
    trustedOrigins: option(() => [], parseOrigins),
    requireToken: bool(false),
    reportOnly: bool(false),
  },
  identity: {
    maxVisitsPerUser: option(false, (value) =>
      value === false || (Number.isSafeInteger(value) && (value as number) >= 1) ? value : unfit('a whole number of at least 1, or false'),
    ),
    onLimit: oneOf('end-oldest', 'end-oldest', 'refuse'),
    requestUser: bool(false),
    loadUser: option(undefined, (value) => (typeof value === 'function' ? value : unfit('a function'))),
  },
  record: { remoteAddress: oneOf('full', 'full', 'truncated', false), userAgent: bool(true) },
  maxClockSkew: duration('1m', { min: 1, off: true }),
  clock: option(
    () => Date,
    (value) => (typeof (value as { now?: unknown } | null)?.now === 'function' ? value : unfit('an object with now()')),
  ),
} satisfies OptionTable;
