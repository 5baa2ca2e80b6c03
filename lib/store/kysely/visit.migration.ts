import type { SqlDialect } from '../sql/sql.dialect.js';
import { TABLE_COLUMNS, visitTablesIn, type SqlTable, type VisitTables } from '../sql/visit.sql.js';
import { listed, type ColumnKind } from '../visit.columns.js';
import { runOf, type AnyKysely } from './kysely.connection.js';
import { dialectOf, type KyselyVisitDialect, type KyselyVisitPlace } from './kysely.place.js';

/** MySQL's character sets and collations; those of the others compare byte by byte where it matters. */
const HEX = 'CHARACTER SET ascii COLLATE ascii_bin';
const BYTEWISE = 'CHARACTER SET utf8mb4 COLLATE utf8mb4_bin';

const TYPES: Readonly<Record<KyselyVisitDialect, Readonly<Record<ColumnKind, (length?: number) => string>>>> = {
  postgres: {
    hex: (length) => `varchar(${length})`,
    text: (length) => `varchar(${length})`,
    exact: (length) => `varchar(${length})`,
    instant: () => 'bigint',
    count: () => 'int',
    flag: () => 'boolean',
    bytes: () => 'bytea',
  },
  mysql: {
    hex: (length) => `varchar(${length}) ${HEX}`,
    text: (length) => `varchar(${length}) CHARACTER SET utf8mb4`,
    exact: (length) => `varchar(${length}) ${BYTEWISE}`,
    instant: () => 'bigint',
    count: () => 'int',
    flag: () => 'tinyint',
    bytes: () => 'mediumblob',
  },
  sqlite: {
    hex: (length) => `varchar(${length})`,
    text: (length) => `varchar(${length})`,
    exact: (length) => `varchar(${length})`,
    instant: () => 'bigint',
    count: () => 'integer',
    flag: () => 'boolean',
    bytes: () => 'blob',
  },
};

/** The first version of the tables. A migration is history: columns that come later have one of their own. */
const FIRST = 1;

/**
 * Creates `visit`, `visit_identity` and `visit_revocation`, with their indexes: what a migration of Kysely exports as
 * `up`. What is there already is left as it is, so that a migration which was interrupted can run again.
 *
 * @example
 * ```ts
 * // migrations/2026-01-01-visit.ts
 * export { createVisitTables as up, dropVisitTables as down } from 'nest-visit/kysely';
 * ```
 *
 * @param db an instance of Kysely, or a transaction
 * @throws VisitOptionError when the database is none of PostgreSQL, MySQL, MariaDB and SQLite
 */
export async function createVisitTables(db: AnyKysely, place: KyselyVisitPlace = {}): Promise<void> {
  const dialect = dialectOf(db, place.dialect);
  const run = runOf(db, dialect);
  for (const sql of creating(dialect, place.schema)) await run({ sql, params: [] });
}

/** Drops the tables, and with them all visits: what a migration of Kysely exports as `down`. */
export async function dropVisitTables(db: AnyKysely, place: KyselyVisitPlace = {}): Promise<void> {
  const dialect = dialectOf(db, place.dialect);
  const run = runOf(db, dialect);
  const { visit, identity, revocation } = visitTablesIn(place.schema);
  for (const table of [revocation, identity, visit])
    await run({ sql: `DROP TABLE IF EXISTS ${pathOf(dialect, table)}`, params: [] });
}

function creating(dialect: SqlDialect, schema: string | undefined): string[] {
  const tables = visitTablesIn(schema);
  const { family } = dialect;
  const table = (which: keyof VisitTables, constraints: readonly string[] = []): string[] => {
    const path = pathOf(dialect, tables[which]);
    const name = tables[which].path.at(-1)!;
    const columns: Readonly<Record<string, string>> = tables[which].columns;
    const first = listed<string>(TABLE_COLUMNS[which]).filter(({ since }) => since === FIRST);
    const lines = first.map(({ name: column, kind, length, nullable }, place) => {
      const nulls = place === 0 ? 'NOT NULL PRIMARY KEY' : nullable ? 'NULL' : 'NOT NULL';
      return `${dialect.escape(columns[column]!)} ${TYPES[family][kind](length)} ${nulls}`;
    });
    const indexes = first
      .filter(({ indexed }) => indexed)
      .map(({ name: column }) => ({
        index: `${name}_${columns[column]!}_idx`,
        column: dialect.escape(columns[column]!),
      }));
    if (family === 'mysql') {
      const keys = indexes.map(({ index, column }) => `INDEX ${dialect.escape(index)} (${column})`);
      return [`CREATE TABLE IF NOT EXISTS ${path} (${[...lines, ...keys, ...constraints].join(', ')}) ENGINE = InnoDB`];
    }
    const made = indexes.map(({ index, column }) => {
      // SQLite wants the schema at the index, PostgreSQL at the table.
      const at = family === 'sqlite' && schema !== undefined ? [schema, index] : [index];
      const on = family === 'sqlite' ? dialect.escape(name) : path;
      return `CREATE INDEX IF NOT EXISTS ${escapedPath(dialect, at)} ON ${on} (${column})`;
    });
    return [`CREATE TABLE IF NOT EXISTS ${path} (${[...lines, ...constraints].join(', ')})`, ...made];
  };
  const { visit, identity } = tables;
  // A foreign key of SQLite leads to its own schema, and names none.
  const referred = family === 'sqlite' ? dialect.escape('visit') : pathOf(dialect, visit);
  const [own, other] = [dialect.escape(identity.columns.visitId), dialect.escape(visit.columns.id)];
  const owned = `FOREIGN KEY (${own}) REFERENCES ${referred} (${other}) ON DELETE CASCADE ON UPDATE NO ACTION`;
  return [...table('visit'), ...table('identity', [owned]), ...table('revocation')];
}

function pathOf(dialect: SqlDialect, { path }: SqlTable<never>): string {
  return escapedPath(dialect, path);
}

function escapedPath(dialect: SqlDialect, path: readonly string[]): string {
  return path.map((name) => dialect.escape(name)).join('.');
}
