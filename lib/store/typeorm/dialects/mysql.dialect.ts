import type { DataSource, QueryRunner } from 'typeorm';
import { toMysqlValue } from '../../sql.values.js';
import type { ConnectionDriver, Fate, Pool } from './connections.js';
import { driverError, sqlStateOf, type DriverError, type PreparedStatement, type Result, type Statement } from './dialect.js';
import { PooledDialect } from './pooled.dialect.js';

/**
 * ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (which Galera says too, when another node was faster), ER_CHECKREAD (MariaDB 11.6
 * and later, when a snapshot is no longer current), ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication of MySQL).
 */
const IN_THE_WAY = [1205, 1213, 1020, 3101];
/** ER_ERROR_DURING_COMMIT: of a node that has lost its cluster; the others may have the write. */
const MAYBE_DONE = 1180;
/** ER_NET_PACKET_TOO_LARGE: the connection is over, but nothing was done. */
const TOO_LONG = 1153;
/** ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MISSING = [1054, 1146];

/**
 * ER_UNKNOWN_STMT_HANDLER, ER_UNSUPPORTED_PS, ER_MAX_PREPARED_STMT_COUNT_REACHED, ER_NEED_REPREPARE: a proxy between us and
 * the server does not know prepared statements, the server has no room for more of them, or the table has been altered.
 */
const UNPREPARED = [1243, 1295, 1461, 1615];

/**
 * ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE: the server has become one that can only be
 * read. ER_UNKNOWN_COM_ERROR, by which a node of Galera says that it has left its cluster.
 */
const USELESS = [1290, 1792, 1836, 1047];

/** ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_SHUTDOWN_COMPLETE, ER_CONNECTION_KILLED. */
const GOING = [1053, 1077, 1079, 1927];

/** ER_DATA_OUT_OF_RANGE. */
const OUT_OF_RANGE = 1690;

/** The part of a connection of `mysql2` that is used here. */
interface Connection {
  destroy(): void;
  readonly stream?: { destroy?(): void };
  execute?(
    sql: string,
    params: readonly unknown[],
    done: (error: DriverError | null, answer: Result['rows'] | { affectedRows: number }) => void,
  ): unknown;
}

interface MysqlPool extends Pool {
  readonly config?: { readonly connectionConfig?: { connectTimeout?: number } };
}

class MysqlConnections implements ConnectionDriver<MysqlPool> {
  readonly opened = 'connection';

  constructor(private readonly dataSource: DataSource) {}

  // Those of a cluster of pools come and go.
  pools(): readonly MysqlPool[] {
    const { pool } = this.dataSource.driver as unknown as { pool?: MysqlPool };
    return pool ? [pool] : [];
  }

  limitConnects({ config }: MysqlPool, milliseconds: number): void {
    const options = config?.connectionConfig;
    if (options) options.connectTimeout = Math.min(options.connectTimeout || Infinity, milliseconds);
  }

  discard(queryRunner: QueryRunner, connection: unknown): void {
    const { stream } = connection as Connection;
    (connection as Connection).destroy();
    // Without it, the socket waits for a farewell of the other side.
    stream?.destroy?.();
    void queryRunner.release();
  }

  fateOf(error: unknown): Fate {
    const { errno = 0, message } = driverError(error);
    if (USELESS.includes(errno)) return 'useless';
    if (message.includes('in closed state')) return 'unsent';
    return GOING.includes(errno) || sqlStateOf(error).startsWith('08') ? 'lost' : 'fine';
  }
}

/** MySQL and MariaDB. */
export class MysqlDialect extends PooledDialect {
  readonly unixTime = 'UNIX_TIMESTAMP()';
  // MySQL has no RETURNING, MariaDB has none for UPDATE.
  override readonly returning = false;
  // Left to itself, MySQL may prefer another index or the whole table, locks what it passes in that order, and runs into deadlocks.
  override readonly byPrimaryKey = ' FORCE INDEX (PRIMARY)';
  // The usual REPEATABLE READ locks the gaps between rows too, and inserts of others run into them.
  protected override readonly isolation = 'READ COMMITTED';
  private safeUpdates = false;
  private longest = Infinity;

  // The first comparison can use the index. The second decides: most collations ignore case, and even the binary ones trailing spaces.
  sameText(column: string): string {
    return `${column} = ? AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS BINARY)`;
  }

  // A double, which the driver reads at once. A BIGINT it reads with a library for large numbers, to make text of it.
  override readNumber(column: string): string {
    return `${column} + 0e0`;
  }

  // 1, 4, 16 … : each connection prepares a handful of texts, as the server has room for a limited number.
  override padded<T>(rows: readonly T[], filler: (row: T) => T): readonly T[] {
    const [first] = rows;
    if (first === undefined) return rows;
    let size = 1;
    while (size < rows.length) size *= 4;
    return [...rows, ...Array.from({ length: size - rows.length }, () => filler(first))];
  }

  // One more than the largest number there is fails, whatever the SQL mode, and undoes the statement: one trip instead of a transaction's four.
  override allOrNone(condition: string, column: string): string {
    return `IF(${condition}, TRUE, ~0 + ${column} + 1)`;
  }

  override isUnmet(error: unknown): boolean {
    return driverError(error).errno === OUT_OF_RANGE;
  }

  protected driver(dataSource: DataSource): ConnectionDriver {
    return new MysqlConnections(dataSource);
  }

  protected prepared(connection: unknown, { sql, params }: PreparedStatement, generation: number): Promise<Result> | undefined {
    const client = connection as Connection;
    // The driver `mysql` has none.
    if (!client.execute) return undefined;
    // The driver keeps what it has prepared by its text.
    const text = generation === 0 ? sql : `${sql} /* ${generation} */`;
    return new Promise((resolve, reject) => {
      client.execute!(text, params, (error, answer) => {
        if (error) reject(error);
        else if (Array.isArray(answer)) resolve({ rows: answer, affected: 0 });
        else resolve({ rows: [], affected: answer.affectedRows });
      });
    });
  }

  protected isUnprepared({ errno = 0 }: DriverError): boolean {
    return UNPREPARED.includes(errno);
  }

  override adapt(settings: ReadonlyMap<string, string>): void {
    this.safeUpdates = settings.get('sql_safe_updates') === 'ON';
    this.longest = Number(settings.get('max_allowed_packet') ?? Infinity);
  }

  override get longestStatement(): number {
    return this.longest;
  }

  // `sql_safe_updates` asks for a key or a limit.
  override get unbounded(): string {
    return this.safeUpdates ? ' LIMIT 18446744073709551615' : '';
  }

  protected override valuesOf(params: readonly unknown[]): unknown[] {
    return params.map(toMysqlValue);
  }

  // Here the hint alone does not help: of a small table, or one whose statistics say so, MariaDB reads and locks all rows nevertheless.
  override deleteAmong(table: string, key: string, ids: readonly string[]): Statement {
    // Its joins find no favor with `sql_safe_updates`, whatever their keys.
    if (this.safeUpdates) {
      const { sql, params } = super.deleteAmong(table, key, ids);
      return { sql: `${sql}${this.unbounded}`, params };
    }
    const rows = ids.length === 0 ? 'SELECT NULL AS id' : `SELECT ? AS id${' UNION ALL SELECT ?'.repeat(ids.length - 1)}`;
    // In an encoding that fits into any other, so that the key is compared as it is stored.
    const isRow = `t.${key} = CONVERT(chosen.id USING ascii)`;
    return { sql: `DELETE t FROM (${rows}) chosen STRAIGHT_JOIN ${table} t${this.byPrimaryKey} ON ${isRow}`, params: ids };
  }

  onDuplicate(): string {
    return 'ON DUPLICATE KEY UPDATE';
  }

  override isRefusal(error: unknown): boolean {
    const { errno } = driverError(error);
    return errno === TOO_LONG || (errno !== MAYBE_DONE && super.isRefusal(error));
  }

  // The name is left out for a user without rights on the other table.
  protected override constraintIn({ message }: DriverError): string | undefined {
    return /CONSTRAINT `([^`]+)`/.exec(message)?.[1];
  }

  protected isTransient({ errno = 0 }: DriverError): boolean {
    return IN_THE_WAY.includes(errno);
  }

  protected isMissing({ errno = 0 }: DriverError): boolean {
    return MISSING.includes(errno);
  }
}
