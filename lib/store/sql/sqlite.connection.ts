import { retryOnConflict } from '../retry-on-conflict.js';
import type { SqlConnection } from './sql.connection.js';
import { SqliteDialect } from './sqlite.dialect.js';
import { isShort, statementOf, type Result, type Statement, type Step } from './statement.js';

/** What better-sqlite3 and the drivers that follow it offer; all of it is synchronous. */
export interface SqliteDatabase {
  /** A statement that can be run with values. */
  prepare(sql: string): {
    /** Whether it gives rows. */
    readonly reader: boolean;
    /** Its rows. */
    all(...params: unknown[]): Result['rows'];
    /** How many rows it has changed. */
    run(...params: unknown[]): { readonly changes: number };
  };
  /** Runs statements without values. */
  exec(sql: string): unknown;
  readonly inTransaction: boolean;
}

/** How a transaction begins and ends; within one of the application's it is a savepoint. */
const TRANSACTION = { begin: 'BEGIN IMMEDIATE', commit: 'COMMIT', undo: ['ROLLBACK'] };
const SAVEPOINT = {
  begin: 'SAVEPOINT visit_store',
  commit: 'RELEASE visit_store',
  undo: ['ROLLBACK TO visit_store', 'RELEASE visit_store'],
};

/** What the drivers' option `timeout` is by default, in milliseconds. */
export const USUAL_TIMEOUT = 5000;

/** SQLite, through a driver that answers at once. */
export abstract class SqliteConnection implements SqlConnection {
  readonly dialect = new SqliteDialect();

  /** The application's connection. */
  protected abstract get database(): SqliteDatabase;

  /** How long the application's connection waits for others, in milliseconds. */
  protected abstract get timeout(): number;

  /** For how long at least it is tried again what others were in the way of, in milliseconds. */
  protected get patience(): number {
    return this.timeout;
  }

  /** A write that another process is in the way of must fail before it begins, see `atomic`. */
  async run(statement: Statement): Promise<Result> {
    if (statement.sql.startsWith('SELECT')) return this.retryOnConflict(() => this.read(statement));
    const { sql, params } = statement;
    return (await this.atomic([{ sql, params }]))![0]!;
  }

  protected read(statement: Statement): Result | Promise<Result> {
    return this.execute(this.database, statement);
  }

  /**
   * There is one connection, which the application's own transactions share. Running all statements in one turn of the
   * event loop keeps the two apart: nothing else can come in between. If such a transaction is open at the moment, ours
   * is a part of it.
   *
   * The right to write is taken first, so that nothing after it is refused because another process writes. Not only is
   * a transaction that has read already never let in later; libsql leaves a statement that was refused half done, and
   * no transaction ends before that is garbage-collected.
   *
   * That right is not waited for within SQLite, which would stand still the whole process, but for as long outside.
   */
  atomic(steps: readonly Step[]): Promise<Result[] | null> {
    return this.retryOnConflict(() => {
      const { database } = this;
      const { begin, commit, undo } = database.inTransaction ? SAVEPOINT : TRANSACTION;
      this.logged(begin, () => (begin === TRANSACTION.begin ? this.begin(database) : database.exec(begin)));
      try {
        const results: Result[] = [];
        for (const step of steps) {
          const statement = statementOf(step, results);
          const result = this.execute(database, statement);
          if (isShort(statement, result)) {
            execAll(database, undo);
            return null;
          }
          results.push(result);
        }
        this.logged(commit, () => database.exec(commit));
        return results;
      } catch (error) {
        execAll(database, undo);
        throw error;
      }
    });
  }

  /** Fails at once while another process writes. */
  private begin(database: SqliteDatabase): void {
    database.exec('PRAGMA busy_timeout = 0');
    try {
      database.exec(TRANSACTION.begin);
    } finally {
      database.exec(`PRAGMA busy_timeout = ${this.timeout}`);
    }
  }

  private execute(database: SqliteDatabase, { sql, params }: Statement): Result {
    return this.logged(
      sql,
      () => {
        const prepared = database.prepare(sql);
        if (prepared.reader) return { rows: prepared.all(...params), affected: 0 };
        return { rows: [], affected: prepared.run(...params).changes };
      },
      params,
    );
  }

  /** Tells the application's log of a statement, or of its error. @param params undefined: only an error is told */
  protected logged<T>(_sql: string, work: () => T, _params?: readonly unknown[]): T {
    return work();
  }

  private retryOnConflict<T>(work: () => T | Promise<T>): Promise<T> {
    return retryOnConflict(work, (error) => this.dialect.isTransient(error), this.patience);
  }
}

function execAll(database: SqliteDatabase, sqls: readonly string[]): void {
  try {
    for (const sql of sqls) database.exec(sql);
  } catch {
    // On some errors, such as a full disk, SQLite has undone everything itself.
  }
}
