import type { Statement } from './kysely.connection.js';

/** A kind of database. */
export type KyselyVisitDialect = 'postgres' | 'mysql' | 'sqlite';

/** What differs from database to database in the text of statements. */
export interface Dialect {
  readonly name: KyselyVisitDialect;
  readonly quote: '"' | '`';
  /** The function that gives the larger of two values. */
  readonly greatest: string;
  /** A parameter that is an instant or a number, where its type cannot be seen from its place. */
  readonly number: string;
  /** What makes a SELECT lock its rows. */
  readonly lock: string;
  /** Behind the name of a table: rows are to be found, and so locked, by their primary key alone. */
  readonly byPrimaryKey: string;
  /** What makes a DELETE welcome that finds its rows by no key. */
  readonly unbounded: string;
  /** Whether an UPDATE can tell which rows it changed. If not, a save of several visits writes all that are there, or none. */
  readonly returning: boolean;
  /** What time it is on the server, in whole seconds since 1970. */
  readonly unixTime: string;
  /** A condition with two parameters, both the same text: the column equals it byte by byte, whatever its collation. */
  sameText(column: string): string;
  /** A condition: the column has one of these values. */
  isOneOf(column: string, values: readonly string[]): Statement;
  /** A condition on a statement that writes many rows: its key is among these. Rows are locked in the order of their keys. */
  isAmong(table: string, key: string, ids: readonly string[]): Statement;
  /** What turns an INSERT into an UPDATE, ready for its assignments, when the key exists. */
  onDuplicate(key: string): string;
}

const inList = (column: string, values: readonly string[]): Statement => ({
  sql: `${column} IN (${values.map(() => '?').join(', ') || 'NULL'})`,
  params: values,
});
// One text, whatever the number of values.
const inArray = (column: string, values: readonly string[]): Statement => ({ sql: `${column} = ANY (?)`, params: [values] });

const postgres: Dialect = {
  name: 'postgres',
  quote: '"',
  greatest: 'GREATEST',
  number: 'CAST(? AS bigint)',
  lock: ' FOR UPDATE',
  byPrimaryKey: '',
  unbounded: '',
  returning: true,
  unixTime: 'CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS bigint)',
  sameText: (column) => `${column} = ? AND ${column} = ? COLLATE "C"`,
  isOneOf: inArray,
  // An UPDATE by itself locks rows in whatever order it finds them, and two of them run into a deadlock. The array is made, and so the rows
  // are locked, before the first is written.
  isAmong: (table, key, ids) => {
    const { sql, params } = inArray(key, ids);
    return { sql: `${key} = ANY (ARRAY(SELECT ${key} FROM ${table} WHERE ${sql} ORDER BY ${key} FOR NO KEY UPDATE))`, params };
  },
  onDuplicate: (key) => `ON CONFLICT (${key}) DO UPDATE SET`,
};

const mysql: Dialect = {
  name: 'mysql',
  quote: '`',
  greatest: 'GREATEST',
  number: '?',
  lock: ' FOR UPDATE',
  // Left to itself, MySQL may prefer another index or the whole table, and locks what it passes in that order.
  byPrimaryKey: ' FORCE INDEX (PRIMARY)',
  // `sql_safe_updates` asks for a key or a limit.
  unbounded: ' LIMIT 18446744073709551615',
  // MySQL has no RETURNING, MariaDB has none for UPDATE.
  returning: false,
  unixTime: 'UNIX_TIMESTAMP()',
  // The first comparison can use the index. The second decides: most collations ignore case, and even the binary ones trailing spaces.
  sameText: (column) => `${column} = ? AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS BINARY)`,
  isOneOf: inList,
  isAmong: (_table, key, ids) => inList(key, ids),
  onDuplicate: () => 'ON DUPLICATE KEY UPDATE',
};

const sqlite: Dialect = {
  name: 'sqlite',
  quote: '"',
  greatest: 'MAX',
  number: '?',
  // One writer at a time needs no locks of rows.
  lock: '',
  byPrimaryKey: '',
  unbounded: '',
  returning: true,
  unixTime: "CAST(strftime('%s', 'now') AS INTEGER)",
  sameText: (column) => `${column} = ? AND ${column} = ? COLLATE BINARY`,
  isOneOf: inList,
  isAmong: (_table, key, ids) => inList(key, ids),
  onDuplicate: (key) => `ON CONFLICT (${key}) DO UPDATE SET`,
};

export const DIALECTS: Readonly<Record<KyselyVisitDialect, Dialect>> = { postgres, mysql, sqlite };

/** A name as it is written in SQL. */
export function quoted({ quote }: Pick<Dialect, 'quote'>, name: string): string {
  return quote + name.replaceAll(quote, quote + quote) + quote;
}
