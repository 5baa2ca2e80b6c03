import type { DataSource, QueryRunner } from 'typeorm';
import { Timeouts } from '../../timeouts.js';

/**
 * A statement that others wait for ends within `storeTimeout`; what nobody waits for may take so many times as long.
 */
const LONG = 10;

/** How often connections are opened anew while the server, whichever it is, can only be read; in milliseconds. */
const LEAST_BETWEEN = 1000;

/** More than this many connections are not closed in a row to find a good one. */
const MOST_SUSPECTS = 100;

/**
 * What an error says of the connection that it came by.
 *
 * - `fine`: the server has answered.
 * - `useless`: it has done nothing, and never will here: it can only be read by now, or has left its cluster.
 * - `unsent`: the connection had ended before anything was sent.
 * - `lost`: it has ended, and nobody knows whether the work was done.
 */
export type Fate = 'fine' | 'useless' | 'unsent' | 'lost';

/** What is known of a connection. Instants are those of `performance.now()`. */
export interface KnownConnection {
  /** Minus infinity, if it was there before anybody looked. */
  readonly opened: number;
  /** When it last answered. */
  answered: number;
  /** How often prepared statements failed for being prepared: in all, in a row, the last time when. */
  unprepared?: { readonly generation: number; readonly inRow: number; readonly at: number };
}

/** A connection in use. */
export interface Held {
  readonly queryRunner: QueryRunner;
  /** The driver's. */
  readonly connection: unknown;
  readonly known: KnownConnection;
  readonly since: number;
}

/** Work that waits for a connection, or has it. */
interface Lease {
  readonly began: number;
  readonly fail: (error: Error) => void;
  state: { readonly is: 'waiting' } | { readonly is: 'using'; readonly held: Held } | { readonly is: 'over' };
}

const WAITING: Lease['state'] = { is: 'waiting' };
const OVER: Lease['state'] = { is: 'over' };

/** A pool of the driver's. */
export interface Pool {
  on(event: string, listener: (connection: object) => void): unknown;
}

/** What differs from driver to driver. */
export interface ConnectionDriver<P extends Pool = Pool> {
  /** The event by which a pool tells of a connection that it has opened. */
  readonly opened: string;
  /** Those whose connections can be watched. */
  pools(): readonly P[];
  /** No attempt of this pool to open a connection takes longer. May be said more than once. */
  limitConnects(pool: P, milliseconds: number): void;
  /** Closes a connection for good, without waiting for anything, and releases its query runner. */
  discard(queryRunner: QueryRunner, connection: unknown, error: Error): void;
  fateOf(error: unknown): Fate;
}

/** By the driver's connection. Several stores may share a pool, and learn from each other. */
const knownConnections = new WeakMap<object, KnownConnection>();
const watchedPools = new WeakSet<Pool>();

export interface Work<T> {
  readonly run: (held: Held) => Promise<T>;
  /** Whether it may be done twice. */
  readonly isIdempotent: boolean;
  /** Whether nobody waits for it: it may take longer. */
  readonly isSlow: boolean;
}

/**
 * The connections of a data source, as far as the store uses them. One that has led nowhere is closed and not lent on:
 * else the pool fills with those that a failover, or a firewall that forgets, has left behind, until the kernel gives
 * them up after a quarter of an hour. What went wrong on one throws suspicion on others, which are closed when their
 * turn comes, before they are used:
 *
 * - After one that did not answer in time, or broke, those that have not answered since.
 * - After one that can only be read, all that are older: the name of the server may lead to another one by now.
 */
export class Connections {
  private usual: Timeouts<Lease> | undefined;
  private slow: Timeouts<Lease> | undefined;
  private longestConnect: number | undefined;
  /** Those that were opened before are suspect. */
  private openedSince = -Infinity;
  /** Those that have not answered since are suspect. */
  private answeredSince = -Infinity;

  constructor(
    private readonly dataSource: DataSource,
    private readonly driver: ConnectionDriver,
  ) {
    this.watch();
  }

  /** From now on work fails that takes longer, and its connection is closed. */
  limit(milliseconds: number): void {
    this.usual = new Timeouts<Lease>(milliseconds, (lease) => this.giveUp(lease, milliseconds));
    this.slow = new Timeouts<Lease>(milliseconds * LONG, (lease) => this.giveUp(lease, milliseconds * LONG));
    this.longestConnect = milliseconds;
    for (const pool of this.driver.pools()) this.driver.limitConnects(pool, milliseconds);
  }

  /**
   * Works with a connection. What surely was not done is done once more with another one, and so is what may be done
   * twice when its connection has ended.
   */
  use<T>(work: Work<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const lease: Lease = { began: performance.now(), fail: reject, state: WAITING };
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

  private async serve<T>(lease: Lease, work: Work<T>): Promise<T> {
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

  private async attempt<T>(lease: Lease, work: Work<T>): Promise<T> {
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

  /** A connection that is not suspect. */
  private async acquire(lease: Lease): Promise<Held> {
    for (let suspects = 0; ; suspects++) {
      const queryRunner = this.dataSource.createQueryRunner();
      const connection: unknown = await queryRunner.connect();
      // Nobody waits any more. Whatever was to be sent is not.
      if (isOver(lease)) {
        await queryRunner.release();
        throw new Error('there was no connection in time');
      }
      const raw =
        (queryRunner as unknown as { databaseConnection?: object }).databaseConnection ?? (connection as object);
      const known = knownConnections.get(raw) ?? this.meet(raw);
      const isSuspect = known.opened < this.openedSince || known.answered < this.answeredSince;
      if (!isSuspect || suspects === MOST_SUSPECTS) return { queryRunner, connection, known, since: performance.now() };
      this.driver.discard(queryRunner, connection, new Error('the connection may be dead'));
    }
  }

  private async release({ queryRunner, known }: Held): Promise<void> {
    known.answered = performance.now();
    await queryRunner.release();
  }

  /** What is to become of a connection by which an error came. */
  private async judge(held: Held, error: unknown): Promise<void> {
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
    this.driver.discard(held.queryRunner, held.connection, error as Error);
  }

  private giveUp(lease: Lease, milliseconds: number): void {
    const { state } = lease;
    lease.state = OVER;
    const error = new Error(
      state.is === 'waiting'
        ? `no connection of the pool became free within ${milliseconds} ms: what holds one, such as a transaction, ` +
            'must not wait for visits'
        : `the database has not answered within ${milliseconds} ms`,
    );
    lease.fail(error);
    if (state.is !== 'using') return;
    this.answeredSince = Math.max(this.answeredSince, state.held.since);
    this.driver.discard(state.held.queryRunner, state.held.connection, error);
  }

  /** A connection that nobody has told of: of a pool that was there before, or whose connections cannot be watched. */
  private meet(connection: object): KnownConnection {
    const opened = this.watch() ? -Infinity : performance.now();
    const known = { opened, answered: opened };
    knownConnections.set(connection, known);
    return known;
  }

  /**
   * Watches the pools. Whether all of them have been watched before: a data source may have been closed and opened
   * anew.
   */
  private watch(): boolean {
    const { driver } = this;
    const pools = driver.pools();
    const others = pools.filter((pool) => !watchedPools.has(pool));
    for (const pool of others) {
      watchedPools.add(pool);
      if (this.longestConnect !== undefined) driver.limitConnects(pool, this.longestConnect);
      pool.on(driver.opened, (connection) => {
        const now = performance.now();
        knownConnections.set(connection, { opened: now, answered: now });
      });
    }
    return pools.length > 0 && others.length === 0;
  }
}

/** A function, because work that is waited for changes it. */
function isOver({ state }: Lease): boolean {
  return state.is === 'over';
}
