import type { RefusedSetting } from '../errors/visit.error.js';

/** By name, as a server gives them. */
export type Settings = ReadonlyMap<string, string>;

/** A setting that visits cannot work with, told from its value. */
export interface Rule {
  readonly names: readonly string[];
  readonly isRefused: (value: string, settings: Settings) => boolean;
  readonly why: string;
  readonly remedy: string;
}

/** In bytes: 500 visits with user ids of any length, in hexadecimal digits. */
const LEAST_PACKET = 524_288;

const OFF = ['OFF', '0'];
const WHERE_SET =
  'check the server configuration, `init_connect`, and the statements that the application sends on new connections';

export const MYSQL_RULES: readonly Rule[] = [
  {
    names: ['autocommit'],
    isRefused: (value) => OFF.includes(value),
    why: 'writes of single statements would never be committed',
    remedy: `set it to 1; ${WHERE_SET}`,
  },
  {
    names: ['completion_type'],
    isRefused: (value) => !['NO_CHAIN', '0'].includes(value),
    why:
      'after each commit, the next statement would run in a transaction that is never committed, or on a closed ' +
      'connection',
    remedy: `set it to NO_CHAIN; ${WHERE_SET}`,
  },
  {
    names: ['sql_select_limit'],
    isRefused: (value) => BigInt(value) < 2n ** 32n,
    why: 'lists would be incomplete, and some visits of a user would not be ended with the others',
    remedy: `set it to DEFAULT; ${WHERE_SET}`,
  },
  {
    names: ['max_allowed_packet'],
    isRefused: (value) => Number(value) < LEAST_PACKET,
    why: 'a statement that writes several visits would be too large',
    remedy: `set it to ${LEAST_PACKET} or more, and to four times the option \`session.maxBytes\``,
  },
  {
    names: ['transaction_isolation', 'tx_isolation'],
    isRefused: (value) => value === 'READ-UNCOMMITTED',
    why: 'requests would see a sign-in that is rolled back later',
    remedy: 'set it to READ-COMMITTED or REPEATABLE-READ',
  },
  {
    names: ['binlog_format'],
    isRefused: (value, settings) => value === 'STATEMENT' && !OFF.includes(settings.get('log_bin') ?? 'OFF'),
    why: 'sign-ins and clean-up are transactions of level READ COMMITTED, which the server refuses to log by statement',
    remedy: 'set it to ROW or MIXED',
  },
];

export const POSTGRES_RULES: readonly Rule[] = [
  {
    names: ['array_nulls'],
    isRefused: (value) => value === 'off',
    why: 'saves that empty a session would store the word NULL',
    remedy: 'set it to on: ALTER ROLE … SET array_nulls = on',
  },
];

/** Those of the settings that visits cannot work with. */
export function refusedSettings(rules: readonly Rule[], settings: Settings): RefusedSetting[] {
  return rules.flatMap(({ names, isRefused, why, remedy }): RefusedSetting[] => {
    const name = names.find((one) => settings.has(one));
    const value = settings.get(name ?? '');
    return name !== undefined && value !== undefined && isRefused(value, settings)
      ? [{ name, value, why, remedy }]
      : [];
  });
}

/** Name and value; SHOW has names of its own for the columns. */
export function settingIn({
  name,
  value,
  Variable_name = name,
  Value = value,
}: Readonly<Record<string, unknown>>): [string, string] {
  return [String(Variable_name), String(Value)];
}

/** For a connection that changes text on its way. */
export function changedText(
  { names, remedy }: { readonly names: readonly string[]; readonly remedy: string },
  settings: Settings,
): RefusedSetting {
  return {
    name: names.join(', '),
    value: names.map((name) => settings.get(name)).join(', '),
    why: 'the connection changes text, so one user id could become another',
    remedy,
  };
}
