import { VisitOptionError } from '../../errors/visit.error.js';
import { MysqlDialect } from '../sql/mysql.dialect.js';
import { PostgresDialect } from '../sql/postgres.dialect.js';
import type { SqlDialect } from '../sql/sql.dialect.js';
import { SqliteDialect } from '../sql/sqlite.dialect.js';
import type { AnyKysely } from './kysely.connection.js';

/** A kind of database. */
export type KyselyVisitDialect = 'postgres' | 'mysql' | 'sqlite';

/** Where the tables of visits are. */
export interface KyselyVisitPlace {
  /** The schema of the tables; in MySQL the database. @default that of the connection */
  readonly schema?: string;
  /** What kind of database it is. @default what the dialect of Kysely says of itself */
  readonly dialect?: KyselyVisitDialect;
}

const DIALECTS: Readonly<Record<KyselyVisitDialect, new () => SqlDialect>> = {
  postgres: PostgresDialect,
  mysql: MysqlDialect,
  sqlite: SqliteDialect,
};

/** @throws VisitOptionError when the database is none that is supported */
export function dialectOf(db: AnyKysely, given: KyselyVisitDialect | undefined = guessed(db)): SqlDialect {
  if (given === undefined) {
    throw new VisitOptionError(
      'the database of the Kysely instance is not supported; PostgreSQL, MySQL, MariaDB and SQLite are',
    );
  }
  if (!Object.hasOwn(DIALECTS, given)) {
    throw new VisitOptionError(`option "dialect" must be one of ${Object.keys(DIALECTS).join(', ')}, got "${given}"`);
  }
  return new DIALECTS[given]();
}

/**
 * By what it can do, because names of classes do not survive every bundler. Dialects by others are made of Kysely's own
 * adapters.
 */
function guessed(db: AnyKysely): KyselyVisitDialect | undefined {
  const { supportsReturning, supportsTransactionalDdl, supportsOutput = false } = db.getExecutor().adapter;
  if (supportsOutput) return undefined;
  if (!supportsReturning) return supportsTransactionalDdl ? undefined : 'mysql';
  return supportsTransactionalDdl ? 'postgres' : 'sqlite';
}
