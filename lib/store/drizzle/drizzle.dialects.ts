import { is, sql, type SQL } from 'drizzle-orm';
import { MySqlDatabase, MySqlTransaction } from 'drizzle-orm/mysql-core';
import { PgDatabase, PgTransaction } from 'drizzle-orm/pg-core';
import { VisitOptionError } from '../../errors/visit.error.js';
import { toMysqlValue } from '../sql.values.js';
import type { Reference } from '../table-visit.store.js';

/** What Drizzle makes of a connection or a pool, for each kind of database that visits are kept in. */
// oxlint-disable typescript/no-explicit-any -- Drizzle's classes are invariant in driver and schema: `unknown` takes no application's instance
export type DrizzleVisitDatabase = PgDatabase<any, any, any> | MySqlDatabase<any, any, any, any>;
// oxlint-enable typescript/no-explicit-any

/** What has come of a statement. */
export interface Answer {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** How many rows it has written; on PostgreSQL how many it has returned. */
  readonly affected: number;
}

/** Runs one statement. */
export type Run = (statement: SQL) => Promise<Answer>;

/** What differs between kinds of databases. */
export interface Dialect {
  readonly name: 'postgres' | 'mysql';
  /** Around names. */
  readonly quote: '"' | '`';
  /** Whether a statement can return what it has written. */
  readonly returns: boolean;
  /** Seconds since 1970, by the clock of the server. */
  readonly unixTime: SQL;
  /** How many calls can be under way at once; undefined: that is not known. */
  readonly connections: number | undefined;
  readonly text: (value: string) => unknown;
  /** Where nothing else tells that a parameter is a number. */
  readonly number: (value: number) => unknown;
  readonly flag: (value: boolean) => unknown;
  readonly bytes: (value: Buffer | null) => unknown;
  /** Compares byte by byte. */
  readonly isSame: (column: SQL, value: string) => SQL;
  /** What stands between an `INSERT` and its assignments to the row that has this key already. */
  readonly onDuplicate: (key: SQL) => SQL;
  /** A condition that fails the whole statement where it does not hold. `isUnmet` knows the error. */
  readonly allOrNone: (condition: SQL, version: SQL) => SQL;
  readonly isUnmet: (error: unknown) => boolean;
  /** Whether the server undid everything because others were in the way. */
  readonly isTransient: (error: unknown) => boolean;
  /** Whether the server has answered, and done nothing. */
  readonly isRefusal: (error: unknown) => boolean;
  /** Whether a table or a column is not there. */
  readonly isMissing: (error: unknown) => boolean;
  readonly referenceIn: (error: unknown) => Reference | undefined;
  readonly run: Run;
  readonly transaction: <T>(work: (run: Run) => Promise<T>) => Promise<T>;
}

/** What drivers say of an error. */
interface DriverError {
  readonly message: string;
  readonly code?: unknown;
  readonly errno?: unknown;
  readonly constraint?: string;
  readonly severity?: string;
}

/** The usual REPEATABLE READ of MySQL locks the gaps between rows, too, and inserts of others run into them. */
const READ_COMMITTED = { isolationLevel: 'read committed' } as const;
/** The size of a pool, by default, of `pg` and `mysql2`. */
const USUAL_POOL = 10;

/**
 * Fails with what the driver has said. Drizzle's own error has the values of the statement beside it, and `mysql2` the statement with the
 * values in its text: session data, and hashes of keys, which would get into logs.
 */
async function unwrapped<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { query, params, cause } = (error ?? {}) as { query?: unknown; params?: unknown; cause?: unknown };
    const said = query !== undefined && params !== undefined && cause ? cause : error;
    if (said instanceof Error) Reflect.deleteProperty(said, 'sql');
    throw said;
  }
}

function driverError(error: unknown): DriverError {
  return (error ?? { message: '' }) as DriverError;
}

function noPool(kind: string): VisitOptionError {
  return new VisitOptionError(
    `the Drizzle database of visits has a single connection of \`${kind}\`: what requests do at the same time would get into each ` +
      `other's transactions. Give \`drizzle()\` a pool`,
  );
}

/** Serialization failure, deadlock, lock not available. */
const PG_IN_THE_WAY: readonly unknown[] = ['40001', '40P01', '55P03'];
/** Undefined table, undefined column. */
const PG_MISSING: readonly unknown[] = ['42P01', '42703'];
/** Restrict violation, foreign key violation. */
const PG_REFERENCE: readonly unknown[] = ['23001', '23503'];

function postgres(db: PgDatabase<never, never, never>): Dialect {
  const { $client: client } = db as { $client?: { processID?: unknown; options?: { max?: number } } };
  if (client && 'processID' in client) throw noPool('pg');
  const runOn =
    (on: Pick<typeof db, 'execute'>): Run =>
    async (statement) => {
      const answer = (await unwrapped(on.execute(statement))) as Answer | Answer['rows'];
      const rows = 'rows' in answer ? answer.rows : answer;
      return { rows, affected: rows.length };
    };
  return {
    name: 'postgres',
    quote: '"',
    returns: true,
    unixTime: sql`CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS bigint)`,
    connections: client?.options?.max ?? USUAL_POOL,
    text: (value) => value,
    number: (value) => sql`CAST(${value} AS bigint)`,
    flag: (value) => value,
    bytes: (value) => sql`CAST(${value} AS bytea)`,
    isSame: (column, value) => sql`${column} = ${value}`,
    onDuplicate: (key) => sql`ON CONFLICT (${key}) DO UPDATE SET`,
    allOrNone: (condition) => condition,
    isUnmet: () => false,
    isTransient: (error) => PG_IN_THE_WAY.includes(driverError(error).code),
    isRefusal: (error) => driverError(error).severity === 'ERROR',
    isMissing: (error) => PG_MISSING.includes(driverError(error).code),
    referenceIn: (error) => {
      const { code, constraint } = driverError(error);
      return PG_REFERENCE.includes(code) ? { constraint } : undefined;
    },
    run: runOn(db),
    transaction: (work) => unwrapped(db.transaction((on) => work(runOn(on)), READ_COMMITTED)),
  };
}

/** Lock wait timeout, deadlock, ER_CHECKREAD (a snapshot that is no longer current), a rollback by group replication. */
const MYSQL_IN_THE_WAY: readonly unknown[] = [1205, 1213, 1020, 3101];
/** ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MYSQL_MISSING: readonly unknown[] = [1054, 1146];
/** ER_ROW_IS_REFERENCED, ER_ROW_IS_REFERENCED_2. */
const MYSQL_REFERENCE: readonly unknown[] = [1217, 1451];
/** ER_ERROR_DURING_COMMIT, ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_CONNECTION_KILLED: it may have been done. */
const MYSQL_MAYBE_DONE: readonly unknown[] = [1180, 1053, 1077, 1927];
/** ER_DATA_OUT_OF_RANGE. */
const OUT_OF_RANGE = 1690;

function mysql(db: MySqlDatabase<never, never, never, never>): Dialect {
  const { $client: client } = db as {
    $client?: { beginTransaction?: unknown; config?: { connectionLimit?: number }; pool?: { config?: { connectionLimit?: number } } };
  };
  if (client && 'beginTransaction' in client) throw noPool('mysql2');
  const runOn =
    (on: Pick<typeof db, 'execute'>): Run =>
    async (statement) => {
      const [answer] = (await unwrapped(on.execute(statement))) as unknown as [Answer['rows'] | { affectedRows: number }];
      return 'affectedRows' in answer ? { rows: [], affected: answer.affectedRows } : { rows: answer, affected: answer.length };
    };
  return {
    name: 'mysql',
    quote: '`',
    returns: false,
    unixTime: sql`UNIX_TIMESTAMP()`,
    connections: (client?.pool?.config ?? client?.config)?.connectionLimit ?? USUAL_POOL,
    text: toMysqlValue,
    number: (value) => value,
    flag: Number,
    bytes: (value) => value,
    // The first comparison can use the index. The second decides: collations ignore trailing spaces, and most of them case, too.
    isSame: (column, value) =>
      sql`${column} = ${toMysqlValue(value)} AND CAST(CONVERT(${column} USING utf8mb4) AS BINARY) = ${Buffer.from(value)}`,
    onDuplicate: () => sql`ON DUPLICATE KEY UPDATE`,
    // One more than the largest number there is fails, whatever the SQL mode.
    allOrNone: (condition, version) => sql`IF(${condition}, TRUE, ~0 + ${version} + 1)`,
    isUnmet: (error) => driverError(error).errno === OUT_OF_RANGE,
    isTransient: (error) => MYSQL_IN_THE_WAY.includes(driverError(error).errno),
    isRefusal: (error) => {
      const { errno, sqlState } = error as { errno?: unknown; sqlState?: string };
      return typeof errno === 'number' && !!sqlState && !sqlState.startsWith('08') && !MYSQL_MAYBE_DONE.includes(errno);
    },
    isMissing: (error) => MYSQL_MISSING.includes(driverError(error).errno),
    referenceIn: (error) => {
      const { errno, message } = driverError(error);
      // The name is left out for a user without rights on the other table.
      return MYSQL_REFERENCE.includes(errno) ? { constraint: /CONSTRAINT `([^`]+)`/.exec(message)?.[1] } : undefined;
    },
    run: runOn(db),
    transaction: (work) => unwrapped(db.transaction((on) => work(runOn(on)), READ_COMMITTED)),
  };
}

/** @throws VisitOptionError when it is none of the databases that visits can be kept in */
export function dialectOf(db: DrizzleVisitDatabase): Dialect {
  if (is(db, PgTransaction) || is(db, MySqlTransaction)) {
    throw new VisitOptionError('the store of visits needs what `drizzle()` returns, and no transaction of it');
  }
  if (is(db, PgDatabase)) return postgres(db as never);
  if (is(db, MySqlDatabase)) return mysql(db as never);
  throw new VisitOptionError(
    'the store of visits needs what `drizzle()` returns for PostgreSQL, MySQL or MariaDB; in SQLite, the stores of TypeORM and Kysely keep visits',
  );
}
