import { inspect } from 'node:util';
import { withoutSecrets } from '../errors/secrets.js';
import { VisitOptionError } from '../errors/visit.error.js';
import { DefaultSessionSerializer } from '../session/session.codec.js';
import { VISIT_KEY_LENGTH } from '../key/visit-key.js';
import { optionTable, type Option, type OptionTable } from './option-table.js';
import { supports, unsupportedByStore } from './store-needs.js';
import { InvalidOption } from './invalid-option.js';
import type { ResolvedVisitOptions, VisitModuleOptions } from './visit-options.interface.js';

/**
 * Validates the options and adds the defaults.
 *
 * @throws VisitOptionError with every invalid option, its value and what was expected
 */
export function resolveOptions(given: VisitModuleOptions): ResolvedVisitOptions {
  const problems: string[] = [];
  const resolved = resolveTable(optionTable, given, '', problems) as unknown as Mutable<ResolvedVisitOptions>;
  if (problems.length === 0) combine(given, resolved, problems);
  if (problems.length > 0) throw new VisitOptionError(problems.join('\n[visit] '));
  return resolved;
}

type Mutable<T> = {
  -readonly [K in keyof T]: T[K] extends (...args: never[]) => unknown
    ? T[K]
    : T[K] extends object
      ? Mutable<T[K]>
      : T[K];
};

const isOption = (entry: Option | OptionTable): entry is Option => typeof entry['parse'] === 'function';

function resolveTable(table: OptionTable, given: unknown, prefix: string, problems: string[]): Record<string, unknown> {
  if (given === undefined) given = {};
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    problems.push(
      `${prefix ? `option "${prefix.slice(0, -1)}"` : 'the options'} must be an object, got ${show(given)}`,
    );
    given = {};
  }
  const values = given as Record<string, unknown>;
  for (const name of Object.keys(values)) {
    if (!Object.hasOwn(table, name)) {
      problems.push(
        `option "${prefix}${name}" is unknown; ` +
          `${prefix ? `"${prefix.slice(0, -1)}" has` : 'there are'} ${Object.keys(table).join(', ')}`,
      );
    }
  }
  const resolved: Record<string, unknown> = {};
  for (const [name, entry] of Object.entries(table)) {
    const value = values[name];
    if (!isOption(entry)) {
      resolved[name] = resolveTable(entry, value, `${prefix}${name}.`, problems);
      continue;
    }
    try {
      const chosen = value === undefined ? entry.default() : value;
      resolved[name] = chosen === undefined ? undefined : entry.parse(chosen);
    } catch (error) {
      if (!(error instanceof InvalidOption)) throw error;
      problems.push(`option "${prefix}${name}" must be ${error.message}, got ${error.got ?? show(value)}`);
    }
  }
  return resolved;
}

/** Checks combinations of options. */
function combine(given: VisitModuleOptions, options: Mutable<ResolvedVisitOptions>, problems: string[]): void {
  if (given.dataSource && given.store) problems.push('options "dataSource" and "store" exclude each other, got both');
  if (!given.dataSource && !given.store) {
    problems.push(
      'option "dataSource" is needed: an open DataSource, or options such as { type: "mysql", url: "mysql://…" } ' +
        '(or "store")',
    );
  }
  options.session.serializer ??= new DefaultSessionSerializer({ instances: options.session.instances });
  if (given.session?.serializer && given.session.instances) {
    problems.push(
      'options "session.serializer" and "session.instances" exclude each other, got both: "instances" is for the ' +
        'default serializer',
    );
  }
  // It is enabled by default, so a store that cannot count works without it.
  if (given.store && given.identity?.maxVisitsPerUser === undefined && !supports(given.store, 'users')) {
    options.identity.maxVisitsPerUser = false;
  }
  if (given.store) problems.push(...unsupportedByStore(options, given.store));
  // A larger resolution would let visits expire while they are in use.
  options.touch.resolution = Math.min(
    options.touch.resolution,
    Math.floor(Math.min(options.timeout, options.permanentTimeout) / 10),
  );

  const cookie = options.cookie;
  const isSecure = cookie.secure === true;
  const host = isSecure && cookie.path === '/' && cookie.domain === undefined;
  const prefix = /^__(host|secure)-/i.exec(cookie.name)?.[0];
  if (prefix?.toLowerCase() === '__host-' && !host) {
    problems.push(
      'option "cookie.name" with "__Host-" needs cookie.secure true, cookie.path "/" and no cookie.domain: ' +
        'browsers refuse it otherwise',
    );
  } else if (prefix?.toLowerCase() === '__secure-' && !isSecure) {
    problems.push('option "cookie.name" with "__Secure-" needs cookie.secure true: browsers refuse it otherwise');
  } else if (isSecure && !prefix) {
    cookie.name = `${host ? '__Host-' : '__Secure-'}${cookie.name}`;
  }
  if (cookie.partitioned && !isSecure) {
    problems.push('option "cookie.partitioned" needs cookie.secure true: browsers refuse it otherwise');
  }
  if (cookie.sameSite === 'none' && !isSecure) {
    problems.push(
      'option "cookie.sameSite" must be "strict" or "lax" unless cookie.secure is true: browsers refuse ' +
        'SameSite=None without Secure, got "none"',
    );
  }
  if (process.env['NODE_ENV'] === 'production' && !cookie.allowInsecure) {
    const dangers = {
      secure: 'everyone on the network path can read the key',
      httpOnly: 'every script on a page can read the key',
    } as const;
    for (const name of ['secure', 'httpOnly'] as const) {
      if (cookie[name] === true) continue;
      problems.push(
        `option "cookie.${name}" must be true in production, because otherwise ${dangers[name]}; set ` +
          `cookie.allowInsecure to allow it, got ${JSON.stringify(cookie[name])}`,
      );
    }
  }
  if (cookie.name.length + VISIT_KEY_LENGTH > 4096)
    problems.push('option "cookie.name" is too long: browsers allow 4096 bytes for name and value');
}

/**
 * Shows an invalid value. Options contain passwords, so for an object only the names of its properties are shown, and
 * text without everything before an `@`.
 */
function show(value: unknown): string {
  const kind = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  const text =
    kind === 'object'
      ? namesIn(value as object)
      : withoutSecrets(kind === 'string' ? shownText(value as string) : inspect(value));
  return `${text.length > 80 ? `${text.slice(0, 79)}…` : text} (${kind})`;
}

/** A URL may have no scheme. */
function shownText(text: string): string {
  const start = text.indexOf('://');
  const from = start < 0 ? 0 : start + 3;
  const to = text.lastIndexOf('@');
  return JSON.stringify(to < from ? text : `${text.slice(0, from)}***${text.slice(to)}`);
}

function namesIn(value: object): string {
  const names = Object.keys(value);
  return names.length === 0 ? '{}' : `{ ${names.join(', ')} }`;
}
