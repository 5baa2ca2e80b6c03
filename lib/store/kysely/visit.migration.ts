import { listed, REVOCATION_COLUMNS, type Column, type ColumnKind } from '../visit.columns.js';
import { runOf, type AnyKysely } from './kysely.connection.js';
import { quoted, type Dialect } from './kysely.dialects.js';
import { dialectOf, type KyselyVisitPlace } from './kysely.place.js';
import { IDENTITY_ROW, tablesIn, VISIT_ROW } from './visit.tables.js';

/** MySQL's character sets and collations; those of the others compare byte by byte where it matters. */
const HEX = 'CHARACTER SET ascii COLLATE ascii_bin';
const BYTEWISE = 'CHARACTER SET utf8mb4 COLLATE utf8mb4_bin';

const TYPES: Readonly<Record<Dialect['name'], Readonly<Record<ColumnKind, (length?: number) => string>>>> = {
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
 * Creates `visit`, `visit_identity` and `visit_revocation`, with their indexes: what a migration of Kysely exports as `up`. What is there
 * already is left as it is, so that a migration which was interrupted can run again.
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
  const { visit, identity, revocation } = tablesIn(dialect, place.schema);
  for (const { path } of [revocation, identity, visit]) await run({ sql: `DROP TABLE IF EXISTS ${path}`, params: [] });
}

function creating(dialect: Dialect, schema: string | undefined): string[] {
  const { visit, identity, revocation } = tablesIn(dialect, schema);
  const table = <Name extends string>(
    name: string,
    { path, columns }: { readonly path: string; readonly columns: Readonly<Record<Name, string>> },
    given: Readonly<Record<Name, Column>>,
    constraints: readonly string[] = [],
  ): string[] => {
    const first = listed<Name>(given).filter(({ since }) => since === FIRST);
    const lines = first.map(({ name: column, kind, length, nullable }, place) => {
      const nulls = place === 0 ? 'PRIMARY KEY' : nullable ? 'NULL' : 'NOT NULL';
      return `${columns[column]} ${TYPES[dialect.name][kind](length)} ${place === 0 ? `NOT NULL ${nulls}` : nulls}`;
    });
    const indexes = first
      .filter(({ indexed }) => indexed)
      .map(({ name: column }) => ({ name: quoted(dialect, `${name}_${bare(columns[column])}_idx`), column: columns[column] }));
    if (dialect.name === 'mysql') {
      const keys = indexes.map(({ name: index, column }) => `INDEX ${index} (${column})`);
      return [`CREATE TABLE IF NOT EXISTS ${path} (${[...lines, ...keys, ...constraints].join(', ')}) ENGINE = InnoDB`];
    }
    const made = indexes.map(({ name: index, column }) => {
      // SQLite wants the schema at the index, PostgreSQL at the table.
      const [at, on] =
        dialect.name === 'sqlite' && schema !== undefined ? [`${quoted(dialect, schema)}.${index}`, quoted(dialect, name)] : [index, path];
      return `CREATE INDEX IF NOT EXISTS ${at} ON ${on} (${column})`;
    });
    return [`CREATE TABLE IF NOT EXISTS ${path} (${[...lines, ...constraints].join(', ')})`, ...made];
  };
  // A foreign key of SQLite leads to its own schema, and names none.
  const referred = dialect.name === 'sqlite' ? quoted(dialect, 'visit') : visit.path;
  const owned = `FOREIGN KEY (${identity.columns.visitId}) REFERENCES ${referred} (${visit.columns.id}) ON DELETE CASCADE ON UPDATE NO ACTION`;
  return [
    ...table('visit', visit, VISIT_ROW),
    ...table('visit_identity', identity, IDENTITY_ROW, [owned]),
    ...table('visit_revocation', revocation, REVOCATION_COLUMNS),
  ];
}

function bare(quotedName: string): string {
  return quotedName.slice(1, -1);
}
