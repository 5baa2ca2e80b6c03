import { withoutValues, type DriverError } from '../driver-error.js';
import type { SqlDialect } from '../sql.dialect.js';
import type { Result, Statement } from '../statement.js';
import type { Held, Lender, Pool } from './connections.js';
import { queryOf, resultOf, type MysqlClient, type MysqlQuery } from './mysql.driver.js';

/** A pool of `mysql2` with callbacks. */
export interface Mysql2Pool extends Pool {
  readonly config: { readonly connectionLimit: number; readonly connectionConfig: object };
  getConnection(done: (error: Error | null, connection: Mysql2Client) => void): void;
}

interface Mysql2Client extends MysqlClient {
  query(query: MysqlQuery, done: (error: DriverError | null, answer: Parameters<typeof resultOf>[0]) => void): unknown;
  release(): void;
}

/** The default, REPEATABLE READ, also locks the gaps between rows, which blocks inserts. */
const ISOLATION = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED';

/** A pool of `mysql2` lends its connections itself. @param onStatement called for each statement that is sent */
export class MysqlLender implements Lender<undefined> {
  constructor(
    private readonly pool: Mysql2Pool,
    private readonly dialect: SqlDialect,
    private readonly onStatement?: (statement: Statement) => void,
  ) {}

  pools(): readonly Pool[] {
    return [this.pool];
  }

  runner(): undefined {}

  connect(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection)));
    });
  }

  rawOf(_runner: undefined, connection: unknown): object {
    return connection as object;
  }

  release(_runner: undefined, connection: unknown): void {
    (connection as Mysql2Client).release();
  }

  // The pool has already removed destroyed connections.
  abandon(): void {}

  send({ connection }: Held<undefined>, statement: Statement): Promise<Result> {
    this.onStatement?.(statement);
    const { sql, params } = statement;
    const query = queryOf(sql, this.dialect.valuesOf(params));
    return new Promise((resolve, reject) => {
      (connection as Mysql2Client).query(query, (error, answer) =>
        error ? reject(withoutValues(error)) : resolve(resultOf(answer)),
      );
    });
  }

  async begin(held: Held<undefined>): Promise<void> {
    await this.send(held, plain(ISOLATION));
    await this.send(held, plain('START TRANSACTION'));
  }

  commit(held: Held<undefined>): Promise<unknown> {
    return this.send(held, plain('COMMIT'));
  }

  rollback(held: Held<undefined>): Promise<unknown> {
    return this.send(held, plain('ROLLBACK'));
  }

  log(_held: Held<undefined>, statement: Statement): void {
    this.onStatement?.(statement);
  }

  errorOf(error: unknown): unknown {
    return withoutValues(error);
  }
}

const plain = (sql: string): Statement => ({ sql, params: [] });
