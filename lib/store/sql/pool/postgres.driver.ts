import { driverError, sqlStateOf } from '../driver-error.js';
import type { SqlDialect } from '../sql.dialect.js';
import type { Result, Statement } from '../statement.js';
import type { Fate, Pool, PoolDriver } from './connections.js';

/** read_only_sql_transaction. */
const USELESS = ['25006'];
/**
 * Connection exceptions; the operator or the server ended the session (57014 only ends one statement); a transaction
 * was idle, or ran, for too long.
 */
const LOST = /^(08|57P0|25P0[34])/;

/**
 * invalid_sql_statement_name, duplicate_prepared_statement, and feature_not_supported (the result of a prepared
 * statement would change): a pooler in between sends statements to connections on which they were not prepared, or the
 * table was altered.
 */
const UNPREPARED = ['26000', '42P05', '0A000'];

/** The part of a pool of `pg` that is used. */
interface PostgresPool extends Pool {
  on(event: string, listener: (client: object) => void): unknown;
  readonly options?: { readonly connectionTimeoutMillis?: number };
  Client?: new (options: object) => object;
}

/** A statement in the format of `pg`; with a name, it is prepared. */
export interface PostgresQuery {
  readonly name?: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** The part of a client of `pg` that is used. */
export interface PostgresClient {
  query(query: PostgresQuery): Promise<{ rows: Result['rows']; rowCount: number | null }>;
  listeners(event: 'error'): unknown[];
  on(event: 'error', listener: () => void): unknown;
  end(): Promise<void>;
  readonly connection?: { readonly stream?: { destroy?(): void } };
}

const limits = new WeakMap<PostgresPool, { value: number }>();

/** `pg`. */
export class PostgresDriver implements PoolDriver {
  readonly opened = 'connect';
  /** Prepared statements, by name. */
  private readonly texts = new Map<string, string>();

  constructor(private readonly dialect: SqlDialect) {}

  /**
   * If the server closes a connection, it emits `error`, sometimes twice, and at times when its lender does not listen.
   * Without a listener, this would end the process. The code that uses the connection learns of it from the failing
   * statement.
   */
  prepare(pool: PostgresPool): void {
    pool.on('acquire', (one) => {
      const client = one as PostgresClient;
      if (!client.listeners('error').includes(ignore)) client.on('error', ignore);
    });
  }

  // The pool's own option would also limit how long the application waits for a connection in use.
  limitConnects(pool: PostgresPool, milliseconds: number): void {
    const { Client, options } = pool;
    const known = limits.get(pool);
    if (known) known.value = milliseconds;
    if (known || !Client || options?.connectionTimeoutMillis) return;
    const connectionTimeoutMillis = { value: milliseconds, enumerable: true };
    limits.set(pool, connectionTimeoutMillis);
    // A spread would not copy it, because the pool hides the password.
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

  close(connection: unknown, abandon: () => void): void {
    const client = connection as PostgresClient;
    const stream = client.connection?.stream;
    // A pool does not lend a closed connection again; some versions of TypeORM do not report the error to it.
    client.end().catch(() => {});
    abandon();
    // Otherwise, the socket would wait for the other side to close.
    stream?.destroy?.();
  }

  fateOf(error: unknown): Fate {
    const state = sqlStateOf(error);
    if (USELESS.includes(state)) return 'useless';
    if (/not queryable/.test(driverError(error).message)) return 'unsent';
    return LOST.test(state) ? 'lost' : 'fine';
  }

  // PostgreSQL needs longer to plan this statement than to execute it.
  prepared(connection: unknown, statement: Statement, generation: number): Promise<Result> | undefined {
    const { sql, params, name: usual } = statement;
    if (usual === undefined) return undefined;
    let text = this.texts.get(usual);
    if (text === undefined) this.texts.set(usual, (text = this.dialect.textOf(sql)));
    const name = generation === 0 ? usual : `${usual}-${generation}`;
    return (connection as PostgresClient).query({ name, text, values: params }).then(readResult);
  }

  isUnprepared(error: unknown): boolean {
    return UNPREPARED.includes(driverError(error).code ?? '');
  }
}

function readResult({ rows }: { readonly rows: Result['rows'] }): Result {
  return { rows, affected: 0 };
}

function ignore(): void {}
