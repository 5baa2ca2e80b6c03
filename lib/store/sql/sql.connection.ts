import type { SqlDialect } from './sql.dialect.js';
import type { Result, Statement, Step } from './statement.js';
import type { VisitSql } from './visit.sql.js';

/** How statements get to a database: what a library of SQL, or a driver, does for `SqlVisitStore`. */
export interface SqlConnection {
  readonly dialect: SqlDialect;

  /**
   * Runs one statement, which is a transaction by itself. What the database undid because others were in the way
   * (`dialect.isTransient`) is tried again, as with `retryOnConflict`. An error is the driver's, or holds it as
   * `driverError`, so that the dialect understands it.
   */
  run(statement: Statement): Promise<Result>;

  /**
   * Runs statements in one transaction, of level READ COMMITTED where there are levels, and tries again as `run` does.
   * Null if one did not change what it must; then nothing is changed, as after an error.
   */
  atomic(steps: readonly Step[]): Promise<Result[] | null>;

  /**
   * Nobody waits longer than this for a statement, in milliseconds; one that is slow may take ten times as long. The
   * connection of one that is overdue is closed. Left out: the connections are not the store's to close.
   */
  limit?(milliseconds: number): void;
}

/** What a store over SQL works with. */
export interface SqlAccess {
  readonly connection: SqlConnection;
  readonly sql: VisitSql;
}
