import type { DataSource } from 'typeorm';
import { Connections, type ConnectionDriver, type Held, type KnownConnection } from './connections.js';
import { driverError, type DriverError } from '../../sql/driver-error.js';
import type { SqlConnection } from '../../sql/sql.connection.js';
import type { SqlDialect } from '../../sql/sql.dialect.js';
import { runSteps, type Result, type Statement, type Step } from '../../sql/statement.js';
import { retryOnConflict } from '../../retry-on-conflict.js';

export type PreparedStatement = Statement & { readonly name: string };

/** After the second failure of a prepared statement on a connection, in milliseconds; each further one doubles it. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 3_600_000;
/** A failure so long after the one before has nothing to do with it. */
const LEAST_PEACE = 60_000;

/** A server that is reached by a pool of connections. */
export abstract class PooledConnection implements SqlConnection {
  abstract readonly dialect: SqlDialect;
  /** How transactions see each other; undefined: as the data source says. */
  protected readonly isolation: 'READ COMMITTED' | undefined;
  private readonly connections: Connections;
  private readonly isTransient = (error: unknown): boolean => this.dialect.isTransient(error);

  constructor(protected readonly dataSource: DataSource) {
    this.connections = new Connections(dataSource, this.driver(dataSource));
  }

  protected abstract driver(dataSource: DataSource): ConnectionDriver;

  /**
   * Sends a statement by the driver's own connection, prepared. Undefined: that cannot.
   *
   * @param generation other statements are other ones
   */
  protected abstract prepared(
    connection: unknown,
    statement: PreparedStatement,
    generation: number,
  ): Promise<Result> | undefined;

  /** Whether a prepared statement failed for being one. */
  protected abstract isUnprepared(error: DriverError): boolean;

  /** Nobody waits longer than this for a statement. */
  limit(milliseconds: number): void {
    this.connections.limit(milliseconds);
  }

  run(statement: Statement): Promise<Result> {
    const { sql, isSlow = false, isIdempotent = sql.startsWith('SELECT') } = statement;
    const work = { run: (held: Held) => this.send(held, statement), isIdempotent, isSlow };
    return retryOnConflict(() => this.connections.use(work), this.isTransient);
  }

  atomic(steps: readonly Step[]): Promise<Result[] | null> {
    const isSlow = steps.some((step) => typeof step === 'object' && step.isSlow);
    const work = { run: (held: Held) => this.transact(held, steps), isIdempotent: false, isSlow };
    return retryOnConflict(() => this.connections.use(work), this.isTransient);
  }

  private async send(held: Held, statement: Statement): Promise<Result> {
    const { name } = statement;
    if (name !== undefined && mayPrepare(held)) {
      const result = await this.sendPrepared(held, { ...statement, name });
      if (result) return result;
    }
    const { dialect } = this;
    const params = dialect.valuesOf(statement.params) as unknown[];
    const result = await held.queryRunner.query(dialect.textOf(statement.sql), params, true);
    return { rows: (result.records as Result['rows'] | undefined) ?? [], affected: result.affected ?? 0 };
  }

  /**
   * TypeORM prepares no statements, the drivers do; what they save is more than what the statement itself costs.
   * Undefined: it was not possible, and nothing has happened. Then the connection prepares anew, under other names:
   * after `DISCARD ALL`, or a change of a column, all is well again. Where it fails again, it is left alone for a
   * while.
   */
  private async sendPrepared(
    { queryRunner, connection, known }: Held,
    statement: PreparedStatement,
  ): Promise<Result | undefined> {
    const { logger } = this.dataSource;
    const { sql, params } = statement;
    try {
      const sent = this.prepared(connection, statement, known.unprepared?.generation ?? 0);
      if (sent) logger.logQuery(sql, [...params], queryRunner);
      return await sent;
    } catch (error) {
      if (!this.dialect.isUnmet(error)) logger.logQueryError(error as Error, sql, [...params], queryRunner);
      if (!this.isUnprepared(driverError(error))) throw error;
      noteUnprepared(known);
      return undefined;
    }
  }

  private async transact(held: Held, steps: readonly Step[]): Promise<Result[] | null> {
    const { queryRunner } = held;
    await queryRunner.startTransaction(this.isolation);
    try {
      const results = await runSteps(steps, (statement) => this.send(held, statement));
      if (results) await queryRunner.commitTransaction();
      else await queryRunner.rollbackTransaction();
      return results;
    } catch (error) {
      // Fails too when the connection is gone; the first error is the one that tells why.
      await queryRunner.rollbackTransaction().catch(() => undefined);
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

/** How long a connection sends plain statements after so many failures in a row. */
function pauseAfter(failures: number): number {
  return failures < 2 ? 0 : Math.min(FIRST_PAUSE * 2 ** (failures - 2), LONGEST_PAUSE);
}
