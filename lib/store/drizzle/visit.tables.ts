import type { ColumnBuilderBase, NotNull } from 'drizzle-orm';
import * as my from 'drizzle-orm/mysql-core';
import * as pg from 'drizzle-orm/pg-core';
import * as lite from 'drizzle-orm/sqlite-core';
import { TABLE_COLUMNS } from '../sql/visit.sql.js';
import { columnNameOf, listed, type Column, type ColumnKind } from '../visit.columns.js';

type Columns = Readonly<Record<string, Column>>;
/** What makes a column of each kind. */
type Builders = Readonly<Record<ColumnKind, (name: string, length: number) => ColumnBuilderBase>>;
type Built<B extends Builders, C extends Columns> = {
  [Name in keyof C]: C[Name] extends { readonly nullable: true }
    ? ReturnType<B[C[Name]['kind']]>
    : NotNull<ReturnType<B[C[Name]['kind']]>>;
};

const bytea = pg.customType<{ data: Uint8Array; driverData: Uint8Array }>({ dataType: () => 'bytea' });
const mediumblob = my.customType<{ data: Uint8Array; driverData: Uint8Array }>({ dataType: () => 'mediumblob' });

/** Drizzle has no words for a charset. */
const varcharOf = (charset: string) => (name: string, length: number) =>
  my.customType<{ data: string; driverData: string }>({ dataType: () => `varchar(${length}) ${charset}` })(name);

const PG = {
  hex: (name: string, length: number) => pg.varchar(name, { length }),
  text: (name: string, length: number) => pg.varchar(name, { length }),
  exact: (name: string, length: number) => pg.varchar(name, { length }),
  instant: (name: string) => pg.bigint(name, { mode: 'number' }),
  count: (name: string) => pg.integer(name),
  flag: (name: string) => pg.boolean(name),
  bytes: (name: string) => bytea(name),
} satisfies Builders;

const MYSQL = {
  hex: varcharOf('CHARACTER SET ascii COLLATE ascii_bin'),
  text: varcharOf('CHARACTER SET utf8mb4'),
  exact: varcharOf('CHARACTER SET utf8mb4 COLLATE utf8mb4_bin'),
  instant: (name: string) => my.bigint(name, { mode: 'number' }),
  count: (name: string) => my.int(name),
  flag: (name: string) => my.boolean(name),
  bytes: (name: string) => mediumblob(name),
} satisfies Builders;

const SQLITE = {
  hex: (name: string, length: number) => lite.text(name, { length }),
  text: (name: string, length: number) => lite.text(name, { length }),
  exact: (name: string, length: number) => lite.text(name, { length }),
  instant: (name: string) => lite.integer(name),
  count: (name: string) => lite.integer(name),
  flag: (name: string) => lite.integer(name, { mode: 'boolean' }),
  bytes: (name: string) => lite.blob(name, { mode: 'buffer' }),
} satisfies Builders;

/** The first column is the primary key. */
function columnsOf<B extends Builders, C extends Columns>(builders: B, columns: C): Built<B, C> {
  const made = listed(columns).map(({ name, kind, length = 0, nullable = false }, index) => {
    const builder = builders[kind](columnNameOf(name), length) as ColumnBuilderBase & {
      notNull(): unknown;
      primaryKey(): unknown;
    };
    return [name, index === 0 ? builder.primaryKey() : nullable ? builder : builder.notNull()];
  });
  return Object.fromEntries(made) as Built<B, C>;
}

type Indexed<C extends Columns> = {
  [Name in keyof C]: C[Name] extends { readonly indexed: true } ? Name : never;
}[keyof C];

function indexedIn<C extends Columns>(columns: C): Indexed<C>[] {
  return listed(columns).flatMap(({ name, indexed }) => (indexed ? [name as Indexed<C>] : []));
}

function indexName(table: string, column: string): string {
  return `${table}_${columnNameOf(column)}_index`;
}

/**
 * The tables of visits in PostgreSQL, for the schema file of the application: Drizzle's migrations create them from
 * there.
 *
 * @example
 * export const { visit, visitIdentity, visitRevocation } = pgVisitTables();
 *
 * @param table what makes a table, such as `pgSchema('app').table` or what `pgTableCreator()` gives. @default pgTable
 */
export function pgVisitTables<Schema extends string | undefined = undefined>(
  table = pg.pgTable as unknown as pg.PgTableFn<Schema>,
) {
  const visit = table('visit', columnsOf(PG, TABLE_COLUMNS.visit), (own) =>
    indexedIn(TABLE_COLUMNS.visit).map((name) => pg.index(indexName('visit', name)).on(own[name])),
  );
  const visitIdentity = table('visit_identity', columnsOf(PG, TABLE_COLUMNS.identity), (own) => [
    ...indexedIn(TABLE_COLUMNS.identity).map((name) => pg.index(indexName('visit_identity', name)).on(own[name])),
    pg.foreignKey({ columns: [own.visitId], foreignColumns: [visit.id] }).onDelete('cascade'),
  ]);
  const visitRevocation = table('visit_revocation', columnsOf(PG, TABLE_COLUMNS.revocation), (own) =>
    indexedIn(TABLE_COLUMNS.revocation).map((name) => pg.index(indexName('visit_revocation', name)).on(own[name])),
  );
  return { visit, visitIdentity, visitRevocation };
}

/**
 * As `pgVisitTables`, in MySQL and MariaDB.
 *
 * @param table what makes a table, such as what `mysqlTableCreator()` gives. @default mysqlTable
 */
export function mysqlVisitTables<Schema extends string | undefined = undefined>(
  table = my.mysqlTable as unknown as my.MySqlTableFn<Schema>,
) {
  const visit = table('visit', columnsOf(MYSQL, TABLE_COLUMNS.visit), (own) =>
    indexedIn(TABLE_COLUMNS.visit).map((name) => my.index(indexName('visit', name)).on(own[name])),
  );
  const visitIdentity = table('visit_identity', columnsOf(MYSQL, TABLE_COLUMNS.identity), (own) => [
    ...indexedIn(TABLE_COLUMNS.identity).map((name) => my.index(indexName('visit_identity', name)).on(own[name])),
    my.foreignKey({ columns: [own.visitId], foreignColumns: [visit.id] }).onDelete('cascade'),
  ]);
  const visitRevocation = table('visit_revocation', columnsOf(MYSQL, TABLE_COLUMNS.revocation), (own) =>
    indexedIn(TABLE_COLUMNS.revocation).map((name) => my.index(indexName('visit_revocation', name)).on(own[name])),
  );
  return { visit, visitIdentity, visitRevocation };
}

/**
 * As `pgVisitTables`, in SQLite.
 *
 * @param table what makes a table, such as what `sqliteTableCreator()` gives. @default sqliteTable
 */
export function sqliteVisitTables(table: lite.SQLiteTableFn = lite.sqliteTable) {
  const visit = table('visit', columnsOf(SQLITE, TABLE_COLUMNS.visit), (own) =>
    indexedIn(TABLE_COLUMNS.visit).map((name) => lite.index(indexName('visit', name)).on(own[name])),
  );
  const visitIdentity = table('visit_identity', columnsOf(SQLITE, TABLE_COLUMNS.identity), (own) => [
    ...indexedIn(TABLE_COLUMNS.identity).map((name) => lite.index(indexName('visit_identity', name)).on(own[name])),
    lite.foreignKey({ columns: [own.visitId], foreignColumns: [visit.id] }).onDelete('cascade'),
  ]);
  const visitRevocation = table('visit_revocation', columnsOf(SQLITE, TABLE_COLUMNS.revocation), (own) =>
    indexedIn(TABLE_COLUMNS.revocation).map((name) => lite.index(indexName('visit_revocation', name)).on(own[name])),
  );
  return { visit, visitIdentity, visitRevocation };
}
