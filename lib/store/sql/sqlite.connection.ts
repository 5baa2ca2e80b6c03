import { retryOnConflict } from '../retry-on-conflict.js';
import type { SqlConnection } from './sql.connection.js';
import { SqliteDialect } from './sqlite.dialect.js';
import { isShort, statementOf, type Result, type Statement, type Step } from './statement.js';

/** The synchronous interface of better-sqlite3 and compatible drivers. */
export interface SqliteDatabase {
  /** Prepares a statement. */
  prepare(sql: string): {
    /** Whether it returns rows. */
    readonly reader: boolean;
    /** Runs it and returns its rows. */
    all(...params: unknown[]): Result['rows'];
    /** Runs it and returns how many rows it has changed. */
    run(...params: unknown[]): { readonly changes: number };
  };
  /** Runs statements without values. */
  exec(sql: string): unknown;
  readonly inTransaction: boolean;
}

/** The statements that begin and end a transaction; inside one of the application's, it is a savepoint. */
const TRANSACTION = { begin: 'BEGIN IMMEDIATE', commit: 'COMMIT', undo: ['ROLLBACK'] };
const SAVEPOINT = {
  begin: 'SAVEPOINT visit_store',
  commit: 'RELEASE visit_store',
  undo: ['ROLLBACK TO visit_store', 'RELEASE visit_store'],
};

/** The default of the drivers' option `timeout`, in milliseconds. */
export const USUAL_TIMEOUT = 5000;

/** SQLite, through a synchronous driver. */
export abstract class SqliteConnection implements SqlConnection {
  readonly dialect = new SqliteDialect();

  /** The application's connection. */
  protected abstract get database(): SqliteDatabase;

  /** How long the application's connection waits for other processes, in milliseconds. */
  protected abstract get timeout(): number;

  /** How long a write is retried while another process holds the write lock, in milliseconds. */
  protected get patience(): number {
    return this.timeout;
  }

  /** A write that conflicts with another process must fail before it begins, see `atomic`. */
  async run(statement: Statement): Promise<Result> {
    if (statement.sql.startsWith('SELECT')) return this.retryOnConflict(() => this.read(statement));
    const { sql, params } = statement;
    return (await this.atomic([{ sql, params }]))![0]!;
  }

  protected read(statement: Statement): Result | Promise<Result> {
    return this.execute(this.database, statement);
  }

  /**
   * There is one connection, which is shared with the transactions of the application. All statements run in one turn
   * of the event loop, so nothing else can come in between. If such a transaction is open at the moment, ours is a part
   * of it.
   *
   * The write lock is taken first, so that no later statement is refused because another process writes. A transaction
   * that has already read is never granted the lock later. In addition, libsql leaves a refused statement half done,
   * and the transaction cannot end before it has been garbage-collected. The store does not wait for the lock inside
   * SQLite, which would block the whole process, but outside, for as long.
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

  /** Fails immediately while another process writes. */
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

  /**
   * Reports a statement or its error to the log of the application.
   *
   * @param params undefined: only an error is reported
   */
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
