import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitLockedError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { HeldLock, RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';
import { refusalError } from '../visit/visit.writer.js';
import { SessionSaver } from './session.saver.js';
import { reasonOf } from '../errors/failure.js';

/** The duration of a lease in milliseconds. If it is not renewed, its process has died or was suspended. */
const LEASE = 30_000;
const RENEW_EVERY = LEASE / 3;
const LONGEST_PAUSE = 100;

/**
 * Exclusive access to a session: a lease in the row of the visit, renewed while the handler runs. No connection is held
 * meanwhile, so waiting requests cannot use up the pool that the one in front needs. A save says who holds the lock,
 * and a lease that has run out is never renewed, so that a process that stood still for longer cannot write over its
 * successor.
 *
 * A handler that hangs, or whose client has gone, is not waited for without an end: its lease runs out, and what it
 * still writes is refused.
 */
@Injectable()
export class SessionLock {
  private readonly logger = new Logger('Visit');
  /** The last waiting request of each visit in this process: the others queue here, and one asks the store. */
  private readonly queues = new Map<string, Promise<unknown>>();

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {}

  /**
   * Waits for exclusive access, and then loads the session again. A visit that is not stored needs none.
   *
   * @throws VisitLockedError (423) after `timeout` milliseconds; VisitEndedError, VisitKeyRetiredError (409)
   */
  async enter(context: RequestContext, timeout: number): Promise<void> {
    if (context.visit.is !== 'stored') return;
    if (context.lock) {
      context.lock.holders++;
      return;
    }
    const { id } = context.visit.record;
    const deadline = performance.now() + timeout;
    try {
      const leave = await this.queue(id, timeout);
      try {
        await this.acquire(context, deadline, timeout, leave);
      } catch (error) {
        leave();
        throw error;
      }
    } catch (error) {
      context.noteFailure(error);
      throw error;
    }
  }

  /**
   * Called when a handler no longer needs its exclusive access; the last one releases it. Later saves, such as those of
   * a filter, do without it.
   */
  leave(context: RequestContext, lock: HeldLock): Promise<void> | undefined {
    if (--lock.holders > 0) return undefined;
    if (context.lock === lock) context.lock = undefined;
    return lock.release();
  }

  /** Queues within this process. Resolves to a function that must be called at the end. */
  private async queue(id: string, timeout: number): Promise<() => void> {
    const before = this.queues.get(id);
    let leave!: () => void;
    const own = new Promise<void>((resolve) => (leave = resolve));
    const last = before ? before.then(() => own) : own;
    this.queues.set(id, last);
    void last.then(() => this.queues.get(id) === last && this.queues.delete(id));
    const abort = new AbortController();
    const late =
      before &&
      (await Promise.race([
        before.then(() => false),
        sleep(timeout, true, { signal: abort.signal }).catch(() => false),
      ]));
    abort.abort();
    if (!late) return leave;
    leave();
    throw new VisitLockedError(timeout);
  }

  private async acquire(context: RequestContext, deadline: number, timeout: number, leave: () => void): Promise<void> {
    const owner = randomBytes(16).toString('hex');
    for (let tries = 0; ; tries++) {
      const result = await this.take(context, owner);
      if (result.outcome === 'refused') throw refusalError(result.reason);
      if (result.outcome === 'locked') break;
      const left = deadline - performance.now();
      if (left <= 0) throw new VisitLockedError(timeout);
      await sleep(Math.min(left, LONGEST_PAUSE, (0.5 + Math.random()) * 5 * 2 ** Math.min(tries, 5)));
    }
    context.lock = this.hold(context, owner, leave);
    try {
      // What was loaded before may be what the one in front has changed.
      await Turn.take(context, 'exclusive access', async (turn) => {
        const mark = context.heldSession?.mark() ?? null;
        await this.saver.reload(turn);
        context.heldSession?.restore(mark);
      });
    } catch (error) {
      await context.lock.release();
      context.lock = undefined;
      throw error;
    }
  }

  /**
   * The lock has been taken: renews its lease until it is released, lost or given up.
   *
   * @param leave lets the next request of this process ask
   */
  private hold(context: RequestContext, owner: string, leave: () => void): HeldLock {
    const { id } = context.visit.record;
    const { clock, session } = this.options;
    const latest = clock.now() + session.maxExclusive;
    const letGo = (): void => {
      clearInterval(timer);
      leave();
    };
    const giveUp = (why: string): void => {
      letGo();
      this.logger.warn(
        `Exclusive access to the session of visit ${id} ends although its handler is still running: ${why}`,
      );
    };
    const timer = setInterval(() => {
      if (context.visit.record.id !== id) return; // The request has ended its visit and goes on with another one.
      if (clock.now() >= latest)
        return giveUp(`it takes longer than ${session.maxExclusive} ms (option "session.maxExclusive")`);
      if (context.exchange.hasClientGone) return giveUp('its client has gone');
      this.take(context, owner, true).then(
        ({ outcome }) => outcome !== 'locked' && giveUp('its lease was lost'),
        (error: unknown) =>
          this.logger.warn(`Could not renew the exclusive access to the session of visit ${id}: ${reasonOf(error)}`),
      );
    }, RENEW_EVERY).unref();
    const locks = this.store.facet('locks', 'unlock');
    let released: Promise<void> | undefined;
    const release = async (): Promise<void> => {
      clearInterval(timer);
      try {
        await this.store.call(() => locks.unlock(id, owner));
      } catch {
        // Logged already. The lease runs out by itself.
      } finally {
        leave();
      }
    };
    return { visitId: id, owner, holders: 1, release: () => (released ??= release()) };
  }

  private take(context: RequestContext, owner: string, renews = false) {
    const now = this.options.clock.now();
    const { record, key } = context.visit;
    const locks = this.store.facet('locks', 'lock');
    return this.store.call(() =>
      locks.lock({ id: record.id, keyHash: key.hash, now, owner, until: now + LEASE, renews }),
    );
  }
}
