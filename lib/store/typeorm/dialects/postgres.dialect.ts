import type { DataSource, QueryRunner } from 'typeorm';
import type { ConnectionDriver, Fate, Pool } from './connections.js';
import { driverError, sqlStateOf, type DriverError, type PreparedStatement, type Result, type Statement } from './dialect.js';
import { PooledDialect } from './pooled.dialect.js';

/** serialization_failure, deadlock_detected. */
const IN_THE_WAY = ['40001', '40P01'];
/** undefined_table, undefined_column, invalid_schema_name. */
const MISSING = ['42P01', '42703', '3F000'];

/** read_only_sql_transaction. */
const USELESS = ['25006'];
/** Connection exceptions; the operator or the server ends sessions (57014 ends one statement); a transaction was idle for too long. */
const LOST = /^(08|57P0|25P03)/;

/** The part of a pool of `pg` that is used here. */
interface PostgresPool extends Pool {
  on(event: string, listener: (client: object) => void): unknown;
  readonly options?: { readonly connectionTimeoutMillis?: number };
  Client?: new (options: object) => object;
}

interface Client {
  query(query: PreparedQuery): Promise<{ rows: Result['rows'] }>;
  listeners(event: 'error'): unknown[];
  on(event: 'error', listener: () => void): unknown;
  end(): Promise<void>;
  readonly connection?: { readonly stream?: { destroy(): void } };
}

class PostgresConnections implements ConnectionDriver<PostgresPool> {
  readonly opened = 'connect';

  constructor(private readonly dataSource: DataSource) {}

  pools(): readonly PostgresPool[] {
    const { master, slaves = [] } = this.dataSource.driver as unknown as { master?: PostgresPool; slaves?: PostgresPool[] };
    return master ? [master, ...slaves] : slaves;
  }

  // The pool's own option would also limit how long the application waits for a connection that is in use.
  limitConnects(pool: PostgresPool, milliseconds: number): void {
    const { Client, options } = pool;
    const known = limits.get(pool);
    if (known) known.value = milliseconds;
    if (known || !Client || options?.connectionTimeoutMillis) return;
    const connectionTimeoutMillis = { value: milliseconds, enumerable: true };
    limits.set(pool, connectionTimeoutMillis);
    // Not copied by a spread: the pool hides the password, among others.
    pool.Client = class extends Client {
      constructor(given: object) {
        super(
          Object.create(Object.getPrototypeOf(given) as object, { ...Object.getOwnPropertyDescriptors(given), connectionTimeoutMillis }),
        );
      }
    };
  }

  discard(queryRunner: QueryRunner, connection: unknown, error: Error): void {
    const client = connection as Client;
    const stream = client.connection?.stream;
    // A pool does not lend on what ends; some versions of TypeORM do not tell it of the error.
    client.end().catch(() => {});
    void (queryRunner as unknown as { releasePostgresConnection(error: Error): Promise<void> }).releasePostgresConnection(error);
    // Without it, the socket waits for a farewell of the other side.
    stream?.destroy();
  }

  fateOf(error: unknown): Fate {
    const state = sqlStateOf(error);
    if (USELESS.includes(state)) return 'useless';
    if (/not queryable/.test(driverError(error).message)) return 'unsent';
    return LOST.test(state) ? 'lost' : 'fine';
  }
}

const limits = new WeakMap<PostgresPool, { value: number }>();

interface PreparedQuery {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Several stores may share a data source. */
const listenedTo = new WeakSet<PostgresPool>();

/**
 * invalid_sql_statement_name, duplicate_prepared_statement, and feature_not_supported (a prepared result would change): a
 * pooler between us and the server gives statements to connections that do not know them, or the table has been altered.
 */
const UNPREPARED = ['26000', '42P05', '0A000'];

/** PostgreSQL. */
export class PostgresDialect extends PooledDialect {
  readonly unixTime = 'CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS bigint)';
  override readonly number = 'CAST(? AS bigint)';
  override readonly bytes = 'CAST(? AS bytea)';
  override readonly arrays = true;
  /** Of prepared statements, by name. */
  private readonly texts = new Map<string, string>();

  /**
   * A connection that the server ends tells so by the event `error`, sometimes twice, and at moments at which TypeORM does
   * not listen or not any more; nobody listening would end the process. Whoever uses the connection learns of it
   * from the statement that fails.
   */
  constructor(dataSource: DataSource) {
    super(dataSource);
    for (const pool of new PostgresConnections(dataSource).pools()) {
      if (listenedTo.has(pool)) continue;
      listenedTo.add(pool);
      pool.on('acquire', (one) => {
        const client = one as Client;
        if (!client.listeners('error').includes(ignore)) client.on('error', ignore);
      });
    }
  }

  protected driver(dataSource: DataSource): ConnectionDriver {
    return new PostgresConnections(dataSource);
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
  protected async prepared(connection: unknown, statement: PreparedStatement, generation: number): Promise<Result> {
    const { sql, params } = statement;
    let text = this.texts.get(statement.name);
    if (text === undefined) this.texts.set(statement.name, (text = numbered(sql)));
    const name = generation === 0 ? statement.name : `${statement.name}-${generation}`;
    const { rows } = await (connection as Client).query({ name, text, values: params });
    return { rows, affected: 0 };
  }

  protected isUnprepared({ code = '' }: DriverError): boolean {
    return UNPREPARED.includes(code);
  }

  protected override constraintIn({ constraint }: DriverError): string | undefined {
    return constraint;
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
