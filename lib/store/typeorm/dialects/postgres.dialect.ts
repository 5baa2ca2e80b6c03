import type { DataSource } from 'typeorm';
import { Dialect, type DriverError, type PreparedStatement, type Result, type Statement } from './dialect.js';

/** serialization_failure, deadlock_detected. */
const IN_THE_WAY = ['40001', '40P01'];
/** undefined_table, undefined_column, invalid_schema_name. */
const MISSING = ['42P01', '42703', '3F000'];

/** The part of a pool of `pg` that is used here. */
interface Pool {
  on(event: 'acquire', listener: (client: Client) => void): unknown;
}

interface Client {
  query(query: PreparedQuery): Promise<{ rows: Result['rows'] }>;
  listeners(event: 'error'): unknown[];
  on(event: 'error', listener: () => void): unknown;
}

interface PreparedQuery {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Several stores may share a data source. */
const listenedTo = new WeakSet<Pool>();

/**
 * invalid_sql_statement_name, duplicate_prepared_statement, and feature_not_supported (a prepared result would change): a
 * pooler between us and the server gives statements to connections that do not know them, or the table has been altered.
 */
const UNPREPARED = ['26000', '42P05', '0A000'];

/** PostgreSQL. */
export class PostgresDialect extends Dialect {
  override readonly number = 'CAST(? AS bigint)';
  override readonly bytes = 'CAST(? AS bytea)';
  override readonly arrays = true;
  /** Of prepared statements, by name. */
  private readonly texts = new Map<string, string>();

  /**
   * A connection that the server ends tells so by the event `error`, sometimes twice, and at moments at which TypeORM does
   * not listen or not any more; nobody listening would end the process (B19). Whoever uses the connection learns of it
   * from the statement that fails.
   */
  constructor(dataSource: DataSource) {
    super(dataSource);
    const { master, slaves = [] } = dataSource.driver as unknown as { master?: Pool; slaves?: Pool[] };
    for (const pool of [master, ...slaves]) {
      if (!pool || listenedTo.has(pool)) continue;
      listenedTo.add(pool);
      pool.on('acquire', (client) => {
        if (!client.listeners('error').includes(ignore)) client.on('error', ignore);
      });
    }
  }

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE "C"`;
  }

  // An UPDATE by itself locks rows in whatever order it finds them, and two of them run into a deadlock. The array is made,
  // and so the rows are locked, before the first is written.
  override isAmong(table: string, key: string, ids: readonly string[]): Statement {
    const { sql, params } = this.isOneOf(key, ids);
    return { sql: `${key} = ANY (ARRAY(SELECT ${key} FROM ${table} WHERE ${sql} ORDER BY ${key} FOR NO KEY UPDATE))`, params };
  }

  // One text whatever the number of values: so it can be prepared.
  override isOneOf(column: string, values: readonly string[]): Statement {
    return { sql: `${column} = ANY (?)`, params: [values] };
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  protected override textOf(sql: string): string {
    return numbered(sql);
  }

  // Planning takes PostgreSQL longer than doing it.
  protected override async prepared(connection: unknown, { name, sql, params }: PreparedStatement): Promise<Result> {
    let text = this.texts.get(name);
    if (text === undefined) this.texts.set(name, (text = numbered(sql)));
    const { rows } = await (connection as Client).query({ name, text, values: params });
    return { rows, affected: 0 };
  }

  protected override isUnprepared({ code = '' }: DriverError): boolean {
    return UNPREPARED.includes(code);
  }

  protected isTransient({ code = '' }: DriverError): boolean {
    return IN_THE_WAY.includes(code);
  }

  protected isMissing({ code = '' }: DriverError): boolean {
    return MISSING.includes(code);
  }
}

function ignore(): void {}

/** `?` becomes `$1`, `$2` …, but not inside quoted names. */
function numbered(sql: string): string {
  let count = 0;
  return sql.replace(/"[^"]*"|\?/g, (match) => (match === '?' ? `$${++count}` : match));
}
