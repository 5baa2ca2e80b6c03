import { is, Param, SQL, StringChunk } from 'drizzle-orm';
import { MySqlDatabase, MySqlTransaction } from 'drizzle-orm/mysql-core';
import { PgDatabase, PgTransaction } from 'drizzle-orm/pg-core';
import { BaseSQLiteDatabase, SQLiteTransaction } from 'drizzle-orm/sqlite-core';
import { VisitOptionError } from '../../errors/visit.error.js';
import { retryOnConflict } from '../retry-on-conflict.js';
import { withoutValues } from '../sql/driver-error.js';
import { MysqlDialect } from '../sql/mysql.dialect.js';
import { accessToPool } from '../sql/pool/driver-pool.js';
import { PostgresDialect } from '../sql/postgres.dialect.js';
import type { SqlConnection } from '../sql/sql.connection.js';
import type { SqlDialect } from '../sql/sql.dialect.js';
import { SqliteConnection, USUAL_TIMEOUT, type SqliteDatabase } from '../sql/sqlite.connection.js';
import { runSteps, type Result, type Statement, type Step } from '../sql/statement.js';

/** What Drizzle makes of a connection or a pool, for each kind of database that visits are kept in. */
// oxlint-disable typescript/no-explicit-any -- Drizzle's classes are invariant in driver and schema: `unknown` takes no application's instance
export type DrizzleVisitDatabase =
  | PgDatabase<any, any, any>
  | MySqlDatabase<any, any, any, any>
  | BaseSQLiteDatabase<'sync', any, any, any>;
// oxlint-enable typescript/no-explicit-any

/** What is used of a database, or of a transaction, of a server. */
interface Executor {
  execute(statement: SQL): Promise<unknown>;
}

interface Server extends Executor {
  transaction<T>(work: (on: Executor) => Promise<T>, config: { readonly isolationLevel: 'read committed' }): Promise<T>;
}

/** How statements get to the database, and how many of them at once; undefined: that does not matter. */
interface DrizzleAccess {
  readonly connection: SqlConnection;
  readonly connections: number | undefined;
}

/** The usual REPEATABLE READ of MySQL locks the gaps between rows, too, and inserts of others run into them. */
const READ_COMMITTED = { isolationLevel: 'read committed' } as const;
/** The size of a pool, by default, of `pg`, `postgres` and `mysql2`. */
const USUAL_POOL = 10;
/** Thrown within a transaction, so that it is undone. */
const UNDONE = new Error('a statement of a transaction has not changed what it must');

/** PostgreSQL, MySQL and MariaDB. */
class ServerConnection implements SqlConnection {
  readonly #isTransient = (error: unknown): boolean => this.dialect.isTransient(error);

  constructor(
    private readonly db: Server,
    readonly dialect: SqlDialect,
    private readonly resultOf: (answer: unknown) => Result,
  ) {}

  run(statement: Statement): Promise<Result> {
    return retryOnConflict(() => this.#send(this.db, statement), this.#isTransient);
  }

  async atomic(steps: readonly Step[]): Promise<Result[] | null> {
    const attempt = (): Promise<Result[]> =>
      this.db.transaction(async (on) => {
        const results = await runSteps(steps, (statement) => this.#send(on, statement));
        if (!results) throw UNDONE;
        return results;
      }, READ_COMMITTED);
    try {
      return await retryOnConflict(attempt, this.#isTransient);
    } catch (error) {
      if (error === UNDONE) return null;
      // Of a statement, or of one that begins or ends the transaction.
      throw withoutValues(error);
    }
  }

  async #send(on: Executor, { sql, params }: Statement): Promise<Result> {
    try {
      return this.resultOf(await on.execute(sqlOf(sql, this.dialect.valuesOf(params))));
    } catch (error) {
      throw withoutValues(error);
    }
  }
}

/** Tells the logger that `drizzle()` was given of a statement that does not pass through it. */
function logOf(db: object): (statement: Pick<Statement, 'sql' | 'params'>) => void {
  const { session } = db as { session?: { logger?: { logQuery(sql: string, params: unknown[]): void } } };
  return ({ sql, params }) => session?.logger?.logQuery(sql, [...params]);
}

/**
 * SQLite, by the driver's connection itself: Drizzle has no way to run a transaction in one turn of the event loop with
 * statements of ours.
 */
class DrizzleSqliteConnection extends SqliteConnection {
  readonly #log: (statement: Pick<Statement, 'sql' | 'params'>) => void;
  protected readonly timeout: number;

  constructor(
    protected readonly database: SqliteDatabase,
    db: object,
  ) {
    super();
    this.#log = logOf(db);
    const [row = {}] = database.prepare('PRAGMA busy_timeout').all();
    this.timeout = Number(Object.values(row)[0] ?? 0);
  }

  protected override get patience(): number {
    return Math.max(this.timeout, USUAL_TIMEOUT);
  }

  protected override logged<T>(sql: string, work: () => T, params?: readonly unknown[]): T {
    if (params) this.#log({ sql, params });
    return work();
  }
}

/** In the text of a statement: names, and marks of parameters. */
const NAME_OR_MARK = /"[^"]*"|`[^`]*`|\?/g;

function sqlOf(text: string, params: readonly unknown[]): SQL {
  const chunks: (StringChunk | Param)[] = [];
  let from = 0;
  let count = 0;
  for (const { 0: found, index } of text.matchAll(NAME_OR_MARK)) {
    if (found !== '?') continue;
    chunks.push(new StringChunk(text.slice(from, index)), new Param(params[count++]));
    from = index + 1;
  }
  chunks.push(new StringChunk(text.slice(from)));
  return new SQL(chunks);
}

/** Of `pg` and drivers like it, of `postgres`, and of PGlite. */
interface PgAnswer {
  readonly rows?: Result['rows'];
  readonly rowCount?: number | null;
  readonly count?: number;
  readonly affectedRows?: number;
}

function ofPostgres(answer: unknown): Result {
  const { rows, rowCount, count, affectedRows } = answer as PgAnswer;
  return { rows: rows ?? (answer as Result['rows']), affected: rowCount ?? count ?? affectedRows ?? 0 };
}

function ofMysql(answer: unknown): Result {
  const [rows] = answer as [Result['rows'] | { readonly affectedRows: number }];
  return 'affectedRows' in rows ? { rows: [], affected: rows.affectedRows } : { rows, affected: 0 };
}

function noPool(kind: string): VisitOptionError {
  return new VisitOptionError(
    `the Drizzle database has a single connection of \`${kind}\`, so concurrent requests would end up in each ` +
      `other's transactions: pass a pool to \`drizzle()\``,
  );
}

function postgres(db: DrizzleVisitDatabase): DrizzleAccess {
  const { $client: client } = db as { $client?: { processID?: unknown; options?: { max?: number } } };
  if (client && 'processID' in client) throw noPool('pg');
  const pooled = accessToPool('postgres', client, logOf(db));
  if (pooled) return pooled;
  // Not every driver takes arrays, nor every version of Drizzle.
  const dialect = new PostgresDialect({ arrays: false });
  return {
    connection: new ServerConnection(db as Server, dialect, ofPostgres),
    connections: client?.options?.max ?? USUAL_POOL,
  };
}

function mysql(db: DrizzleVisitDatabase): DrizzleAccess {
  const { $client: client } = db as {
    $client?: {
      beginTransaction?: unknown;
      config?: { connectionLimit?: number };
      pool?: { config?: { connectionLimit?: number } };
    };
  };
  if (client && 'beginTransaction' in client) throw noPool('mysql2');
  const pooled = accessToPool('mysql', client, logOf(db));
  if (pooled) return pooled;
  const connections = (client?.pool?.config ?? client?.config)?.connectionLimit ?? USUAL_POOL;
  return { connection: new ServerConnection(db as Server, new MysqlDialect(), ofMysql), connections };
}

function sqlite(db: DrizzleVisitDatabase): DrizzleAccess {
  const { $client: client } = db as { $client?: Partial<SqliteDatabase> };
  if (!client) {
    throw new VisitOptionError(
      'the database of `drizzle()` has no `$client`, which the visit store needs for SQLite: either its driver ' +
        'does not provide it, or the installed drizzle-orm is older than 0.34',
    );
  }
  // Whoever waits for an answer lets others in between, and their statements into a transaction of ours.
  if (typeof client.inTransaction !== 'boolean' || client.prepare?.('SELECT 1').reader !== true) {
    throw new VisitOptionError(
      'for SQLite, the visit store needs `drizzle()` of drizzle-orm/better-sqlite3 with a synchronous driver ' +
        '(better-sqlite3 or libsql). For other drivers, use the store for Kysely or TypeORM',
    );
  }
  return { connection: new DrizzleSqliteConnection(client as SqliteDatabase, db), connections: undefined };
}

/** @throws VisitOptionError when it is none of the databases that visits can be kept in */
export function accessTo(db: DrizzleVisitDatabase): DrizzleAccess {
  if (is(db, PgTransaction) || is(db, MySqlTransaction) || is(db, SQLiteTransaction)) {
    throw new VisitOptionError('the visit store needs the database that `drizzle()` returns, not a transaction');
  }
  if (is(db, PgDatabase)) return postgres(db);
  if (is(db, MySqlDatabase)) return mysql(db);
  if (is(db, BaseSQLiteDatabase)) return sqlite(db as DrizzleVisitDatabase);
  throw new VisitOptionError(
    'the visit store needs a database that `drizzle()` returns for PostgreSQL, MySQL, MariaDB or SQLite',
  );
}
