import type { DataSource } from 'typeorm';
import { VisitOptionError } from '../../../errors/visit.error.js';
import type { Dialect } from './dialect.js';
import { familyOf, SUPPORTED_TYPES, type Family } from './family.js';
import { MysqlDialect } from './mysql.dialect.js';
import { PostgresDialect } from './postgres.dialect.js';
import { SqliteDialect } from './sqlite.dialect.js';

const DIALECTS: Readonly<Record<Family, new (dataSource: DataSource) => Dialect>> = {
  mysql: MysqlDialect,
  postgres: PostgresDialect,
  sqlite: SqliteDialect,
};

/** The dialect of a data source. Throws a `VisitOptionError` when there is none for it. */
export function dialectOf(dataSource: DataSource): Dialect {
  return new DIALECTS[requireFamily(dataSource.options)](dataSource);
}

/** The family of these options. Throws a `VisitOptionError` that says what would be right. */
export function requireFamily(options: DataSource['options']): Family {
  const family = familyOf({ options });
  if (family) return family;
  throw new VisitOptionError(`the type of the data source must be one of ${SUPPORTED_TYPES.join(', ')}; got "${options.type}"`);
}
