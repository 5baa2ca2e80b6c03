import type { DataSource } from 'typeorm';
import { VisitOptionError } from '../../../errors/visit.error.js';
import { MysqlDialect } from '../../sql/mysql.dialect.js';
import { MysqlDriver } from '../../sql/pool/mysql.driver.js';
import { PooledConnection } from '../../sql/pool/pooled.connection.js';
import { PostgresDriver } from '../../sql/pool/postgres.driver.js';
import { PostgresDialect } from '../../sql/postgres.dialect.js';
import type { SqlConnection } from '../../sql/sql.connection.js';
import type { SqlFamily } from '../../sql/sql.dialect.js';
import { familyOf, SUPPORTED_TYPES } from './family.js';
import { TypeOrmSqliteConnection } from './sqlite.connection.js';
import { TypeOrmMysqlLender, TypeOrmPostgresLender } from './typeorm.lender.js';

const CONNECTIONS: Readonly<Record<SqlFamily, (dataSource: DataSource) => SqlConnection>> = {
  mysql(dataSource) {
    const dialect = new MysqlDialect({ prepares: true });
    return new PooledConnection(dialect, new MysqlDriver(), new TypeOrmMysqlLender(dataSource, dialect));
  },
  postgres(dataSource) {
    const dialect = new PostgresDialect();
    return new PooledConnection(dialect, new PostgresDriver(dialect), new TypeOrmPostgresLender(dataSource, dialect));
  },
  sqlite: (dataSource) => new TypeOrmSqliteConnection(dataSource),
};

/** How statements get to the database of a data source. Throws a `VisitOptionError` when there is no way to it. */
export function connectionOf(dataSource: DataSource): SqlConnection {
  return CONNECTIONS[requireFamily(dataSource.options)](dataSource);
}

/** The family of these options. Throws a `VisitOptionError` that says what would be right. */
export function requireFamily(options: DataSource['options']): SqlFamily {
  const family = familyOf({ options });
  if (family) return family;
  throw new VisitOptionError(
    `the type of the data source must be one of ${SUPPORTED_TYPES.join(', ')}; got "${options.type}"`,
  );
}
