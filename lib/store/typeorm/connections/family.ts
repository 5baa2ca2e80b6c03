import type { DataSource, DataSourceOptions } from 'typeorm';
import type { SqlFamily } from '../../sql/sql.dialect.js';

const FAMILIES: Readonly<Partial<Record<DataSourceOptions['type'], SqlFamily>>> = {
  mysql: 'mysql',
  mariadb: 'mysql',
  postgres: 'postgres',
  'better-sqlite3': 'sqlite',
};

/** The types of data source that the library can use. */
export const SUPPORTED_TYPES = Object.keys(FAMILIES);

/** The family of a data source, or undefined when the library does not speak its language. */
export function familyOf({ options }: { options: Pick<DataSource['options'], 'type'> }): SqlFamily | undefined {
  return FAMILIES[options.type];
}
