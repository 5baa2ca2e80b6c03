import type { Kysely } from 'kysely';
import { retryOnConflict } from '../retry-on-conflict.js';
import { toMysqlValue } from '../sql.values.js';
import type { Dialect } from './kysely.dialects.js';
import { isTransient } from './kysely.errors.js';

/** A statement with `?` for its parameters, whatever the dialect. No value is part of its text. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
}

export interface Result {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** How many rows a write has changed. Not known for a statement that returns rows. */
  readonly affected: number;
}

/** Runs one statement. */
export type Run = (statement: Statement) => Promise<Result>;

/** The application's instance, of whatever tables. */
// oxlint-disable-next-line typescript/no-explicit-any -- Kysely is invariant in its tables: `unknown` takes no application's instance
export type AnyKysely = Kysely<any>;

const BEGIN: Statement = { sql: 'BEGIN IMMEDIATE', params: [] };
const COMMIT: Statement = { sql: 'COMMIT', params: [] };
const ROLLBACK: Statement = { sql: 'ROLLBACK', params: [] };

/** How statements get to the database: what others were in the way of is tried again. */
export interface Connection {
  /** One statement is a transaction by itself. */
  readonly run: Run;
  /** Runs all that `work` does in one transaction, perhaps several times. When it throws, nothing is done. */
  atomic<T>(work: (run: Run) => Promise<T>): Promise<T>;
}

export function connectionOf(given: AnyKysely, dialect: Dialect): Connection {
  // Plugins are for the application's own queries: they would rename columns of results.
  const db = given.withoutPlugins();
  return dialect.name === 'sqlite' ? new SqliteConnection(db, dialect) : new PooledConnection(db, dialect);
}

/** Sends statements as they come, within the application's transaction if it is one. */
export function runOf(given: AnyKysely, dialect: Dialect): Run {
  const db = given.withoutPlugins();
  return (statement) => send(db, dialect, statement);
}

/** PostgreSQL, MySQL and MariaDB. */
class PooledConnection implements Connection {
  constructor(
    private readonly db: AnyKysely,
    private readonly dialect: Dialect,
  ) {}

  readonly run: Run = (statement) => retryOnConflict(() => send(this.db, this.dialect, statement), isTransient);

  atomic<T>(work: (run: Run) => Promise<T>): Promise<T> {
    // The usual REPEATABLE READ of MySQL locks the gaps between rows, too, and inserts of others run into them.
    const transaction = this.db.transaction().setIsolationLevel('read committed');
    const attempt = (): Promise<T> => transaction.execute((db) => work((statement) => send(db, this.dialect, statement)));
    return retryOnConflict(attempt, isTransient);
  }
}

/**
 * SQLite has one connection, which Kysely lends to one after the other. Drivers wait for the right to write of others within a call, and the
 * whole process with them: for another connection of the same process they would wait in vain. So those of one file take turns.
 */
class SqliteConnection implements Connection {
  #file: string | undefined;

  constructor(
    private readonly db: AnyKysely,
    private readonly dialect: Dialect,
  ) {}

  readonly run: Run = (statement) => {
    const attempt = (): Promise<Result> => send(this.db, this.dialect, statement);
    return statement.sql.startsWith('SELECT') ? retryOnConflict(attempt, isTransient) : this.#write(attempt);
  };

  atomic<T>(work: (run: Run) => Promise<T>): Promise<T> {
    return this.#write(() => this.db.connection().execute((db) => this.#transact((statement) => send(db, this.dialect, statement), work)));
  }

  /** The right to write is taken first: a transaction that has read already is not let in when another process has written since. */
  async #transact<T>(run: Run, work: (run: Run) => Promise<T>): Promise<T> {
    await run(BEGIN);
    try {
      const result = await work(run);
      await run(COMMIT);
      return result;
    } catch (error) {
      // On some errors, such as a full disk, SQLite has undone everything itself.
      await run(ROLLBACK).catch(() => undefined);
      throw error;
    }
  }

  #write<T>(attempt: () => Promise<T>): Promise<T> {
    return retryOnConflict(async () => {
      this.#file ??= await fileOf((statement) => send(this.db, this.dialect, statement));
      return inTurn(this.#file, attempt);
    }, isTransient);
  }
}

/** The file of a database; empty for one in memory, which is its connection's own. */
async function fileOf(run: Run): Promise<string> {
  const { rows } = await run({ sql: 'PRAGMA database_list', params: [] });
  const file = rows.find(({ name }) => name === 'main')?.['file'];
  return typeof file === 'string' ? file : '';
}

/** The last of those that write to a file. */
const turns = new Map<string, Promise<void>>();

function inTurn<T>(file: string, work: () => Promise<T>): Promise<T> {
  if (file === '') return work();
  const result = (turns.get(file) ?? Promise.resolve()).then(work);
  const over = (): void => {
    if (turns.get(file) === turn) turns.delete(file);
  };
  const turn = result.then(over, over);
  turns.set(file, turn);
  return result;
}

let sent = 0;

/** Made here, and not by `CompiledQuery.raw`: so nothing of Kysely is loaded, in whatever format the application has it. */
async function send(db: AnyKysely, { name }: Dialect, { sql: text, params }: Statement): Promise<Result> {
  const sql = name === 'postgres' ? numbered(text) : text;
  const { rows, numAffectedRows = 0n } = await db.executeQuery<Record<string, unknown>>({
    sql,
    parameters: name === 'mysql' ? params.map(toMysqlValue) : params,
    query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
    queryId: { queryId: `nest-visit-${++sent}` },
  });
  return { rows, affected: Number(numAffectedRows) };
}

/** `?` becomes `$1`, `$2` …, but not inside quoted names. */
function numbered(sql: string): string {
  let count = 0;
  return sql.replace(/"[^"]*"|\?/g, (match) => (match === '?' ? `$${++count}` : match));
}
