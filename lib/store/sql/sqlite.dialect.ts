import type { Reference } from '../table-visit.store.js';
import { driverError } from './driver-error.js';
import { SqlDialect } from './sql.dialect.js';
import type { Statement } from './statement.js';

/** SQLite. */
export class SqliteDialect extends SqlDialect {
  readonly family = 'sqlite';
  readonly unixTime = "CAST(strftime('%s', 'now') AS INTEGER)";
  override readonly greatest = 'MAX';
  // With one writer at a time, no row locks are needed.
  override readonly lock = '';

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE BINARY`;
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  indexesOf(path: readonly string[]): Statement {
    const [table, schema = null] = path.toReversed();
    return {
      sql:
        'SELECT i.name AS "first" FROM pragma_index_list(?, ?) l ' +
        'JOIN pragma_index_info(l.name, ?) i WHERE i.seqno = 0',
      params: [table, schema, schema],
    };
  }

  isTransient(error: unknown): boolean {
    return driverError(error).code?.startsWith('SQLITE_BUSY') === true;
  }

  isMissing(error: unknown): boolean {
    return /no such (table|column)/.test(driverError(error).message);
  }

  // SQLite does not report which constraint it is.
  override referenceIn(error: unknown): Reference | undefined {
    return driverError(error).code?.startsWith('SQLITE_CONSTRAINT') === true ? { constraint: undefined } : undefined;
  }
}
