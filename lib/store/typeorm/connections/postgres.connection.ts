import type { DataSource, QueryRunner } from 'typeorm';
import { driverError, sqlStateOf, type DriverError } from '../../sql/driver-error.js';
import { PostgresDialect } from '../../sql/postgres.dialect.js';
import type { Result } from '../../sql/statement.js';
import type { ConnectionDriver, Fate, Pool } from './connections.js';
import { PooledConnection, type PreparedStatement } from './pooled.connection.js';

/** read_only_sql_transaction. */
const USELESS = ['25006'];
/**
 * Connection exceptions; the operator or the server ends sessions (57014 ends one statement); a transaction was idle
 * for too long.
 */
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
    const { master, slaves = [] } = this.dataSource.driver as unknown as {
      master?: PostgresPool;
      slaves?: PostgresPool[];
    };
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
          Object.create(Object.getPrototypeOf(given) as object, {
            ...Object.getOwnPropertyDescriptors(given),
            connectionTimeoutMillis,
          }),
        );
      }
    };
  }

  discard(queryRunner: QueryRunner, connection: unknown, error: Error): void {
    const client = connection as Client;
    const stream = client.connection?.stream;
    // A pool does not lend on what ends; some versions of TypeORM do not tell it of the error.
    client.end().catch(() => {});
    void (
      queryRunner as unknown as { releasePostgresConnection(error: Error): Promise<void> }
    ).releasePostgresConnection(error);
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
 * invalid_sql_statement_name, duplicate_prepared_statement, and feature_not_supported (a prepared result would change):
 * a pooler between us and the server gives statements to connections that do not know them, or the table has been
 * altered.
 */
const UNPREPARED = ['26000', '42P05', '0A000'];

/** PostgreSQL. */
export class PostgresConnection extends PooledConnection {
  readonly dialect = new PostgresDialect();
  /** Of prepared statements, by name. */
  private readonly texts = new Map<string, string>();

  /**
   * A connection that the server ends tells so by the event `error`, sometimes twice, and at moments at which TypeORM
   * does not listen or not any more; nobody listening would end the process. Whoever uses the connection learns of it
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

  // Planning takes PostgreSQL longer than doing it.
  protected async prepared(connection: unknown, statement: PreparedStatement, generation: number): Promise<Result> {
    const { sql, params } = statement;
    let text = this.texts.get(statement.name);
    if (text === undefined) this.texts.set(statement.name, (text = this.dialect.textOf(sql)));
    const name = generation === 0 ? statement.name : `${statement.name}-${generation}`;
    const { rows } = await (connection as Client).query({ name, text, values: params });
    return { rows, affected: 0 };
  }

  protected isUnprepared({ code = '' }: DriverError): boolean {
    return UNPREPARED.includes(code);
  }
}

function ignore(): void {}
