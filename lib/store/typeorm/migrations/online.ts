import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource, TableColumn, type QueryRunner, type TableColumnOptions } from 'typeorm';
import { VisitOptionError } from '../../../errors/visit.error.js';
import { driverError } from '../../sql/driver-error.js';
import { familyOf } from '../connections/family.js';
import { alone, migrateAlone, migrateByTurns } from '../schema-turn.js';

// How migrations change tables that are in use, however many rows they have.

/** How long one attempt waits for other transactions on the table, in seconds. New statements queue behind it. */
const LOCK_TIMEOUT = 1;
/**
 * How long the creation of an index on PostgreSQL waits for older transactions, in seconds. No statement queues behind
 * it, but one of these transactions may belong to another process that waits for this one, which would never end
 * without a limit.
 */
const SNAPSHOT_TIMEOUT = 60;
/** The pause between attempts, in milliseconds. */
const PAUSE = 2000;
/** About ten minutes. */
const MOST_ATTEMPTS = 200;

/** ER_LOCK_WAIT_TIMEOUT; lock_not_available, deadlock_detected (of two that make indexes at once). */
const LOCKED: readonly unknown[] = [1205, '55P03', '40P01'];
/**
 * ER_ALTER_OPERATION_NOT_SUPPORTED, ER_ALTER_OPERATION_NOT_SUPPORTED_REASON: for this row format, or of this version.
 */
const NOT_INSTANT: readonly unknown[] = [1845, 1846];

/**
 * Adds a nullable column. No row is written, and old versions of the library, which do not know the column, write NULL.
 * An existing column is not changed.
 *
 * @param table as in the data source, such as `app.visit`
 */
export async function addColumn(
  queryRunner: QueryRunner,
  table: string,
  options: TableColumnOptions & { isNullable: true },
): Promise<void> {
  const online = new OnlineChange(queryRunner, table);
  const column = new TableColumn(options);
  const { charset, collation } = column;
  const type = `${online.dataSource.driver.createFullType(column)}${charset ? ` CHARACTER SET ${charset}` : ''}`;
  const definition = `${online.escape(column.name)} ${type}${collation ? ` COLLATE ${collation}` : ''} NULL`;
  await online.alone(async () => {
    if (!(await queryRunner.hasColumn(table, column.name)))
      await online.alter('ADD COLUMN', 'IF NOT EXISTS', definition);
  });
}

/** Drops a column if it exists. Use it one release after the last version that uses the column. */
export async function dropColumn(queryRunner: QueryRunner, table: string, name: string): Promise<void> {
  const online = new OnlineChange(queryRunner, table);
  await online.alone(async () => {
    if (await queryRunner.hasColumn(table, name)) await online.alter('DROP COLUMN', 'IF EXISTS', online.escape(name));
  });
}

/** Creates an index with TypeORM's name for it. An existing index is not changed. */
export async function addIndex(queryRunner: QueryRunner, table: string, columns: readonly string[]): Promise<void> {
  const online = new OnlineChange(queryRunner, table);
  await online.alone(() => online.addIndex(columns));
}

/** Drops an index that `addIndex` has created, if it exists. */
export async function dropIndex(queryRunner: QueryRunner, table: string, columns: readonly string[]): Promise<void> {
  const online = new OnlineChange(queryRunner, table);
  await online.alone(() => online.dropIndex(columns));
}

/**
 * Changes a table while it is in use.
 *
 * - MySQL, MariaDB: `ALGORITHM=INSTANT`, which changes only the definition of a table and none of its rows; otherwise
 *   `INPLACE, LOCK=NONE`.
 * - PostgreSQL: columns without a default, and indexes `CONCURRENTLY`, which is not possible in a transaction, so on a
 *   separate connection. In the transaction of the migration, a lock would last until all migrations of this run are
 *   done. If that transaction already holds a lock on the table, for example because it has just created it, this has
 *   no advantage any more.
 * - SQLite has no such feature: the file is locked while an index is created.
 *
 * All of them wait until the table is unused for a moment. A long transaction is waited for in short attempts.
 */
class OnlineChange {
  readonly dataSource: DataSource;
  private readonly family;

  constructor(
    private readonly queryRunner: QueryRunner,
    private readonly table: string,
  ) {
    // `connection` is what TypeORM 0.3 calls it.
    this.dataSource = queryRunner.dataSource ?? queryRunner.connection;
    const family = familyOf(this.dataSource);
    if (!family)
      throw new VisitOptionError(
        `migrations of visits do not know data sources of type "${this.dataSource.options.type}"`,
      );
    this.family = family;
  }

  escape(path: string): string {
    return path
      .split('.')
      .map((name) => this.dataSource.driver.escape(name))
      .join('.');
  }

  /** Other processes that migrate at the same time wait, and find that it has been done. */
  alone(work: () => Promise<void>): Promise<void> {
    return this.family === 'postgres'
      ? migrateByTurns(this.queryRunner, work)
      : migrateAlone(this.queryRunner, this.family, work);
  }

  async alter(what: string, unlessDone: string, column: string): Promise<void> {
    const table = this.escape(this.table);
    const sql = `ALTER TABLE ${table} ${what} ${column}`;
    if (this.family === 'mysql') {
      await this.inMysql(async () => {
        try {
          await this.queryRunner.query(`${sql}, ALGORITHM=INSTANT`);
        } catch (error) {
          if (!NOT_INSTANT.includes(driverError(error).errno)) throw error;
          await this.queryRunner.query(`${sql}, ALGORITHM=INPLACE, LOCK=NONE`);
        }
      });
    } else if (this.family === 'postgres') {
      const checked = `ALTER TABLE ${table} ${what} ${unlessDone} ${column}`;
      await this.inPostgres((connection, isOutside) =>
        isOutside ? alterBriefly(connection, checked) : connection.query(checked),
      );
    } else {
      await this.queryRunner.query(sql);
    }
  }

  async addIndex(columns: readonly string[]): Promise<void> {
    const name = this.indexName(columns);
    const list = columns.map((column) => this.escape(column)).join(', ');
    const table = this.escape(this.table);
    if (this.family === 'mysql') {
      if (await this.hasIndexInMysql(name)) return;
      const sql = `ALTER TABLE ${table} ADD INDEX ${this.escape(name)} (${list}), ALGORITHM=INPLACE, LOCK=NONE`;
      await this.inMysql(() => this.queryRunner.query(sql));
    } else if (this.family === 'postgres') {
      await this.inPostgres(async (connection, isOutside) => {
        if (isOutside) {
          await this.requireNoSnapshot();
          const state = await stateOf(connection, this.escape(this.pathOf(name)));
          if (state === 'made') return;
          if (state === 'given up')
            await concurrently(connection, `DROP INDEX CONCURRENTLY ${this.escape(this.pathOf(name))}`);
        }
        const sql = `IF NOT EXISTS ${this.escape(name)} ON ${table} (${list})`;
        if (!isOutside) await connection.query(`CREATE INDEX ${sql}`);
        else await concurrently(connection, `CREATE INDEX CONCURRENTLY ${sql}`);
      });
    } else {
      await this.queryRunner.query(`CREATE INDEX IF NOT EXISTS ${this.escape(name)} ON ${table} (${list})`);
    }
  }

  async dropIndex(columns: readonly string[]): Promise<void> {
    const name = this.indexName(columns);
    if (this.family === 'mysql') {
      if (!(await this.hasIndexInMysql(name))) return;
      const drop = `DROP INDEX ${this.escape(name)}`;
      const sql = `ALTER TABLE ${this.escape(this.table)} ${drop}, ALGORITHM=INPLACE, LOCK=NONE`;
      await this.inMysql(() => this.queryRunner.query(sql));
    } else if (this.family === 'postgres') {
      const index = `IF EXISTS ${this.escape(this.pathOf(name))}`;
      await this.inPostgres((connection, isOutside) =>
        isOutside
          ? concurrently(connection, `DROP INDEX CONCURRENTLY ${index}`)
          : connection.query(`DROP INDEX ${index}`),
      );
    } else {
      await this.queryRunner.query(`DROP INDEX IF EXISTS ${this.escape(name)}`);
    }
  }

  /** Otherwise it would wait for a snapshot of this transaction, and this transaction for it. */
  private async requireNoSnapshot(): Promise<void> {
    if (!this.queryRunner.isTransactionActive) return;
    const [row] = (await this.queryRunner.query('SHOW transaction_isolation')) as { transaction_isolation: string }[];
    const level = row?.transaction_isolation ?? '';
    if (level.startsWith('read ')) return;
    throw new VisitOptionError(
      'an index cannot be created concurrently inside a transaction (migrations run with transaction ' +
        `"${level}"): run them with transaction "none"`,
    );
  }

  private indexName(columns: readonly string[]): string {
    return this.dataSource.namingStrategy.indexName(this.table, [...columns]);
  }

  /** An index is in the schema of its table. */
  private pathOf(index: string): string {
    return [...this.table.split('.').slice(0, -1), index].join('.');
  }

  private async hasIndexInMysql(name: string): Promise<boolean> {
    const rows = (await this.queryRunner.query(`SHOW INDEX FROM ${this.escape(this.table)} WHERE Key_name = ?`, [
      name,
    ])) as unknown[];
    return rows.length > 0;
  }

  private async inMysql(work: () => Promise<unknown>): Promise<void> {
    await this.queryRunner.query(`SET SESSION lock_wait_timeout = ${LOCK_TIMEOUT}`);
    try {
      await inAttempts(work);
    } finally {
      await this.queryRunner.query('SET SESSION lock_wait_timeout = DEFAULT');
    }
  }

  private async inPostgres(work: (connection: QueryRunner, isOutside: boolean) => Promise<unknown>): Promise<void> {
    const sql = 'SELECT 1 FROM pg_locks WHERE pid = pg_backend_pid() AND relation = to_regclass($1) LIMIT 1';
    const held = (await this.queryRunner.query(sql, [this.escape(this.table)])) as unknown[];
    if (held.length > 0) {
      await work(this.queryRunner, false);
      return;
    }
    const outside = await new DataSource(alone(this.dataSource.options)).initialize();
    try {
      const connection = outside.createQueryRunner();
      await inAttempts(() => work(connection, true));
    } finally {
      await outside.destroy();
    }
  }
}

/** Waits for the table only as long as one attempt may, through poolers, too. */
async function alterBriefly(connection: QueryRunner, sql: string): Promise<void> {
  await connection.startTransaction();
  try {
    await connection.query(`SET LOCAL lock_timeout = '${LOCK_TIMEOUT}s'`);
    await connection.query(sql);
    await connection.commitTransaction();
  } catch (error) {
    await connection.rollbackTransaction();
    throw error;
  }
}

/** Runs outside of a transaction. The timeout is reset, because a pooler may lend the connection to others. */
async function concurrently(connection: QueryRunner, sql: string): Promise<void> {
  await connection.query(`SET lock_timeout = '${SNAPSHOT_TIMEOUT}s'`);
  try {
    await connection.query(sql);
  } finally {
    await connection.query('RESET lock_timeout');
  }
}

/** The state of an index. If another process is creating it, this process polls until it is done. */
async function stateOf(connection: QueryRunner, name: string): Promise<'missing' | 'made' | 'given up'> {
  const sql =
    'SELECT indisvalid AS valid, EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.index_relid = ' +
    'indexrelid) AS making' +
    ' FROM pg_index WHERE indexrelid = to_regclass($1)';
  for (;;) {
    const [row] = (await connection.query(sql, [name])) as { valid: boolean; making: boolean }[];
    if (!row) return 'missing';
    if (row.valid) return 'made';
    if (!row.making) return 'given up';
    await sleep(PAUSE);
  }
}

async function inAttempts(work: () => Promise<unknown>): Promise<void> {
  for (let attempts = 1; ; attempts++) {
    try {
      await work();
      return;
    } catch (error) {
      const { errno, code } = driverError(error);
      if (attempts === MOST_ATTEMPTS || !LOCKED.includes(errno ?? code)) throw error;
      await sleep(PAUSE);
    }
  }
}
