import { toMysqlValue } from '../sql.values.js';
import { driverError, type DriverError } from './driver-error.js';
import { SqlDialect } from './sql.dialect.js';
import type { Statement } from './statement.js';

/**
 * ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (which Galera also uses if another node was faster), ER_CHECKREAD (MariaDB
 * 11.6 and later, if a snapshot is no longer current), ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication of
 * MySQL).
 */
const IN_THE_WAY = [1205, 1213, 1020, 3101];
/** ER_ERROR_DURING_COMMIT: from a node that has lost its cluster; the other nodes may have the write. */
const MAYBE_DONE = 1180;
/** ER_NET_PACKET_TOO_LARGE: the connection is closed, but nothing was executed. */
const TOO_LONG = 1153;
/** ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MISSING = [1054, 1146];
/** ER_DATA_OUT_OF_RANGE. */
const OUT_OF_RANGE = 1690;

/** MySQL and MariaDB. */
export class MysqlDialect extends SqlDialect {
  readonly family = 'mysql';
  protected override readonly quote = '`';
  readonly unixTime = 'UNIX_TIMESTAMP()';
  // MySQL compares numbers as text with a parameter that nothing shows to be a number.
  override readonly number = '? + 0';
  // MySQL has no RETURNING, MariaDB has none for UPDATE.
  override readonly returning = false;
  // Without it, MySQL may use another index or scan the whole table, lock rows in that order, and run into deadlocks.
  override readonly byPrimaryKey = ' FORCE INDEX (PRIMARY)';
  readonly #prepares: boolean;
  #safeUpdates = false;
  #longest = Infinity;

  /** @param how `prepares`: whether the connection prepares named statements; by default it does not */
  constructor(how: { readonly prepares?: boolean } = {}) {
    const { prepares = false } = how;
    super();
    this.#prepares = prepares;
  }

  // The first comparison can use the index. The second one decides: most collations ignore case, and even binary ones
  // ignore trailing spaces.
  sameText(column: string): string {
    return (
      `${column} = ? AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS ` +
      'BINARY)'
    );
  }

  onDuplicate(): string {
    return 'ON DUPLICATE KEY UPDATE';
  }

  // A double, which the driver reads directly. It reads a BIGINT with a library for large numbers, and converts it to
  // text.
  override readNumber(column: string): string {
    return `${column} + 0e0`;
  }

  // 1, 4, 16 … : each connection prepares only a few texts, because the server has room for a limited number.
  override padded<T>(rows: readonly T[], filler: (row: T) => T): readonly T[] {
    const [first] = rows;
    if (first === undefined || !this.#prepares) return rows;
    let size = 1;
    while (size < rows.length) size *= 4;
    return [...rows, ...Array.from({ length: size - rows.length }, () => filler(first))];
  }

  // One more than the largest number fails in every SQL mode, and undoes the statement: one round trip instead of the
  // four of a transaction.
  override allOrNone(condition: string, column: string): string {
    return `IF(${condition}, TRUE, ~0 + ${column} + 1)`;
  }

  // Here the hint alone is not enough: MariaDB still reads and locks all rows of a small table, or of one whose
  // statistics suggest it.
  override deleteAmong(table: string, key: string, ids: readonly string[]): Statement {
    // `sql_safe_updates` refuses joins, whatever their keys.
    if (this.#safeUpdates) {
      const { sql, params } = super.deleteAmong(table, key, ids);
      return { sql: `${sql}${this.unbounded}`, params };
    }
    const rows =
      ids.length === 0 ? 'SELECT NULL AS id' : `SELECT ? AS id${' UNION ALL SELECT ?'.repeat(ids.length - 1)}`;
    // In an encoding that is a subset of all others, so that the key is compared as it is stored.
    const isRow = `t.${key} = CONVERT(chosen.id USING ascii)`;
    return {
      sql: `DELETE t FROM (${rows}) chosen STRAIGHT_JOIN ${table} t${this.byPrimaryKey} ON ${isRow}`,
      params: ids,
    };
  }

  // `sql_safe_updates` requires a key or a limit.
  override get unbounded(): string {
    return this.#safeUpdates ? ' LIMIT 18446744073709551615' : '';
  }

  override get longestStatement(): number {
    return this.#longest;
  }

  override adapt(settings: ReadonlyMap<string, string>): void {
    this.#safeUpdates = settings.get('sql_safe_updates') === 'ON';
    this.#longest = Number(settings.get('max_allowed_packet') ?? Infinity);
  }

  indexesOf(path: readonly string[]): Statement {
    const [table, schema = null] = path.toReversed();
    return {
      sql:
        'SELECT COLUMN_NAME AS "first" FROM information_schema.STATISTICS ' +
        'WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND SEQ_IN_INDEX = 1',
      params: [schema, table],
    };
  }

  override valuesOf(params: readonly unknown[]): readonly unknown[] {
    return params.map(toMysqlValue);
  }

  override isUnmet(error: unknown): boolean {
    return driverError(error).errno === OUT_OF_RANGE;
  }

  isTransient(error: unknown): boolean {
    return IN_THE_WAY.includes(driverError(error).errno ?? 0);
  }

  isMissing(error: unknown): boolean {
    return MISSING.includes(driverError(error).errno ?? 0);
  }

  override isRefusal(error: unknown): boolean {
    const { errno = 0 } = driverError(error);
    return errno === TOO_LONG || (errno !== MAYBE_DONE && super.isRefusal(error));
  }

  // The name is missing for a user without privileges on the other table.
  protected override constraintIn({ message }: DriverError): string | undefined {
    return /CONSTRAINT `([^`]+)`/.exec(message)?.[1];
  }
}
