import type { DataSource } from 'typeorm';
import { SqliteConnection, USUAL_TIMEOUT, type SqliteDatabase } from '../../sql/sqlite.connection.js';
import type { Result, Statement } from '../../sql/statement.js';

/** SQLite, through TypeORM's type `better-sqlite3`. */
export class TypeOrmSqliteConnection extends SqliteConnection {
  constructor(private readonly dataSource: DataSource) {
    super();
  }

  protected get database(): SqliteDatabase {
    return (this.dataSource.driver as unknown as { databaseConnection: SqliteDatabase }).databaseConnection;
  }

  protected get timeout(): number {
    const options = this.dataSource.options as { readonly timeout?: number } | undefined;
    return options?.timeout ?? USUAL_TIMEOUT;
  }

  protected override async read({ sql, params }: Statement): Promise<Result> {
    const queryRunner = this.dataSource.createQueryRunner();
    try {
      const { records } = await queryRunner.query(sql, params as unknown[], true);
      return { rows: (records as Result['rows'] | undefined) ?? [], affected: 0 };
    } finally {
      await queryRunner.release();
    }
  }

  /** As TypeORM does with the statements that go through it. */
  protected override logged<T>(sql: string, work: () => T, params?: readonly unknown[]): T {
    const { logger } = this.dataSource;
    if (params) logger.logQuery(sql, [...params]);
    try {
      return work();
    } catch (error) {
      logger.logQueryError(error as Error, sql);
      throw error;
    }
  }
}
