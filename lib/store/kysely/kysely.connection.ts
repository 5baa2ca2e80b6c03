import type { Kysely } from 'kysely';
import { retryOnConflict } from '../retry-on-conflict.js';
import { withoutValues } from '../sql/driver-error.js';
import type { SqlConnection } from '../sql/sql.connection.js';
import type { SqlDialect } from '../sql/sql.dialect.js';
import { runSteps, type Result, type Statement, type Step } from '../sql/statement.js';

/** Runs one statement. */
export type Run = (statement: Statement) => Promise<Result>;

/** The application's instance, of whatever tables. */
// oxlint-disable-next-line typescript/no-explicit-any -- Kysely is invariant in its tables: `unknown` takes no application's instance
export type AnyKysely = Kysely<any>;

export function connectionOf(given: AnyKysely, dialect: SqlDialect): SqlConnection {
  // Plugins are for the application's own queries: they would rename columns of results.
  const db = given.withoutPlugins();
  return dialect.family === 'sqlite' ? new SqliteConnection(db, dialect) : new PooledConnection(db, dialect);
}

/** Sends statements as they come, within the application's transaction if it is one. */
export function runOf(given: AnyKysely, dialect: SqlDialect): Run {
  const db = given.withoutPlugins();
  return (statement) => send(db, dialect, statement);
}

/** Thrown within a transaction, so that it is undone. */
const UNDONE = new Error('a statement of a transaction has not changed what it must');

/** PostgreSQL, MySQL and MariaDB. */
class PooledConnection implements SqlConnection {
  readonly #isTransient = (error: unknown): boolean => this.dialect.isTransient(error);

  constructor(
    private readonly db: AnyKysely,
    readonly dialect: SqlDialect,
  ) {}

  run(statement: Statement): Promise<Result> {
    return retryOnConflict(() => send(this.db, this.dialect, statement), this.#isTransient);
  }

  async atomic(steps: readonly Step[]): Promise<Result[] | null> {
    // The usual REPEATABLE READ of MySQL locks the gaps between rows, too, and inserts of others run into them.
    const transaction = this.db.transaction().setIsolationLevel('read committed');
    const attempt = (): Promise<Result[]> =>
      transaction.execute(async (db) => {
        const results = await runSteps(steps, (statement) => send(db, this.dialect, statement));
        if (!results) throw UNDONE;
        return results;
      });
    try {
      return await retryOnConflict(attempt, this.#isTransient);
    } catch (error) {
      if (error === UNDONE) return null;
      // Of a statement, or of one that begins or ends the transaction.
      throw withoutValues(error);
    }
  }
}

const BEGIN: Statement = { sql: 'BEGIN IMMEDIATE', params: [] };
const COMMIT: Statement = { sql: 'COMMIT', params: [] };
const ROLLBACK: Statement = { sql: 'ROLLBACK', params: [] };

/**
 * SQLite has one connection, which Kysely lends to one after the other. Drivers wait for the right to write of others
 * within a call, and the whole process with them: for another connection of the same process they would wait in vain.
 * So those of one file take turns.
 */
class SqliteConnection implements SqlConnection {
  readonly #isTransient = (error: unknown): boolean => this.dialect.isTransient(error);
  #file: string | undefined;

  constructor(
    private readonly db: AnyKysely,
    readonly dialect: SqlDialect,
  ) {}

  run(statement: Statement): Promise<Result> {
    const attempt = (): Promise<Result> => send(this.db, this.dialect, statement);
    return statement.sql.startsWith('SELECT') ? retryOnConflict(attempt, this.#isTransient) : this.#write(attempt);
  }

  atomic(steps: readonly Step[]): Promise<Result[] | null> {
    return this.#write(() =>
      this.db.connection().execute((db) => this.#transact((statement) => send(db, this.dialect, statement), steps)),
    );
  }

  /**
   * The right to write is taken first: a transaction that has read already is not let in when another process has
   * written since.
   */
  async #transact(run: Run, steps: readonly Step[]): Promise<Result[] | null> {
    await run(BEGIN);
    try {
      const results = await runSteps(steps, run);
      await run(results ? COMMIT : ROLLBACK);
      return results;
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
    }, this.#isTransient);
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

/**
 * Made here, and not by `CompiledQuery.raw`: so nothing of Kysely is loaded, in whatever format the application has it.
 */
async function send(db: AnyKysely, dialect: SqlDialect, { sql: text, params }: Statement): Promise<Result> {
  const sql = dialect.textOf(text);
  try {
    const { rows, numAffectedRows = 0n } = await db.executeQuery<Record<string, unknown>>({
      sql,
      parameters: dialect.valuesOf(params),
      query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
      queryId: { queryId: `nest-visit-${++sent}` },
    });
    return { rows, affected: Number(numAffectedRows) };
  } catch (error) {
    throw withoutValues(error);
  }
}
