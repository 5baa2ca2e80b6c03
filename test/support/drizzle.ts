import { createRequire } from 'node:module';
import { sql, type Table } from 'drizzle-orm';
import { BetterSQLiteSession } from 'drizzle-orm/better-sqlite3/session';
import * as my from 'drizzle-orm/mysql-core';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres';
import * as postgres from 'drizzle-orm/pg-core';
import * as lite from 'drizzle-orm/sqlite-core';
import { createPool } from 'mysql2/promise';
import {
  mysqlVisitTables,
  pgVisitTables,
  sqliteVisitTables,
  type DrizzleVisitDatabase,
  type DrizzleVisitTables,
} from 'nest-visit/drizzle';
import { Pool } from 'pg';
import type { DatabaseName, OpenDatabase } from './databases.js';

type Logger = Pick<import('drizzle-orm').Logger, 'logQuery'>;

const require = createRequire(import.meta.url);

export interface TestDrizzle {
  readonly db: DrizzleVisitDatabase;
  readonly execute: (statement: string) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

export const visitTables = { mariadb: mysqlVisitTables, postgres: pgVisitTables, sqlite: sqliteVisitTables };

/** Drizzle with its own connections, and these options of its driver. The caller closes it. */
export function openDrizzle(
  name: DatabaseName,
  { options }: Pick<OpenDatabase, 'options'>,
  more: object = {},
  logger?: Logger,
): TestDrizzle {
  const { url, database } = options as { url?: string; database?: string };
  if (name === 'sqlite') return openSqlite(database!, more);
  if (name === 'mariadb') {
    const pool = createPool({ uri: url!, ...more });
    const db = drizzleMysql(pool, {
      ...(logger && { logger: { logQuery: (text, params) => logger.logQuery(text, params) } }),
    });
    return { db, execute: (statement) => db.execute(sql.raw(statement)), close: () => pool.end() };
  }
  const pool = new Pool({ connectionString: url, ...more });
  // A test drops its database while the pool is still open.
  pool.on('error', () => {});
  const db = drizzlePg(pool);
  return { db, execute: (statement) => db.execute(sql.raw(statement)), close: () => pool.end() };
}

interface SqliteClient {
  pragma(text: string): unknown;
  exec(text: string): unknown;
  close(): void;
}

/**
 * Like `drizzle()` of drizzle-orm/better-sqlite3, which cannot be loaded without better-sqlite3; libsql has the part of
 * it that is used.
 */
function openSqlite(file: string, more: object): TestDrizzle {
  const Libsql = require('libsql') as new (path: string, options: object) => SqliteClient;
  const client = new Libsql(file, more);
  client.pragma('journal_mode = WAL');
  client.pragma('synchronous = OFF');
  const dialect = new lite.SQLiteSyncDialect();
  const session = new BetterSQLiteSession(client, dialect, undefined);
  const db = Object.assign(new lite.BaseSQLiteDatabase('sync', dialect, session as never, undefined), {
    $client: client,
  });
  return { db, execute: async (statement) => client.exec(statement), close: async () => client.close() };
}

/** Creates the tables of Drizzle's definitions, like the SQL of `drizzle-kit generate`. */
export async function createDrizzleTables(
  name: DatabaseName,
  { execute }: TestDrizzle,
  tables: DrizzleVisitTables,
): Promise<void> {
  for (const table of Object.values(tables) as Table[])
    for (const statement of statementsFor(name, table)) await execute(statement);
}

function statementsFor(name: DatabaseName, table: Table): string[] {
  const quote = name === 'mariadb' ? (text: string) => `\`${text}\`` : (text: string) => `"${text}"`;
  const config = configOf(name, table);
  const columns = config.columns.map(
    (column) =>
      `${quote(column.name)} ` +
      `${column.getSQLType()}${column.primary ? ' PRIMARY KEY' : ''}${column.notNull ? ' NOT NULL' : ''}`,
  );
  const keys = config.foreignKeys.map((key) => {
    const { columns: own, foreignTable, foreignColumns } = key.reference();
    const to = configOf(name, foreignTable).name;
    const on = `FOREIGN KEY (${quote(own[0]!.name)}) REFERENCES ${quote(to)} (${quote(foreignColumns[0]!.name)})`;
    return `${on} ON DELETE ${key.onDelete}`;
  });
  const indexes = config.indexes.map(
    ({ config: { name: index, columns: on } }) =>
      `CREATE INDEX ${quote(index!)} ON ${quote(config.name)} (${quote((on[0] as { name: string }).name)})`,
  );
  return [`CREATE TABLE ${quote(config.name)} (${[...columns, ...keys].join(', ')})`, ...indexes];
}

interface Described {
  readonly name: string;
  readonly columns: readonly { name: string; primary: boolean; notNull: boolean; getSQLType(): string }[];
  readonly foreignKeys: readonly {
    readonly onDelete: string | undefined;
    reference(): {
      columns: readonly { name: string }[];
      foreignTable: Table;
      foreignColumns: readonly { name: string }[];
    };
  }[];
  readonly indexes: readonly {
    readonly config: { readonly name?: string | undefined; readonly columns: readonly unknown[] };
  }[];
}

function configOf(name: DatabaseName, table: Table): Described {
  if (name === 'mariadb') return my.getTableConfig(table as never);
  if (name === 'postgres') return postgres.getTableConfig(table as never);
  return lite.getTableConfig(table as never);
}
