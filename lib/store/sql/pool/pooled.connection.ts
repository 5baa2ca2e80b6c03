import { retryOnConflict } from '../../retry-on-conflict.js';
import type { SqlConnection } from '../sql.connection.js';
import type { SqlDialect } from '../sql.dialect.js';
import { runSteps, type Result, type Statement, type Step } from '../statement.js';
import { Connections, type Held, type KnownConnection, type Lender, type PoolDriver } from './connections.js';

/**
 * The pause after the second failure of a prepared statement on a connection, in milliseconds; each further failure
 * doubles it.
 */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 3_600_000;
/** A failure this long after the previous one is unrelated to it, in milliseconds. */
const LEAST_PEACE = 60_000;

/** A server that is reached through a pool of connections. */
export class PooledConnection<R> implements SqlConnection {
  private readonly connections: Connections<R>;
  private readonly isTransient = (error: unknown): boolean => this.dialect.isTransient(error);

  constructor(
    readonly dialect: SqlDialect,
    private readonly driver: PoolDriver,
    private readonly lender: Lender<R>,
  ) {
    this.connections = new Connections(lender, driver);
  }

  /** Sets how long callers wait for a statement, in milliseconds. */
  limit(milliseconds: number): void {
    this.connections.limit(milliseconds);
  }

  run(statement: Statement): Promise<Result> {
    const { sql, isSlow = false, isIdempotent = sql.startsWith('SELECT') } = statement;
    const work = { run: (held: Held<R>) => this.send(held, statement), isIdempotent, isSlow };
    return retryOnConflict(() => this.connections.use(work), this.isTransient);
  }

  atomic(steps: readonly Step[]): Promise<Result[] | null> {
    const isSlow = steps.some((step) => typeof step === 'object' && step.isSlow);
    const work = { run: (held: Held<R>) => this.transact(held, steps), isIdempotent: false, isSlow };
    return retryOnConflict(() => this.connections.use(work), this.isTransient);
  }

  /** Prepared statements go through the driver, because libraries of SQL do not prepare statements. */
  private send(held: Held<R>, statement: Statement): Promise<Result> {
    const { connection, known } = held;
    const sent = mayPrepare(held)
      ? this.driver.prepared(connection, statement, known.unprepared?.generation ?? 0)
      : undefined;
    return sent ? this.resultOf(sent, held, statement) : this.lender.send(held, statement);
  }

  /**
   * The result of a prepared statement. If it was not possible to prepare it, nothing has happened, and it is sent as it
   * is. The connection then prepares again, under other names: after `DISCARD ALL` or a change of a column, this works.
   * If it fails again, plain statements are used for a while.
   */
  private async resultOf(sent: Promise<Result>, held: Held<R>, statement: Statement): Promise<Result> {
    const { driver, lender } = this;
    try {
      lender.log?.(held, statement);
      return await sent;
    } catch (error) {
      if (!this.dialect.isUnmet(error)) lender.logError?.(held, statement, error as Error);
      if (!driver.isUnprepared(error)) throw lender.errorOf ? lender.errorOf(error) : error;
      noteUnprepared(held.known);
    }
    return lender.send(held, statement);
  }

  private async transact(held: Held<R>, steps: readonly Step[]): Promise<Result[] | null> {
    const { lender } = this;
    await lender.begin(held);
    try {
      const results = await runSteps(steps, (statement) => this.send(held, statement));
      if (results) await lender.commit(held);
      else await lender.rollback(held);
      return results;
    } catch (error) {
      // This also fails if the connection is broken; the first error is the cause.
      await lender.rollback(held).catch(() => undefined);
      throw error;
    }
  }
}

function mayPrepare({ known: { unprepared }, since }: Held): boolean {
  return !unprepared || since > unprepared.at + pauseAfter(unprepared.inRow);
}

function noteUnprepared(known: KnownConnection): void {
  const at = performance.now();
  const { generation = 0, inRow = 0, at: before = at } = known.unprepared ?? {};
  const isInRow = at - before <= 2 * pauseAfter(inRow) + LEAST_PEACE;
  known.unprepared = { generation: generation + 1, inRow: isInRow ? inRow + 1 : 1, at };
}

/** How long a connection sends plain statements after this many failures in a row. */
function pauseAfter(failures: number): number {
  return failures < 2 ? 0 : Math.min(FIRST_PAUSE * 2 ** (failures - 2), LONGEST_PAUSE);
}
