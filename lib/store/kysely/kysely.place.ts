import { VisitOptionError } from '../../errors/visit.error.js';
import type { AnyKysely } from './kysely.connection.js';
import { DIALECTS, type Dialect, type KyselyVisitDialect } from './kysely.dialects.js';

/** Where the tables of visits are. */
export interface KyselyVisitPlace {
  /** The schema of the tables; in MySQL the database. @default that of the connection */
  readonly schema?: string;
  /** What kind of database it is. @default what the dialect of Kysely says of itself */
  readonly dialect?: KyselyVisitDialect;
}

/** @throws VisitOptionError when the database is none that is supported */
export function dialectOf(db: AnyKysely, given?: KyselyVisitDialect): Dialect {
  const dialect = given === undefined ? guessed(db) : DIALECTS[given];
  if (!dialect) {
    throw new VisitOptionError(
      given === undefined
        ? 'the Kysely instance is of no database that is known here: PostgreSQL, MySQL, MariaDB and SQLite are'
        : `option "dialect" must be one of ${Object.keys(DIALECTS).join(', ')}, got "${given}"`,
    );
  }
  return dialect;
}

/** By what it can do, because names of classes do not survive every bundler. Dialects by others are made of Kysely's own adapters. */
function guessed(db: AnyKysely): Dialect | undefined {
  const { supportsReturning, supportsTransactionalDdl, supportsOutput = false } = db.getExecutor().adapter;
  if (supportsOutput) return undefined;
  if (!supportsReturning) return supportsTransactionalDdl ? undefined : DIALECTS.mysql;
  return supportsTransactionalDdl ? DIALECTS.postgres : DIALECTS.sqlite;
}
