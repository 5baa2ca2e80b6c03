import type { SqlDialect } from './sql.dialect.js';
import type { Result, Statement, Step } from './statement.js';
import type { VisitSql } from './visit.sql.js';

/** How statements reach a database: the part of a SQL library, or a driver, that `SqlVisitStore` uses. */
export interface SqlConnection {
  readonly dialect: SqlDialect;

  /**
   * Runs one statement as its own transaction. If the database rolled it back on a conflict (`dialect.isTransient`), it
   * is retried, as with `retryOnConflict`. An error is the driver's, or has it as `driverError`, so that the dialect
   * can interpret it.
   */
  run(statement: Statement): Promise<Result>;

  /**
   * Runs statements in one transaction, with READ COMMITTED if the database has isolation levels, and retries it as
   * `run` does. Returns null if a statement has not changed the required number of rows; then nothing is changed, as
   * after an error.
   */
  atomic(steps: readonly Step[]): Promise<Result[] | null>;

  /**
   * Sets how long callers wait for a statement, in milliseconds; a slow one may take ten times as long. The connection
   * of an overdue statement is closed. If not set: the store cannot close connections.
   */
  limit?(milliseconds: number): void;
}

/** The connection and the statements of a store over SQL. */
export interface SqlAccess {
  readonly connection: SqlConnection;
  readonly sql: VisitSql;
}
