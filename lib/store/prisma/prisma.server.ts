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
import { missingIndexes } from '../sql/missing-indexes.js';
import { MysqlDialect } from '../sql/mysql.dialect.js';
import { PostgresDialect } from '../sql/postgres.dialect.js';
import type { SqlDialect } from '../sql/sql.dialect.js';
import type { Result, Statement } from '../sql/statement.js';
import { TABLE_COLUMNS, VisitSql, type SqlTable, type VisitTables } from '../sql/visit.sql.js';
import { NO_ID } from '../table-visit.store.js';
import { namesIn, type Column } from '../visit.columns.js';
import type { Client, ModelNames } from './prisma.client.js';
import { serverCodeOf } from './prisma.errors.js';

/** The usual REPEATABLE READ of MySQL locks the gaps between rows, too, and inserts of others run into them. */
export const READ_COMMITTED = { isolationLevel: 'ReadCommitted' };
/**
 * In milliseconds; the usual two and five seconds are short for a database that is busy, and who waits has a deadline
 * of their own.
 */
export const IN_TRANSACTION = { ...READ_COMMITTED, maxWait: 10_000, timeout: 20_000 };

/** What is asked of a server in SQL, and which answers visits cannot work with. */
interface Questions {
  readonly time: string;
  readonly settings: readonly string[];
  readonly rules: readonly Rule[];
  /** Gives `text` as it came, and what the server has understood in `hex`. */
  readonly text: string;
  /** Gives `hex` of bytes, which go the way of session data. */
  readonly bytes: string;
  readonly charset: {
    readonly names: readonly string[];
    readonly remedy: string;
    /** Errors of a server that cannot write a character in its own encoding. */
    readonly codes: readonly string[];
  };
  /** Errors of a server or connection that takes no writes. */
  readonly readOnly: { readonly codes: readonly string[]; readonly setting: string; readonly remedy: string };
  /** Errors of a user who has no right to write. */
  readonly denied: readonly string[];
}

const QUESTIONS: Readonly<Record<string, Questions>> = {
  mysql: {
    time: 'SELECT UNIX_TIMESTAMP() AS now',
    // The limit by itself, because it cuts off the list of the others.
    settings: ['SHOW VARIABLES', "SELECT 'sql_select_limit' AS name, CAST(@@sql_select_limit AS CHAR) AS value"],
    rules: [
      ...MYSQL_RULES,
      {
        names: ['sql_mode'],
        isRefused: (value) => value.split(',').includes('ORACLE'),
        why: 'transactions that Prisma begins are blocks of PL/SQL in this mode',
        remedy: 'leave ORACLE out of `sql_mode`, by the option `initSql` of the adapter for example',
      },
    ],
    text: 'SELECT ? AS text, HEX(CONVERT(? USING utf8mb4)) AS hex',
    bytes: 'SELECT HEX(?) AS hex',
    charset: {
      names: ['character_set_client', 'character_set_connection', 'character_set_results'],
      remedy:
        'let the adapter connect with utf8mb4, as it does by itself: look at its options `collation` and ' +
        '`initSql`, and at `init_connect`',
      // ER_TRUNCATED_WRONG_VALUE_FOR_FIELD, ER_CANNOT_CONVERT_STRING, ER_CANNOT_CONVERT_CHARACTER.
      codes: ['1366', '3854', '3988'],
    },
    readOnly: {
      // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE.
      codes: ['1290', '1792', '1836'],
      setting: 'read_only',
      remedy:
        'name the primary server in the options of the adapter, or set `read_only` and `transaction_read_only` to 0',
    },
    // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR.
    denied: ['1044', '1142', '1143'],
  },
  postgresql: {
    time: 'SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS bigint) AS now',
    settings: ['SELECT name, setting AS value FROM pg_settings'],
    rules: POSTGRES_RULES,
    text: `SELECT CAST($1 AS text) AS text, encode(convert_to(CAST($2 AS text), 'UTF8'), 'hex') AS hex`,
    bytes: `SELECT encode(CAST($1 AS bytea), 'hex') AS hex`,
    charset: {
      names: ['client_encoding', 'server_encoding'],
      remedy:
        'keep visits in a database with the encoding UTF8, and set no other `client_encoding` for its role, its ' +
        'database or the adapter',
      // character_not_in_repertoire, untranslatable_character.
      codes: ['22021', '22P05'],
    },
    readOnly: {
      // read_only_sql_transaction.
      codes: ['25006'],
      setting: 'transaction_read_only',
      remedy: 'name the primary server in the options of the adapter, or set `default_transaction_read_only` to off',
    },
    // insufficient_privilege.
    denied: ['42501'],
  },
};

const DIALECTS: Readonly<Record<string, new () => SqlDialect>> = { mysql: MysqlDialect, postgresql: PostgresDialect };

type Asking = Questions & { readonly ask: NonNullable<Client['$queryRawUnsafe']> };

/**
 * Reads what Prisma's own calls cannot: the time, and the settings of the server. Nothing is read if the kind of
 * database is unknown, or an extension has removed raw queries.
 */
export class PrismaServer {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  get #questions(): Asking | undefined {
    const { _activeProvider: provider = '' } = this.#client;
    const ask = this.#client.$queryRawUnsafe?.bind(this.#client);
    const questions = QUESTIONS[provider];
    return questions && ask ? { ...questions, ask } : undefined;
  }

  /** In milliseconds since 1970. */
  async time(): Promise<number | undefined> {
    const questions = this.#questions;
    const [row] = (await questions?.ask(questions.time)) ?? [];
    return row && Number(row['now']) * 1000;
  }

  /**
   * Checks the server before the first request.
   *
   * @throws VisitServerSettingError for unsupported settings, by name
   */
  async check(): Promise<Settings> {
    const questions = this.#questions;
    const settings = new Map<string, string>();
    if (!questions) return settings;
    for (const sql of questions.settings) for (const row of await questions.ask(sql)) settings.set(...settingIn(row));
    const refused = refusedSettings(questions.rules, settings);
    if (!(await this.#keepsText(questions))) refused.push(changedText(questions.charset, settings));
    // Where a transaction is open all the time, none can begin.
    if (refused.length === 0) refused.push(...(await this.#whyNoWrites(questions)));
    if (refused.length > 0) throw new VisitServerSettingError(refused);
    return settings;
  }

  /** @throws Error if this cannot be determined */
  async missingIndexes(): Promise<string[]> {
    const { _activeProvider: provider = '', _runtimeDataModel: schema } = this.#client;
    const Dialect = DIALECTS[provider];
    const ask = this.#questions?.ask;
    const tables = schema && visitTablesOf(schema);
    if (!Dialect || !ask || !tables) throw new Error('this Prisma client does not say where its tables are');
    const dialect = new Dialect();
    const run = async ({ sql, params }: Statement): Promise<Pick<Result, 'rows'>> => {
      const rows = await ask(dialect.textOf(sql), ...params);
      // Each has a primary key. Raw queries may look in another schema than Prisma's own calls.
      if (rows.length === 0) throw new Error("the tables are not where Prisma's raw queries look for them");
      return { rows };
    };
    return missingIndexes(run, new VisitSql(dialect, tables));
  }

  async #keepsText({ ask, text, bytes, charset }: Asking): Promise<boolean> {
    try {
      const [row] = await ask(text, PROBE_TEXT, PROBE_TEXT);
      const [binary] = await ask(bytes, PROBE_BYTES);
      const isText = row?.['text'] === PROBE_TEXT && isHexOf(row['hex'], Buffer.from(PROBE_TEXT));
      return isText && isHexOf(binary?.['hex'], PROBE_BYTES);
    } catch (error) {
      if (charset.codes.includes(serverCodeOf(error))) return false;
      throw error;
    }
  }

  /** Tries a write that matches no row, in a transaction. */
  async #whyNoWrites({ readOnly, denied }: Questions): Promise<RefusedSetting[]> {
    try {
      const nothing = { where: { id: NO_ID }, data: { sessionVersion: { increment: 0 } } };
      await this.#client.$transaction(({ visit }) => visit.updateMany(nothing), IN_TRANSACTION);
      return [];
    } catch (error) {
      const code = serverCodeOf(error);
      if (readOnly.codes.includes(code)) {
        return [{ name: readOnly.setting, value: 'on', why: 'nothing can be written', remedy: readOnly.remedy }];
      }
      if (!denied.includes(code)) throw error;
      const remedy = 'grant SELECT, INSERT, UPDATE and DELETE on the tables of visits';
      return [{ name: 'privileges', value: 'insufficient', why: 'the database user cannot write', remedy }];
    }
  }
}

/** The names of the tables and columns in the schema. Undefined: it does not contain all of them. */
function visitTablesOf({ models }: NonNullable<Client['_runtimeDataModel']>): VisitTables | undefined {
  const { Visit, VisitIdentity, VisitRevocation } = models;
  if (!Visit || !VisitIdentity || !VisitRevocation) return undefined;
  const table = <Name extends string>(
    model: string,
    { dbName, schema, fields }: ModelNames,
    columns: Readonly<Record<Name, Column>>,
  ): SqlTable<Name> => {
    const names = namesIn(columns).map((name) => [name, fields.find((field) => field.name === name)?.dbName ?? name]);
    const path = [dbName ?? model];
    return {
      path: typeof schema === 'string' ? [schema, ...path] : path,
      columns: Object.fromEntries(names) as Record<Name, string>,
    };
  };
  return {
    visit: table('Visit', Visit, TABLE_COLUMNS.visit),
    identity: table('VisitIdentity', VisitIdentity, TABLE_COLUMNS.identity),
    revocation: table('VisitRevocation', VisitRevocation, TABLE_COLUMNS.revocation),
  };
}
