import { getTableColumns, type Table } from 'drizzle-orm';
import * as my from 'drizzle-orm/mysql-core';
import * as pg from 'drizzle-orm/pg-core';
import * as lite from 'drizzle-orm/sqlite-core';
import { VisitOptionError } from '../../errors/visit.error.js';
import type { SqlAccess } from '../sql/sql.connection.js';
import type { SqlFamily } from '../sql/sql.dialect.js';
import { SqlVisitStore } from '../sql/sql-visit.store.js';
import { TABLE_COLUMNS, VisitSql, type SqlTable, type VisitTables } from '../sql/visit.sql.js';
import { namesIn, type Column } from '../visit.columns.js';
import { accessTo, type DrizzleVisitDatabase } from './drizzle.connection.js';
import { mysqlVisitTables, pgVisitTables, sqliteVisitTables } from './visit.tables.js';

/** The three tables of the store, as defined by `pgVisitTables()`, `mysqlVisitTables()` or `sqliteVisitTables()`. */
export interface DrizzleVisitTables {
  readonly visit: Table;
  readonly visitIdentity: Table;
  readonly visitRevocation: Table;
}

interface Definitions {
  readonly make: { readonly name: string } & (() => DrizzleVisitTables);
  readonly configOf: (table: never) => { readonly name: string; readonly schema?: string | undefined };
}

const DEFINITIONS: Readonly<Record<SqlFamily, Definitions>> = {
  postgres: { make: pgVisitTables, configOf: pg.getTableConfig },
  mysql: { make: mysqlVisitTables, configOf: my.getTableConfig },
  sqlite: { make: sqliteVisitTables, configOf: lite.getTableConfig },
};

/**
 * Visits in the application's own database, through its own Drizzle: PostgreSQL, MySQL, MariaDB, and SQLite with a
 * driver that answers at once. Their tables are those of `TypeOrmVisitStore`, which may use them at the same time;
 * `pgVisitTables()`, `mysqlVisitTables()` and `sqliteVisitTables()` define them for Drizzle's migrations.
 *
 * @example
 * new DrizzleVisitStore(drizzle(process.env.DATABASE_URL))
 */
export class DrizzleVisitStore extends SqlVisitStore {
  readonly connections: number | undefined;
  readonly #access: SqlAccess;

  /**
   * @param db the database that `drizzle()` returns. It is not closed with the store
   * @param tables the tables, if they have other names. @default the tables that `pgVisitTables()`,
   * `mysqlVisitTables()` and `sqliteVisitTables()` define
   * @throws VisitOptionError if the database is not supported
   */
  constructor(db: DrizzleVisitDatabase, tables?: DrizzleVisitTables) {
    super();
    const { connection, connections } = accessTo(db);
    const { make, configOf } = DEFINITIONS[connection.dialect.family];
    this.connections = connections;
    this.#access = { connection, sql: new VisitSql(connection.dialect, tablesOf(tables ?? make(), configOf)) };
  }

  async close(): Promise<void> {}

  protected access(): SqlAccess {
    return this.#access;
  }

  protected remedyFor(): string {
    const { make } = DEFINITIONS[this.#access.connection.dialect.family];
    return (
      `export \`${make.name}()\` of nest-visit/drizzle from the schema of the application, then run ` +
      '`drizzle-kit generate` and `drizzle-kit migrate`'
    );
  }
}

/** The names in Drizzle's tables. */
function tablesOf(
  { visit, visitIdentity, visitRevocation }: DrizzleVisitTables,
  configOf: Definitions['configOf'],
): VisitTables {
  const missing: string[] = [];
  const table = <Name extends string>(
    property: string,
    given: Table,
    needed: Readonly<Record<Name, Column>>,
  ): SqlTable<Name> => {
    const columns: Readonly<Record<string, { readonly name: string }>> = getTableColumns(given);
    missing.push(...namesIn(needed).flatMap((name) => (name in columns ? [] : `${property}.${name}`)));
    const { name, schema } = configOf(given as never);
    const names = namesIn(needed).map((column) => [column, columns[column]?.name]);
    return {
      path: schema === undefined ? [name] : [schema, name],
      columns: Object.fromEntries(names) as Record<Name, string>,
    };
  };
  const tables = {
    visit: table('visit', visit, TABLE_COLUMNS.visit),
    identity: table('visitIdentity', visitIdentity, TABLE_COLUMNS.identity),
    revocation: table('visitRevocation', visitRevocation, TABLE_COLUMNS.revocation),
  };
  if (missing.length > 0) throw new VisitOptionError(`the Drizzle tables of visits have no ${missing.join(', ')}`);
  return tables;
}
