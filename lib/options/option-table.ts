import { CronTime } from 'cron';
import { VisitStore } from '../store/visit.store.js';
import { LONGEST_DURATION, LONGEST_TIMER, parseDuration } from './duration.js';
import { parseEncryption } from './encryption.js';
import { MAX_ROWS } from './max-rows.js';
import { InvalidOption } from './invalid-option.js';

/** One option: its default, which is written only here, and its validation. */
export interface Option {
  readonly default: () => unknown;
  /** The value in the form that the library uses. Throws `InvalidOption`. */
  readonly parse: (value: unknown) => unknown;
}

export type OptionTable = { readonly [name: string]: Option | OptionTable };

function invalid(expected: string): never {
  throw new InvalidOption(expected);
}

function option(defaultValue: unknown, parse: (value: unknown) => unknown): Option {
  return { default: typeof defaultValue === 'function' ? (defaultValue as () => unknown) : () => defaultValue, parse };
}

const duration = (fallback: unknown, { min = 0, max = LONGEST_DURATION, off = false } = {}) =>
  option(fallback, (value) => {
    if (off && value === false) return false;
    const parsed = parseDuration(value);
    if (parsed === null) return invalid(`a duration such as 30000 or "30s"${off ? ', or false' : ''}`);
    if (parsed < min) return invalid(`a duration of at least ${min} ms`);
    if (parsed > max)
      return invalid(
        max === LONGEST_TIMER ? `at most ${max} ms (24 days), as long as timers run` : 'at most 36500 days',
      );
    return parsed;
  });

/** A duration that a timer of Node supports. */
const timer = (fallback: unknown) => duration(fallback, { min: 1, max: LONGEST_TIMER });

const oneOf = (fallback: unknown, ...values: readonly unknown[]) =>
  option(fallback, (value) =>
    values.includes(value) ? value : invalid(`one of ${values.map((one) => JSON.stringify(one)).join(', ')}`),
  );

const bool = (fallback: unknown) =>
  option(fallback, (value) => (typeof value === 'boolean' ? value : invalid('true or false')));

const count = (fallback: number, min: number, max = Infinity) =>
  option(fallback, (value) => {
    const isOne = Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
    return isOne
      ? value
      : invalid(`a whole number ${max === Infinity ? `of at least ${min}` : `from ${min} to ${max}`}`);
  });

const cron = (fallback: string) =>
  option(fallback, (value) => {
    if (value === false) return false;
    const expected = `a cron expression such as ${JSON.stringify(fallback)}, or false`;
    if (typeof value !== 'string') return invalid(expected);
    try {
      new CronTime(value);
    } catch (error) {
      invalid(`${expected} (${(error as Error).message})`);
    }
    return value;
  });

const has = (value: unknown, ...methods: string[]) =>
  typeof value === 'object' &&
  value !== null &&
  methods.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');

/** RFC 6265bis 4.1.1: a cookie's name is a token. */
const COOKIE_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/;
const COOKIE_DOMAIN = /^\.?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;

const SOURCES: Record<string, readonly string[]> = {
  cookie: ['cookie'],
  header: ['header'],
  query: ['query'],
  body: ['body'],
  form: ['query', 'body'],
};

function parseSource(value: unknown): readonly string[] {
  const expected = 'a list of "cookie", "header", "query", "body", "form", such as "cookie, form"';
  const names =
    typeof value === 'string' ? value.split(',') : Array.isArray(value) ? (value as unknown[]) : invalid(expected);
  const sources = names.flatMap(
    (name) => SOURCES[typeof name === 'string' ? name.trim().toLowerCase() : ''] ?? invalid(expected),
  );
  return sources.length > 0 ? [...new Set(sources)] : invalid(expected);
}

function parseName(value: unknown): string {
  if (typeof value === 'string' && /^[A-Za-z][\w.-]{0,63}$/.test(value)) return value;
  return invalid('a name of letters, digits, "_", "." or "-", such as "visit_key"');
}

function parseNames(value: unknown): readonly string[] {
  const names = Array.isArray(value) ? (value as unknown[]) : [value];
  return names.length > 0 ? [...new Set(names.map(parseName))] : invalid('a name or a list of names');
}

/** As browsers send them (RFC 6454, 6.2): no path, lower case, no default port. */
function parseOrigins(value: unknown): readonly string[] {
  const isOrigin = (one: unknown): boolean =>
    typeof one === 'string' && /^https?:/.test(one) && URL.canParse(one) && new URL(one).origin === one;
  return Array.isArray(value) && value.every(isOrigin)
    ? (value as string[])
    : invalid('a list of origins such as "https://www.example.org"');
}

const SITE_DATA = [
  'cache',
  'cookies',
  'storage',
  'executionContexts',
  'clientHints',
  'prefetchCache',
  'prerenderCache',
];

function parseSiteData(value: unknown): readonly string[] {
  if (typeof value === 'boolean') return value ? ['cache', 'storage'] : [];
  const isList = Array.isArray(value) && value.length > 0 && value.every((one) => SITE_DATA.includes(one as string));
  if (!isList) return invalid(`true, false or a list of ${SITE_DATA.map((one) => JSON.stringify(one)).join(', ')}`);
  return [...new Set(value as string[])];
}

/** The URL schemes of the supported types. With another scheme, the connection would fail or lead to another server. */
const SCHEMES: Readonly<Record<string, readonly string[]>> = {
  mysql: ['mysql:', 'mariadb:'],
  mariadb: ['mariadb:', 'mysql:'],
  postgres: ['postgres:', 'postgresql:'],
};

/** Options that define the server without a URL. */
const SERVER_OPTIONS = ['host', 'port', 'socketPath', 'database', 'replication', 'extra'];

/** Whether a URL from an environment variable is not set. The driver would connect to its default address. */
function isAddressMissing(options: object): boolean {
  const { url, ...others } = options as { url?: unknown } & Record<string, unknown>;
  const isUnset = 'url' in options && (url === undefined || url === '');
  return isUnset && SERVER_OPTIONS.every((name) => others[name] === undefined);
}

function parseDataSource(value: unknown): unknown {
  if (has(value, 'createQueryRunner')) return value;
  if (typeof value !== 'object' || value === null || !('type' in value)) {
    return invalid('an open DataSource of typeorm, or the options of one, such as { type: "mysql", url: "mysql://…" }');
  }
  const { type, url, replication } = value as {
    type: unknown;
    url?: unknown;
    replication?: { master?: { url?: unknown } };
  };
  const schemes = SCHEMES[String(type)];
  if (schemes && isAddressMissing(value)) {
    throw new InvalidOption(
      `options with the address of the server, such as url: "${schemes[0]}//user:password@host/database"`,
      'a url that is not set: check the environment variable that it is read from',
    );
  }
  for (const address of [url, replication?.master?.url]) {
    if (!schemes || typeof address !== 'string' || !URL.canParse(address)) continue;
    const { protocol } = new URL(address);
    if (!schemes.includes(protocol)) {
      throw new InvalidOption(
        `options whose type and url agree: for type "${String(type)}" a url such as "${schemes[0]}//…"`,
        `one that begins with "${protocol}"`,
      );
    }
  }
  return value;
}

/** Instants are stored as integers. A fraction, a promise or text would fail or be truncated. */
function isClock(value: unknown): boolean {
  try {
    const now: unknown = (value as { now?: () => unknown } | null)?.now?.();
    return Number.isSafeInteger(now) && Math.abs(now as number) + LONGEST_DURATION <= MAX_INSTANT;
  } catch {
    return false;
  }
}

/** ECMA-262, 21.4.1.1: the latest instant of a `Date`. */
const MAX_INSTANT = 8.64e15;

export const optionTable = {
  dataSource: option(undefined, parseDataSource),
  store: option(undefined, (value) =>
    value instanceof VisitStore || has(value, 'find', 'create', 'save', 'rekey') ? value : invalid('a VisitStore'),
  ),
  storeTimeout: timer('10s'),
  timeout: duration('20m', { min: 1 }),
  permanentTimeout: duration('30d', { min: 1 }),
  absoluteTimeout: duration(false, { min: 1, off: true }),
  shortenExisting: bool(false),
  renewAfter: duration(false, { min: 1, off: true }),
  onRetiredKey: oneOf('refuse', 'refuse', 'end'),
  source: option('cookie', parseSource),
  paramName: option('visit_key', parseNames),
  cookie: {
    name: option('visit', (value) =>
      typeof value === 'string' && COOKIE_NAME.test(value)
        ? value
        : invalid('a cookie name that browsers accept, such as "visit"'),
    ),
    path: option('/', (value) =>
      typeof value === 'string' && /^\/[!-:<-~]*$/.test(value) ? value : invalid('a path that begins with "/"'),
    ),
    domain: option(undefined, (value) =>
      typeof value === 'string' && COOKIE_DOMAIN.test(value) ? value : invalid('a host name such as "example.org"'),
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
  touch: { interval: timer('30s'), resolution: duration('60s') },
  streams: { endWithVisit: bool(true), interval: timer('5s') },
  expunge: {
    schedule: cron('0 3 * * *'),
    keepDays: option(7, (value) =>
      typeof value === 'number' && value >= 0 && value <= 36_500 ? value : invalid('a number of days from 0 to 36500'),
    ),
    batchSize: count(250, 1, MAX_ROWS),
  },
  wipe: { schedule: cron('*/5 * * * *') },
  session: {
    maxBytes: count(1_048_576, 16),
    maxExclusive: timer('5m'),
    instances: oneOf('plain', 'plain', 'refuse'),
    serializer: option(undefined, (value) =>
      has(value, 'encode', 'decode') ? value : invalid('an object with encode() and decode()'),
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
    maxVisitsPerUser: option(1000, (value) =>
      value === false || (Number.isSafeInteger(value) && (value as number) >= 1)
        ? value
        : invalid('a whole number of at least 1, or false'),
    ),
    onLimit: oneOf('end-oldest', 'end-oldest', 'refuse'),
    requestUser: bool(false),
    loadUser: option(undefined, (value) => (typeof value === 'function' ? value : invalid('a function'))),
    passportUserId: option(undefined, (value) =>
      value === false || typeof value === 'function' ? value : invalid('a function, or false'),
    ),
  },
  record: { remoteAddress: oneOf('full', 'full', 'truncated', false), userAgent: bool(true) },
  maxClockSkew: duration('1m', { min: 1, off: true }),
  clock: option(
    () => Date,
    (value) => (isClock(value) ? value : invalid('an object with now(), which gives whole milliseconds since 1970')),
  ),
  telemetry: option(undefined, (value) =>
    has(value, 'lookup', 'storeCall', 'count')
      ? value
      : invalid('what openTelemetry() of nest-visit/opentelemetry gives'),
  ),
} satisfies OptionTable;
