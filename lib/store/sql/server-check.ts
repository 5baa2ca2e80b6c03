import { VisitServerSettingError, type RefusedSetting } from '../../errors/visit.error.js';
import { isHexOf, PROBE_BYTES, PROBE_TEXT } from '../server-probe.js';
import {
  changedText,
  MYSQL_RULES,
  POSTGRES_RULES,
  refusedSettings,
  settingIn,
  type Rule,
  type Settings,
} from '../server-rules.js';
import { driverError } from './driver-error.js';
import type { SqlConnection } from './sql.connection.js';
import type { SqlFamily } from './sql.dialect.js';
import type { Statement } from './statement.js';

interface Server {
  /** Select `name` and `value`. */
  readonly settings: readonly Statement[];
  readonly rules: readonly Rule[];
  /** Selects `text` as it arrived, and as the server understood it, in `hex`. */
  readonly text: Statement;
  /** Selects the `hex` of bytes that are sent like session data. */
  readonly bytes: Statement;
  /** The settings for text, and the option that corrects them. */
  readonly charset: { readonly names: readonly string[]; readonly remedy: string };
  /** Errors of a read-only server or connection. */
  readonly readOnly: {
    readonly codes: readonly (string | number | undefined)[];
    readonly setting: string;
    readonly remedy: string;
  };
  /** Errors of a database user without the privilege to write. */
  readonly denied: readonly (string | number | undefined)[];
}

const MYSQL_CHARSETS = ['character_set_client', 'character_set_connection', 'character_set_results'];
const MYSQL_OTHERS = ['log_bin', 'sql_mode', 'sql_safe_updates', 'version'];
const MYSQL_SETTINGS = [...MYSQL_RULES.flatMap(({ names }) => names), ...MYSQL_CHARSETS, ...MYSQL_OTHERS];
const POSTGRES_CHARSETS = ['client_encoding', 'server_encoding'];
const POSTGRES_SETTINGS = [...POSTGRES_RULES.flatMap(({ names }) => names), ...POSTGRES_CHARSETS];

/** ER_PARSE_ERROR. */
const PARSE_ERROR = 1064;

const listed = (names: readonly string[]): string => names.map((name) => `'${name}'`).join(', ');

const SERVERS: Readonly<Record<Exclude<SqlFamily, 'sqlite'>, Server>> = {
  mysql: {
    settings: [
      { sql: `SHOW VARIABLES WHERE Variable_name IN (${listed(MYSQL_SETTINGS)})`, params: [] },
      // A separate query, because this setting truncates the list of the others.
      { sql: `SELECT 'sql_select_limit' AS "name", CAST(@@sql_select_limit AS CHAR) AS "value"`, params: [] },
    ],
    rules: MYSQL_RULES,
    text: { sql: 'SELECT ? AS "text", HEX(CONVERT(? USING utf8mb4)) AS "hex"', params: [PROBE_TEXT, PROBE_TEXT] },
    bytes: { sql: 'SELECT HEX(?) AS "hex"', params: [PROBE_BYTES], name: 'nest-visit-bytes' },
    charset: { names: MYSQL_CHARSETS, remedy: "set `charset: 'utf8mb4'` in the options of its connections" },
    readOnly: {
      // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE.
      codes: [1290, 1792, 1836],
      setting: 'read_only',
      remedy:
        'name the primary server in the options of the connections, or set `read_only` and `transaction_read_only` ' +
        'to 0',
    },
    // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR.
    denied: [1044, 1142, 1143],
  },
  postgres: {
    settings: [
      {
        sql: `SELECT name AS "name", setting AS "value" FROM pg_settings WHERE name IN (${listed(POSTGRES_SETTINGS)})`,
        params: [],
      },
    ],
    rules: POSTGRES_RULES,
    text: {
      sql: `SELECT CAST(? AS text) AS "text", encode(convert_to(CAST(? AS text), 'UTF8'), 'hex') AS "hex"`,
      params: [PROBE_TEXT, PROBE_TEXT],
    },
    bytes: { sql: `SELECT encode(CAST(? AS bytea), 'hex') AS "hex"`, params: [PROBE_BYTES], name: 'nest-visit-bytes' },
    charset: {
      names: POSTGRES_CHARSETS,
      remedy:
        'keep visits in a database with the encoding UTF8, and set no other `client_encoding` for its role or database',
    },
    readOnly: {
      // read_only_sql_transaction.
      codes: ['25006'],
      setting: 'transaction_read_only',
      remedy:
        'name the primary server in the options of the connections, or set `default_transaction_read_only` to off',
    },
    // insufficient_privilege.
    denied: ['42501'],
  },
};

/**
 * Checks a server that others administer: unsupported settings are refused by name, before the first request. Text,
 * bytes and a write that matches no row are sent through the connection, because many settings only show there. The
 * dialect adapts to the settings.
 *
 * @param write a write that matches no row
 * @throws VisitServerSettingError
 */
export async function checkServer(connection: SqlConnection, write: Statement): Promise<Settings> {
  const settings = new Map<string, string>();
  const { family } = connection.dialect;
  if (family === 'sqlite') return settings;
  const server = SERVERS[family];
  for (const statement of server.settings)
    for (const row of (await connection.run(statement)).rows) settings.set(...settingIn(row));
  connection.dialect.adapt(settings);
  const refused = refusedSettings(server.rules, settings);
  if (!(await keepsText(connection, server))) refused.push(changedText(server.charset, settings));
  // If a transaction is always open, none can begin.
  if (refused.length === 0)
    refused.push(...(await whyNoWrites(connection, write, { ...server, mode: settings.get('sql_mode') ?? '' })));
  if (refused.length > 0) throw new VisitServerSettingError(refused);
  return settings;
}

async function keepsText(connection: SqlConnection, { text, bytes }: Server): Promise<boolean> {
  try {
    const [row] = (await connection.run(text)).rows;
    const [binary] = (await connection.run(bytes)).rows;
    const isText = row?.['text'] === PROBE_TEXT && isHexOf(row['hex'], Buffer.from(PROBE_TEXT));
    return isText && isHexOf(binary?.['hex'], PROBE_BYTES);
  } catch (error) {
    // A character that the encoding does not support.
    if (connection.dialect.isRefusal(error)) return false;
    throw error;
  }
}

/** Tries a write in a transaction, which a pooler may not support. */
async function whyNoWrites(
  connection: SqlConnection,
  write: Statement,
  { readOnly, denied, mode }: Server & { readonly mode: string },
): Promise<RefusedSetting[]> {
  try {
    await connection.atomic([write]);
    return [];
  } catch (error) {
    const { errno, code, message } = driverError(error);
    if (/statement pooling/.test(message)) {
      const why = 'sign-ins and clean-up use transactions';
      return [
        {
          name: 'pool_mode',
          value: 'statement',
          why,
          remedy: 'set it to transaction or session in the configuration of PgBouncer',
        },
      ];
    }
    if (errno === PARSE_ERROR && mode.split(',').includes('ORACLE')) {
      const why = 'in this mode, BEGIN starts a block of PL/SQL instead of a transaction';
      return [
        {
          name: 'sql_mode',
          value: mode,
          why,
          remedy: 'remove ORACLE from it, at least for the connections that visits use',
        },
      ];
    }
    if (readOnly.codes.includes(errno ?? code)) {
      return [{ name: readOnly.setting, value: 'on', why: 'nothing can be written', remedy: readOnly.remedy }];
    }
    if (!denied.includes(errno ?? code)) throw error;
    const remedy = 'grant SELECT, INSERT, UPDATE and DELETE on the tables of visits';
    return [{ name: 'privileges', value: 'insufficient', why: `the database user cannot write (${message})`, remedy }];
  }
}
