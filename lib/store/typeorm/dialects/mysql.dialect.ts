import type { QueryRunner } from 'typeorm';
import { Dialect, driverError, type DriverError, type Result, type Statement } from './dialect.js';

/**
 * ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (which Galera says too, when another node was faster), ER_CHECKREAD (MariaDB 11.6
 * and later, when a snapshot is no longer current), ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication of MySQL).
 */
const IN_THE_WAY = [1205, 1213, 1020, 3101];
/** ER_ERROR_DURING_COMMIT: of a node that has lost its cluster; the others may have the write. */
const MAYBE_DONE = 1180;
/** ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MISSING = [1054, 1146];

/**
 * ER_UNKNOWN_STMT_HANDLER, ER_UNSUPPORTED_PS, ER_MAX_PREPARED_STMT_COUNT_REACHED, ER_NEED_REPREPARE: a proxy between us and
 * the server does not know prepared statements, the server has no room for more of them, or the table has been altered.
 */
const UNPREPARED = [1243, 1295, 1461, 1615];

/** The part of a connection of `mysql2` that is used here. */
interface Connection {
  execute?(sql: string, params: readonly unknown[], done: (error: DriverError | null, rows: Result['rows']) => void): unknown;
}

/** MySQL and MariaDB. */
export class MysqlDialect extends Dialect {
  // MySQL has no RETURNING, MariaDB has none for UPDATE.
  override readonly returning = false;
  // Left to itself, MySQL may prefer another index or the whole table, locks what it passes in that order, and runs into deadlocks.
  override readonly byPrimaryKey = ' FORCE INDEX (PRIMARY)';
  // The usual REPEATABLE READ locks the gaps between rows too, and inserts of others run into them.
  protected override readonly isolation = 'READ COMMITTED';

  private canPrepare = true;

  // The first comparison can use the index. The second decides: most collations ignore case, and even the binary ones trailing spaces.
  sameText(column: string): string {
    return `${column} = ? AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS BINARY)`;
  }

  // Values are repeated up to the next power of two: so there are few texts, and each is prepared once per connection.
  override isOneOf(column: string, values: readonly string[]): Statement {
    if (!this.canPrepare || values.length === 0) return super.isOneOf(column, values);
    const padded = [...values];
    for (const count = 2 ** Math.ceil(Math.log2(values.length)); padded.length < count; ) padded.push(values[0]!);
    return super.isOneOf(column, padded);
  }

  protected override async send(queryRunner: QueryRunner, statement: Statement): Promise<Result> {
    if (statement.name !== undefined && this.canPrepare) {
      const connection = (await queryRunner.connect()) as Connection;
      if (connection.execute) return this.sendPrepared(connection as Required<Connection>, queryRunner, statement);
      // The driver `mysql`.
      this.canPrepare = false;
    }
    return super.send(queryRunner, statement);
  }

  /** TypeORM does not prepare statements, its driver does: it then sends no text, and rows come as they are stored. */
  private async sendPrepared(connection: Required<Connection>, queryRunner: QueryRunner, statement: Statement): Promise<Result> {
    const { logger } = this.dataSource;
    const { sql, params } = statement;
    logger.logQuery(sql, [...params], queryRunner);
    try {
      return await new Promise((resolve, reject) => {
        connection.execute(sql, params, (error, rows) => (error ? reject(error) : resolve({ rows, affected: 0 })));
      });
    } catch (error) {
      logger.logQueryError(error as Error, sql, [...params], queryRunner);
      if (!UNPREPARED.includes((error as DriverError).errno ?? 0)) throw error;
      this.canPrepare = false;
      return super.send(queryRunner, statement);
    }
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
