import { retryOnConflict } from '../../retry-on-conflict.js';
import { Dialect, driverError, isShort, statementOf, type DriverError, type Result, type Statement, type Step } from './dialect.js';

/** What better-sqlite3 and the drivers that follow it offer; all of it is synchronous. */
interface SqliteConnection {
  prepare(sql: string): { reader: boolean; all(...params: unknown[]): Result['rows']; run(...params: unknown[]): { changes: number } };
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

/** What the driver's option `timeout` is by default, in milliseconds. */
const USUAL_TIMEOUT = 5000;

/** SQLite, through TypeORM's type `better-sqlite3`. */
export class SqliteDialect extends Dialect {
  readonly unixTime = "CAST(strftime('%s', 'now') AS INTEGER)";
  override readonly greatest = 'MAX';
  override readonly lock = '';

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE BINARY`;
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  /** A write that another process is in the way of must fail before it begins, see `atomic`. */
  async run({ sql, params }: Statement): Promise<Result> {
    if (sql.startsWith('SELECT')) return this.retryOnConflict(() => this.read(sql, params));
    return (await this.atomic([{ sql, params }]))![0]!;
  }

  private async read(sql: string, params: readonly unknown[]): Promise<Result> {
    const queryRunner = this.dataSource.createQueryRunner();
    try {
      const { records } = await queryRunner.query(sql, params as unknown[], true);
      return { rows: records ?? [], affected: 0 };
    } finally {
      await queryRunner.release();
    }
  }

  /**
   * A data source has one SQLite connection, which the application's own transactions share. Running all statements in
   * one turn of the event loop keeps the two apart: nothing else can come in between. If such a transaction is open at the
   * moment, ours is a part of it.
   *
   * The right to write is taken first, so that nothing after it is refused because another process writes. Not only is a
   * transaction that has read already never let in later; libsql leaves a statement that was refused half done, and no
   * transaction ends before that is garbage-collected.
   *
   * That right is not waited for within SQLite, which would stand still the whole process, but for as long outside.
   */
  atomic(steps: readonly Step[]): Promise<Result[] | null> {
    return this.retryOnConflict(() => {
      const { databaseConnection } = this.dataSource.driver as unknown as { databaseConnection: SqliteConnection };
      const { begin, commit, undo } = databaseConnection.inTransaction ? SAVEPOINT : TRANSACTION;
      this.logged(begin, () => (begin === TRANSACTION.begin ? this.begin(databaseConnection) : databaseConnection.exec(begin)));
      try {
        const results: Result[] = [];
        for (const step of steps) {
          const statement = statementOf(step, results);
          const result = this.execute(databaseConnection, statement);
          if (isShort(statement, result)) {
            execAll(databaseConnection, undo);
            return null;
          }
          results.push(result);
        }
        this.logged(commit, () => databaseConnection.exec(commit));
        return results;
      } catch (error) {
        execAll(databaseConnection, undo);
        throw error;
      }
    });
  }

  /** Fails at once while another process writes. */
  private begin(connection: SqliteConnection): void {
    connection.exec('PRAGMA busy_timeout = 0');
    try {
      connection.exec(TRANSACTION.begin);
    } finally {
      connection.exec(`PRAGMA busy_timeout = ${this.timeout}`);
    }
  }

  /** How long the application's connection waits for others, in milliseconds. */
  private get timeout(): number {
    const options = this.dataSource.options as { readonly timeout?: number } | undefined;
    return options?.timeout ?? USUAL_TIMEOUT;
  }

  protected override retryOnConflict<T>(work: () => T | Promise<T>): Promise<T> {
    return retryOnConflict(work, (error) => this.isTransient(driverError(error)), this.timeout);
  }

  // Which constraint it is, SQLite does not say.
  override referenceIn(error: unknown): { readonly constraint: undefined } | undefined {
    return driverError(error).code?.startsWith('SQLITE_CONSTRAINT') ? { constraint: undefined } : undefined;
  }

  protected isTransient({ code = '' }: DriverError): boolean {
    return code.startsWith('SQLITE_BUSY');
  }

  protected isMissing({ message }: DriverError): boolean {
    return /no such (table|column)/.test(message);
  }

  private execute(connection: SqliteConnection, { sql, params }: Statement): Result {
    this.dataSource.logger.logQuery(sql, [...params]);
    return this.logged(sql, () => {
      const prepared = connection.prepare(sql);
      if (prepared.reader) return { rows: prepared.all(...params), affected: 0 };
      return { rows: [], affected: prepared.run(...params).changes };
    });
  }

  /** As TypeORM does with the statements that go through it. */
  private logged<T>(sql: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.dataSource.logger.logQueryError(error as Error, sql);
      throw error;
    }
  }
}

function execAll(connection: SqliteConnection, sqls: readonly string[]): void {
  try {
    for (const sql of sqls) connection.exec(sql);
  } catch {
    // On some errors, such as a full disk, SQLite has undone everything itself.
  }
}
