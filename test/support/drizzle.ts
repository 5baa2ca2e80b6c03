import { sql, type Table } from 'drizzle-orm';
import * as my from 'drizzle-orm/mysql-core';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres';
import * as postgres from 'drizzle-orm/pg-core';
import { createPool } from 'mysql2/promise';
import { mysqlVisitTables, pgVisitTables, type DrizzleVisitDatabase, type DrizzleVisitTables } from 'nest-visit/drizzle';
import { Pool } from 'pg';
import type { OpenDatabase } from './databases.js';

export type DrizzleDatabaseName = 'mariadb' | 'postgres';

export interface TestDrizzle {
  readonly db: DrizzleVisitDatabase;
  readonly execute: (statement: string) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

export const visitTables = { mariadb: mysqlVisitTables, postgres: pgVisitTables };

/** Drizzle with connections of its own, and these options of its driver. Whoever opens it closes it. */
export function openDrizzle(name: DrizzleDatabaseName, { options }: OpenDatabase, more: object = {}): TestDrizzle {
  const { url } = options as { url: string };
  if (name === 'mariadb') {
    const pool = createPool({ uri: url, ...more });
    const db = drizzleMysql(pool);
    return { db, execute: (statement) => db.execute(sql.raw(statement)), close: () => pool.end() };
  }
  const pool = new Pool({ connectionString: url, ...more });
  // A test drops its database while the pool is open.
  pool.on('error', () => {});
  const db = drizzlePg(pool);
  return { db, execute: (statement) => db.execute(sql.raw(statement)), close: () => pool.end() };
}

/** Makes the tables of Drizzle's definitions, as the SQL of `drizzle-kit generate` does. */
export async function createDrizzleTables(name: DrizzleDatabaseName, { execute }: TestDrizzle, tables: DrizzleVisitTables): Promise<void> {
  for (const table of Object.values(tables) as Table[]) for (const statement of statementsFor(name, table)) await execute(statement);
}

function statementsFor(name: DrizzleDatabaseName, table: Table): string[] {
  const quote = name === 'mariadb' ? (text: string) => `\`${text}\`` : (text: string) => `"${text}"`;
  const config = configOf(name, table);
  const columns = config.columns.map(
    (column) => `${quote(column.name)} ${column.getSQLType()}${column.primary ? ' PRIMARY KEY' : ''}${column.notNull ? ' NOT NULL' : ''}`,
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
    reference(): { columns: readonly { name: string }[]; foreignTable: Table; foreignColumns: readonly { name: string }[] };
  }[];
  readonly indexes: readonly { readonly config: { readonly name?: string | undefined; readonly columns: readonly unknown[] } }[];
}

function configOf(name: DrizzleDatabaseName, table: Table): Described {
  if (name === 'mariadb') return my.getTableConfig(table as never);
  return postgres.getTableConfig(table as never);
}
