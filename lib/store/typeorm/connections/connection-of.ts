import type { DataSource } from 'typeorm';
import { VisitOptionError } from '../../../errors/visit.error.js';
import type { SqlConnection } from '../../sql/sql.connection.js';
import type { SqlFamily } from '../../sql/sql.dialect.js';
import { familyOf, SUPPORTED_TYPES } from './family.js';
import { MysqlConnection } from './mysql.connection.js';
import { PostgresConnection } from './postgres.connection.js';
import { TypeOrmSqliteConnection } from './sqlite.connection.js';

export interface TypeOrmConnection extends SqlConnection {
  /** Nobody waits longer than this for a statement. */
  limit(milliseconds: number): void;
}

const CONNECTIONS: Readonly<Record<SqlFamily, new (dataSource: DataSource) => TypeOrmConnection>> = {
  mysql: MysqlConnection,
  postgres: PostgresConnection,
  sqlite: TypeOrmSqliteConnection,
};

/** How statements get to the database of a data source. Throws a `VisitOptionError` when there is no way to it. */
export function connectionOf(dataSource: DataSource): TypeOrmConnection {
  return new CONNECTIONS[requireFamily(dataSource.options)](dataSource);
}

/** The family of these options. Throws a `VisitOptionError` that says what would be right. */
export function requireFamily(options: DataSource['options']): SqlFamily {
  const family = familyOf({ options });
  if (family) return family;
  throw new VisitOptionError(
    `the type of the data source must be one of ${SUPPORTED_TYPES.join(', ')}; got "${options.type}"`,
  );
}
