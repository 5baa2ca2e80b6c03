import { Dialect, isShort, statementOf, type DriverError, type Result, type Statement, type Step } from './dialect.js';

/** What better-sqlite3 and the drivers that follow it offer; all of it is synchronous. */
interface SqliteConnection {
  prepare(sql: string): { reader: boolean; all(...params: unknown[]): Result['rows']; run(...params: unknown[]): { changes: number } };
  exec(sql: string): unknown;
}

/** SQLite, through TypeORM's type `better-sqlite3`. */
export class SqliteDialect extends Dialect {
  override readonly greatest = 'MAX';
  override readonly lock = '';

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE BINARY`;
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  /**
   * A data source has one SQLite connection, which the application's own transactions share. Running all statements in
   * one turn of the event loop keeps the two apart: nothing else can come in between. A savepoint, because such a
   * transaction may be open at the moment.
   */
  override atomic(steps: readonly Step[]): Promise<Result[] | null> {
    return this.patiently(() => {
      const { databaseConnection } = this.dataSource.driver as unknown as { databaseConnection: SqliteConnection };
      databaseConnection.exec('SAVEPOINT visit_store');
      try {
        const results: Result[] = [];
        for (const step of steps) {
          const statement = statementOf(step, results);
          const result = execute(databaseConnection, statement);
          if (isShort(statement, result)) {
            undo(databaseConnection);
            return null;
          }
          results.push(result);
        }
        databaseConnection.exec('RELEASE visit_store');
        return results;
      } catch (error) {
        undo(databaseConnection);
        throw error;
      }
    });
  }

  protected isTransient({ code = '' }: DriverError): boolean {
    return code.startsWith('SQLITE_BUSY');
  }

  protected isMissing({ message }: DriverError): boolean {
    return /no such (table|column)/.test(message);
  }
}

function execute(connection: SqliteConnection, { sql, params }: Statement): Result {
  const prepared = connection.prepare(sql);
  if (prepared.reader) return { rows: prepared.all(...params), affected: 0 };
  return { rows: [], affected: prepared.run(...params).changes };
}

function undo(connection: SqliteConnection): void {
  try {
    connection.exec('ROLLBACK TO visit_store');
    connection.exec('RELEASE visit_store');
  } catch {
    // On some errors, such as a full disk, SQLite has undone everything itself, and the savepoint with it.
  }
}
