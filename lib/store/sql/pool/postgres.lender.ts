import { withoutValues } from '../driver-error.js';
import type { SqlDialect } from '../sql.dialect.js';
import type { Result, Statement } from '../statement.js';
import type { Held, Lender, Pool } from './connections.js';
import type { PostgresClient } from './postgres.driver.js';

/** A pool of `pg`. */
export interface PgPool extends Pool {
  readonly options: { readonly max?: number };
  connect(): Promise<PgClient>;
}

interface PgClient extends PostgresClient {
  release(error?: Error): void;
}

/** A pool of `pg` lends its connections itself. @param onStatement called for each statement that is sent */
export class PostgresLender implements Lender<undefined> {
  constructor(
    private readonly pool: PgPool,
    private readonly dialect: SqlDialect,
    private readonly onStatement?: (statement: Statement) => void,
  ) {}

  pools(): readonly Pool[] {
    return [this.pool];
  }

  runner(): undefined {}

  connect(): Promise<unknown> {
    return this.pool.connect();
  }

  rawOf(_runner: undefined, connection: unknown): object {
    return connection as object;
  }

  release(_runner: undefined, connection: unknown): void {
    (connection as PgClient).release();
  }

  abandon(_runner: undefined, connection: unknown, error: Error): void {
    (connection as PgClient).release(error);
  }

  async send({ connection }: Held<undefined>, statement: Statement): Promise<Result> {
    this.onStatement?.(statement);
    const { sql, params } = statement;
    try {
      const query = { text: this.dialect.textOf(sql), values: this.dialect.valuesOf(params) };
      const { rows, rowCount } = await (connection as PgClient).query(query);
      return { rows, affected: rowCount ?? 0 };
    } catch (error) {
      throw withoutValues(error);
    }
  }

  begin(held: Held<undefined>): Promise<unknown> {
    return this.send(held, plain('BEGIN ISOLATION LEVEL READ COMMITTED'));
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
