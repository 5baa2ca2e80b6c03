import type { DataSource, QueryRunner } from 'typeorm';
import type { Held, Lender, Pool } from '../../sql/pool/connections.js';
import type { SqlDialect } from '../../sql/sql.dialect.js';
import type { Result, Statement } from '../../sql/statement.js';

/** TypeORM lends connections by query runners. */
abstract class TypeOrmLender implements Lender<QueryRunner> {
  /** How transactions see each other; undefined: as the data source says. */
  protected readonly isolation: 'READ COMMITTED' | undefined;

  constructor(
    protected readonly dataSource: DataSource,
    private readonly dialect: SqlDialect,
  ) {}

  abstract pools(): readonly Pool[];
  abstract abandon(queryRunner: QueryRunner, connection: unknown, error: Error): void;

  runner(): QueryRunner {
    return this.dataSource.createQueryRunner();
  }

  connect(queryRunner: QueryRunner): Promise<unknown> {
    return queryRunner.connect();
  }

  rawOf(queryRunner: QueryRunner, connection: unknown): object {
    return (queryRunner as unknown as { databaseConnection?: object }).databaseConnection ?? (connection as object);
  }

  release(queryRunner: QueryRunner): Promise<void> {
    return queryRunner.release();
  }

  async send({ runner }: Held<QueryRunner>, { sql, params }: Statement): Promise<Result> {
    const values = this.dialect.valuesOf(params) as unknown[];
    const result = await runner.query(this.dialect.textOf(sql), values, true);
    return { rows: (result.records as Result['rows'] | undefined) ?? [], affected: result.affected ?? 0 };
  }

  begin({ runner }: Held<QueryRunner>): Promise<void> {
    return runner.startTransaction(this.isolation);
  }

  commit({ runner }: Held<QueryRunner>): Promise<void> {
    return runner.commitTransaction();
  }

  rollback({ runner }: Held<QueryRunner>): Promise<void> {
    return runner.rollbackTransaction();
  }

  log({ runner }: Held<QueryRunner>, { sql, params }: Statement): void {
    this.dataSource.logger.logQuery(sql, [...params], runner);
  }

  logError({ runner }: Held<QueryRunner>, { sql, params }: Statement, error: Error): void {
    this.dataSource.logger.logQueryError(error, sql, [...params], runner);
  }
}

/** MySQL and MariaDB. */
export class TypeOrmMysqlLender extends TypeOrmLender {
  // The usual REPEATABLE READ locks the gaps between rows too, and inserts of others run into them.
  protected override readonly isolation = 'READ COMMITTED';

  // Those of a cluster of pools come and go.
  pools(): readonly Pool[] {
    const { pool } = this.dataSource.driver as unknown as { pool?: Pool };
    return pool ? [pool] : [];
  }

  abandon(queryRunner: QueryRunner): void {
    void queryRunner.release();
  }
}

/** PostgreSQL. */
export class TypeOrmPostgresLender extends TypeOrmLender {
  pools(): readonly Pool[] {
    const { master, slaves = [] } = this.dataSource.driver as unknown as { master?: Pool; slaves?: Pool[] };
    return master ? [master, ...slaves] : slaves;
  }

  abandon(queryRunner: QueryRunner, _connection: unknown, error: Error): void {
    void (
      queryRunner as unknown as { releasePostgresConnection(error: Error): Promise<void> }
    ).releasePostgresConnection(error);
  }
}
