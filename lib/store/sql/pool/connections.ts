import { Timeouts } from '../../timeouts.js';
import type { Result, Statement } from '../statement.js';

/**
 * A statement that a request waits for ends within `storeTimeout`; any other statement may take this many times as
 * long.
 */
const LONG = 10;

/** How often connections are replaced while every server is read-only, in milliseconds. */
const LEAST_BETWEEN = 1000;

/** The maximum number of connections that are closed in a row to find a good one. */
const MOST_SUSPECTS = 100;

/**
 * What an error means for its connection.
 *
 * - `fine`: the server has answered.
 * - `useless`: nothing was executed, and nothing ever will be: the server has become read-only, or has left its
 *   cluster.
 * - `unsent`: the connection had closed before anything was sent.
 * - `lost`: the connection has closed, and it is unknown whether the work was done.
 */
export type Fate = 'fine' | 'useless' | 'unsent' | 'lost';

/** The state of a connection. Instants are in terms of `performance.now()`. */
export interface KnownConnection {
  /** Minus infinity if it was opened before the pool was watched. */
  readonly opened: number;
  /** When it last answered. */
  answered: number;
  /**
   * How often prepared statements failed because they were prepared: in total, in a row, and when the last time was.
   */
  unprepared?: { readonly generation: number; readonly inRow: number; readonly at: number };
}

/** A connection in use. @typeParam R how the lender identifies it */
export interface Held<R = unknown> {
  readonly runner: R;
  /** The driver's. */
  readonly connection: unknown;
  readonly known: KnownConnection;
  readonly since: number;
}

/** Work that waits for a connection or has one. */
interface Lease<R> {
  readonly began: number;
  readonly fail: (error: Error) => void;
  state: { readonly is: 'using'; readonly held: Held<R> } | typeof WAITING | typeof OVER;
}

const WAITING = { is: 'waiting' } as const;
const OVER = { is: 'over' } as const;

/** A pool of the driver's. */
export interface Pool {
  on(event: string, listener: (connection: object) => void): unknown;
}

/** The differences between drivers, for any lender. */
export interface PoolDriver {
  /** The event that a pool emits when it has opened a connection. */
  readonly opened: string;
  /** Called once for each pool, before its first statement. */
  prepare?(pool: Pool): void;
  /** Limits how long an attempt of this pool to open a connection may take. May be called more than once. */
  limitConnects(pool: Pool, milliseconds: number): void;
  /**
   * Closes a connection without waiting for anything.
   *
   * @param abandon the lender's `abandon`
   */
  close(connection: unknown, abandon: () => void): void;
  fateOf(error: unknown): Fate;

  /**
   * Sends a prepared statement through the driver's own connection. Undefined: this one is not prepared, or it cannot.
   *
   * @param generation statements of different generations have different names
   */
  prepared(connection: unknown, statement: Statement, generation: number): Promise<Result> | undefined;

  /** Whether a statement failed because it was prepared. */
  isUnprepared(error: unknown): boolean;
}

/**
 * Lends connections of pools: a library of SQL, or the driver itself.
 *
 * @typeParam R how it identifies a connection
 */
export interface Lender<R = unknown> {
  /** The pools whose connections can be watched. */
  pools(): readonly Pool[];
  /** Creates the object that provides a connection. */
  runner(): R;
  /** Returns the driver's connection. */
  connect(runner: R): Promise<unknown>;
  /** The connection, as in the events of its pool. */
  rawOf(runner: R, connection: unknown): object;
  release(runner: R, connection: unknown): Promise<void> | void;
  /** Makes the pool forget this connection, which is closed. */
  abandon(runner: R, connection: unknown, error: Error): void;
  /** Sends a statement without preparing it. */
  send(held: Held<R>, statement: Statement): Promise<Result>;
  begin(held: Held<R>): Promise<unknown>;
  commit(held: Held<R>): Promise<unknown>;
  rollback(held: Held<R>): Promise<unknown>;
  /** Reports a prepared statement to the log of the application. */
  log?(held: Held<R>, statement: Statement): void;
  logError?(held: Held<R>, statement: Statement, error: Error): void;
  /** Converts an error of the driver. If not set: it is thrown unchanged. */
  errorOf?(error: unknown): unknown;
}

/** Keyed by the driver's connection. Several stores may share a pool, and share what they learn. */
const knownConnections = new WeakMap<object, KnownConnection>();
const watchedPools = new WeakSet<Pool>();

export interface Work<R, T> {
  readonly run: (held: Held<R>) => Promise<T>;
  /** Whether it may be executed twice. */
  readonly isIdempotent: boolean;
  /** Whether it may take longer, because no request waits for it. */
  readonly isSlow: boolean;
}

/**
 * The connections of pools, as far as the store uses them. A broken connection is closed instead of being lent again.
 * Otherwise, a failover, or a firewall that drops connections, would fill the pool with broken connections until the
 * kernel gives them up after a quarter of an hour. After an error, other connections become suspect, and are closed
 * before their next use:
 *
 * - After a connection did not answer in time, or broke: those that have not answered since.
 * - After a connection has become read-only: all older ones, because the name of the server may now point to another
 *   server.
 */
export class Connections<R> {
  private usual: Timeouts<Lease<R>> | undefined;
  private slow: Timeouts<Lease<R>> | undefined;
  private longestConnect: number | undefined;
  /** Connections that were opened before this are suspect. */
  private openedSince = -Infinity;
  /** Connections that have not answered since this are suspect. */
  private answeredSince = -Infinity;

  constructor(
    private readonly lender: Lender<R>,
    private readonly driver: PoolDriver,
  ) {
    this.watch();
  }

  /** Sets the deadline: overdue work fails, and its connection is closed. */
  limit(milliseconds: number): void {
    this.usual = new Timeouts<Lease<R>>(milliseconds, (lease) => this.giveUp(lease, milliseconds));
    this.slow = new Timeouts<Lease<R>>(milliseconds * LONG, (lease) => this.giveUp(lease, milliseconds * LONG));
    this.longestConnect = milliseconds;
    for (const pool of this.lender.pools()) this.driver.limitConnects(pool, milliseconds);
  }

  /**
   * Runs work with a connection. It is repeated once with another connection if it was certainly not executed, or if
   * its connection closed and it may be executed twice.
   */
  use<T>(work: Work<R, T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const lease: Lease<R> = { began: performance.now(), fail: reject, state: WAITING };
      const timeouts = work.isSlow ? this.slow : this.usual;
      timeouts?.add(lease);
      this.serve(lease, work).then(
        (result) => {
          timeouts?.delete(lease);
          resolve(result);
        },
        (error: unknown) => {
          timeouts?.delete(lease);
          reject(error);
        },
      );
    });
  }

  private async serve<T>(lease: Lease<R>, work: Work<R, T>): Promise<T> {
    try {
      return await this.attempt(lease, work);
    } catch (error) {
      if (isOver(lease)) throw error;
      const fate = lease.state.is === 'waiting' ? 'unsent' : this.driver.fateOf(error);
      if (fate === 'fine' || (fate === 'lost' && !work.isIdempotent)) throw error;
      lease.state = WAITING;
      return this.attempt(lease, work);
    }
  }

  private async attempt<T>(lease: Lease<R>, work: Work<R, T>): Promise<T> {
    const held = await this.acquire(lease);
    lease.state = { is: 'using', held };
    try {
      const result = await work.run(held);
      if (!isOver(lease)) await this.release(held);
      return result;
    } catch (error) {
      if (!isOver(lease)) await this.judge(held, error);
      throw error;
    }
  }

  /** Returns a connection that is not suspect. */
  private async acquire(lease: Lease<R>): Promise<Held<R>> {
    const { lender } = this;
    for (let suspects = 0; ; suspects++) {
      const runner = lender.runner();
      const connection = await lender.connect(runner);
      // The caller no longer waits, so nothing is sent.
      if (isOver(lease)) {
        await lender.release(runner, connection);
        throw new Error('no connection was available in time');
      }
      const raw = lender.rawOf(runner, connection);
      const known = knownConnections.get(raw) ?? this.meet(raw);
      const isSuspect = known.opened < this.openedSince || known.answered < this.answeredSince;
      if (!isSuspect || suspects === MOST_SUSPECTS) return { runner, connection, known, since: performance.now() };
      this.discard({ runner, connection }, new Error('the connection may be dead'));
    }
  }

  private async release({ runner, connection, known }: Held<R>): Promise<void> {
    known.answered = performance.now();
    await this.lender.release(runner, connection);
  }

  /** Decides what to do with a connection after an error. */
  private async judge(held: Held<R>, error: unknown): Promise<void> {
    const fate = this.driver.fateOf(error);
    if (fate === 'fine') {
      await this.release(held);
      return;
    }
    const now = performance.now();
    if (fate === 'useless' && now < this.openedSince + LEAST_BETWEEN && held.known.opened >= this.openedSince) {
      await this.release(held);
      return;
    }
    if (fate === 'useless') this.openedSince = now;
    else this.answeredSince = Math.max(this.answeredSince, held.since);
    this.discard(held, error as Error);
  }

  private discard({ runner, connection }: Pick<Held<R>, 'runner' | 'connection'>, error: Error): void {
    this.driver.close(connection, () => this.lender.abandon(runner, connection, error));
  }

  private giveUp(lease: Lease<R>, milliseconds: number): void {
    const { state } = lease;
    lease.state = OVER;
    const error = new Error(
      state.is === 'waiting'
        ? `no connection of the pool became free within ${milliseconds} ms: code that holds a connection, such as ` +
            'a transaction, must not wait for visits'
        : `the database did not answer within ${milliseconds} ms`,
    );
    lease.fail(error);
    if (state.is !== 'using') return;
    this.answeredSince = Math.max(this.answeredSince, state.held.since);
    this.discard(state.held, error);
  }

  /** A connection without an event: from a pool that existed before, or whose connections cannot be watched. */
  private meet(connection: object): KnownConnection {
    const opened = this.watch() ? -Infinity : performance.now();
    const known = { opened, answered: opened };
    knownConnections.set(connection, known);
    return known;
  }

  /**
   * Watches the pools. Returns whether all of them were already watched: a data source may have been closed and
   * reopened.
   */
  private watch(): boolean {
    const { driver } = this;
    const pools = this.lender.pools();
    const others = pools.filter((pool) => !watchedPools.has(pool));
    for (const pool of others) {
      watchedPools.add(pool);
      driver.prepare?.(pool);
      if (this.longestConnect !== undefined) driver.limitConnects(pool, this.longestConnect);
      pool.on(driver.opened, (connection) => {
        const now = performance.now();
        knownConnections.set(connection, { opened: now, answered: now });
      });
    }
    return pools.length > 0 && others.length === 0;
  }
}

/** A function, because it changes while work is awaited. */
function isOver({ state }: Lease<unknown>): boolean {
  return state.is === 'over';
}
