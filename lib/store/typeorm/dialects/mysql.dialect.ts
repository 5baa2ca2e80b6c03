import { Dialect, driverError, type DriverError } from './dialect.js';

/**
 * ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (which Galera says too, when another node was faster), ER_CHECKREAD (MariaDB 11.6
 * and later, when a snapshot is no longer current), ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication of MySQL).
 */
const IN_THE_WAY = [1205, 1213, 1020, 3101];
/** ER_ERROR_DURING_COMMIT: of a node that has lost its cluster; the others may have the write. */
const MAYBE_DONE = 1180;
/** ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MISSING = [1054, 1146];

/** MySQL and MariaDB. */
export class MysqlDialect extends Dialect {
  // MySQL has no RETURNING, MariaDB has none for UPDATE.
  override readonly returning = false;
  // Left to itself, MySQL may prefer another index or the whole table, locks what it passes in that order, and runs into deadlocks.
  override readonly byPrimaryKey = ' FORCE INDEX (PRIMARY)';
  // The usual REPEATABLE READ locks the gaps between rows too, and inserts of others run into them.
  protected override readonly isolation = 'READ COMMITTED';

  // The first comparison can use the index. The second decides: most collations ignore case, and even the binary ones trailing spaces.
  sameText(column: string): string {
    return `${column} = ? AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS BINARY)`;
  }

  // Only the form for several tables takes an index hint.
  override deleteFrom(table: string): string {
    return `DELETE t FROM ${table} t${this.byPrimaryKey}`;
  }

  onDuplicate(): string {
    return 'ON DUPLICATE KEY UPDATE';
  }

  override isRefusal(error: unknown): boolean {
    return driverError(error).errno !== MAYBE_DONE && super.isRefusal(error);
  }

  protected isTransient({ errno = 0 }: DriverError): boolean {
    return IN_THE_WAY.includes(errno);
  }

  protected isMissing({ errno = 0 }: DriverError): boolean {
    return MISSING.includes(errno);
  }
}
