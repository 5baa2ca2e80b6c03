import { createRequire } from 'node:module';
import { Kysely, MysqlDialect, PostgresDialect, SqliteDialect, type Dialect } from 'kysely';
import { createPool } from 'mysql2';
import type { DatabaseName, OpenDatabase } from './databases.js';

const require = createRequire(import.meta.url);

/** As in an application: with any tables. */
// oxlint-disable-next-line typescript/no-explicit-any -- Kysely is invariant in its tables, and tests ask for several
export type TestKysely = Kysely<any>;

/** Opens an instance of Kysely on a database. The caller destroys it. @param more options of the pool */
export function openKysely(
  name: DatabaseName,
  { options }: Pick<OpenDatabase, 'options'>,
  more: object = {},
  logQuery: (sql: string) => void = () => {},
): TestKysely {
  const log = ({ query }: { query: { sql: string } }): void => logQuery(query.sql);
  return new Kysely({ dialect: dialectOf(name, options as { url?: string; database?: string }, more), log });
}

function dialectOf(name: DatabaseName, { url, database }: { url?: string; database?: string }, more: object): Dialect {
  if (name === 'mariadb') return new MysqlDialect({ pool: createPool({ uri: url!, ...more }) });
  if (name === 'postgres') {
    const { Pool } = require('pg') as { Pool: new (options: object) => never };
    return new PostgresDialect({ pool: new Pool({ connectionString: url, ...more }) });
  }
  const Libsql = require('libsql') as new (path: string) => never;
  const connection = new Libsql(database!) as unknown as { pragma(text: string): unknown };
  connection.pragma('journal_mode = WAL');
  connection.pragma('synchronous = OFF');
  return new SqliteDialect({ database: connection as never });
}
