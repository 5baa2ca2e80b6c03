import { AsyncResource } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { withDeadline } from '../store/deadline.js';
import type { Touch, VisitStore } from '../store/visit.store.js';

/** More than this many visits never wait; the ones that have waited longest are given up first. */
const MOST_WAITING = 100_000;
/** Visits written by one call, which has a deadline of its own. Fewer while the store is too slow for that. */
const MOST_AT_ONCE = 500;
/** How long the end of the application waits for what is unwritten, in milliseconds. */
const LONGEST_CLOSE = 2000;

type Batch = ReadonlyMap<string, Touch>;

const NOTHING: Batch = new Map();

/**
 * Gathers "this visit is still in use" for an interval and writes it batch by batch. What waits counts as if it
 * were written. A failed write goes back into the queue without overwriting anything newer.
 *
 * What is written is many requests', so it is written in the asynchronous context of none of them, but in that in which
 * the queue was made.
 */
export class TouchQueue {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitTouchQueue');
  /** What somebody waits for: it is in the next batch. */
  private readonly urgent = new Map<string, Touch>();
  private readonly queued = new Map<string, Touch>();
  /** What a write under way carries. */
  private inFlight = NOTHING;
  private timer: NodeJS.Timeout | undefined;
  /** Batches follow one another. */
  private last: Promise<unknown> = Promise.resolve();
  /** The batch that is next, for all who are in a hurry. */
  private next: Promise<void> | undefined;
  private flushing: Promise<void> | undefined;
  private most = MOST_AT_ONCE;
  private failing = false;
  private closed = false;

  constructor(
    private readonly store: Pick<VisitStore, 'touch'> & Partial<Pick<VisitStore, 'server'>>,
    private readonly interval: number,
    private readonly storeTimeout: number,
  ) {}

  add(touch: Touch): void {
    const { id } = touch;
    const other = this.queued.get(id) ?? this.urgent.get(id);
    if (other && !isLater(touch, other)) return;
    this.queued.set(id, touch);
    if (this.queued.size > MOST_WAITING) this.queued.delete(this.queued.keys().next().value!);
    if (this.closed) void this.flush();
    else this.schedule();
  }

  /**
   * A touch without which a visit could be taken for expired, should this process stand still or end. Resolves when it
   * is written, or has failed and waits. Undefined: writes have just failed, and nobody waits for another one.
   */
  addNow(touch: Touch): Promise<void> | undefined {
    if (this.failing || this.closed) {
      this.add(touch);
      return undefined;
    }
    this.queued.delete(touch.id);
    this.urgent.set(touch.id, touch);
    return (this.next ??= this.inOrder(async () => {
      this.next = undefined;
      await this.write();
    }));
  }

  /** The expiry that waits to be written for this visit, in milliseconds since 1970. */
  waiting(id: string): number | undefined {
    return (this.queued.get(id) ?? this.urgent.get(id) ?? this.inFlight.get(id))?.expiry;
  }

  /** The visit has ended, or has got another life: what waits for it is void. */
  forget(id: string): void {
    this.queued.delete(id);
    this.urgent.delete(id);
  }

  /** Writes what waits. Never rejects: a failure is logged and tried again later. */
  flush(): Promise<void> {
    return (this.flushing ??= this.writeAll().finally(() => (this.flushing = undefined)));
  }

  /** Writes what waits, for a limited time, and from now on everything at once: the application is shutting down. */
  async close(): Promise<void> {
    const isAgain = this.closed;
    this.closed = true;
    if (isAgain && this.queued.size + this.urgent.size === 0) return;
    await withDeadline(this.flush(), Math.min(this.storeTimeout, LONGEST_CLOSE)).catch(() => {});
    const lost = this.queued.size + this.urgent.size + this.inFlight.size;
    if (lost > 0)
      this.logger.warn(
        `${lost} expiry updates could not be written before shutdown: these visits may expire too early`,
      );
    this.queued.clear();
    this.urgent.clear();
  }

  /** unref: a waiting touch does not keep a process alive that has nothing else to do. */
  private schedule(): void {
    this.timer ??= this.scope.runInAsyncScope(() =>
      setTimeout(() => {
        // Before the flush, which may find another one under way: that one sets the timer again for what it leaves.
        this.timer = undefined;
        void this.flush();
      }, this.interval).unref(),
    );
  }

  private async writeAll(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    // As many as wait now: what comes meanwhile has its own time.
    for (let left = this.queued.size + this.urgent.size; left > 0;) {
      const written = await this.inOrder(() => this.write());
      if (written === 0) break;
      left -= written;
    }
    if (this.queued.size > 0 && !this.closed) this.schedule();
  }

  private inOrder<T>(work: () => Promise<T>): Promise<T> {
    return this.scope.runInAsyncScope(() => {
      const turn = this.last.then(work);
      this.last = turn;
      return turn;
    });
  }

  /** Writes one batch. How many that were; 0 if there were none, or it has failed and waits again. */
  private async write(): Promise<number> {
    const batch = this.take();
    if (batch.size === 0) return 0;
    this.inFlight = batch;
    if (this.store.server?.isDivided) return this.writeEach([...batch.values()]);
    let isLate = true;
    const writing = (async () => this.store.touch([...batch.values()]))().finally(() => (isLate = false));
    try {
      await withDeadline(writing, this.storeTimeout);
      this.noteSuccess();
      this.most = Math.min(MOST_AT_ONCE, this.most * 2);
      return batch.size;
    } catch (error) {
      this.noteFailure(error);
      this.putBack(batch.values());
      if (isLate) {
        this.most = Math.max(1, batch.size >> 1);
        // It may be written after all, and is not written again then.
        writing.then(
          () => this.forgetWritten(batch),
          () => {},
        );
      }
      return 0;
    } finally {
      this.inFlight = NOTHING;
    }
  }

  /** Where visits lie on several servers: one that is away keeps back what it is to get, and nothing else. */
  private async writeEach(touches: readonly Touch[]): Promise<number> {
    const results = await Promise.allSettled(
      touches.map((touch) => withDeadline(this.store.touch([touch]), this.storeTimeout)),
    );
    const failed = touches.filter((_, index) => results[index]!.status === 'rejected');
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) this.noteFailure(failure.reason);
    else this.noteSuccess();
    this.putBack(failed);
    return touches.length - failed.length;
  }

  private noteSuccess(): void {
    if (this.failing) this.logger.log('Expiry updates can be written again');
    this.failing = false;
  }

  private noteFailure(error: unknown): void {
    if (!this.failing) this.logger.warn(`Expiry updates could not be written and will be retried: ${reasonOf(error)}`);
    this.failing = true;
  }

  private take(): Batch {
    const batch = new Map<string, Touch>();
    for (const from of [this.urgent, this.queued]) {
      for (const [id, touch] of from) {
        if (batch.size === this.most) break;
        from.delete(id);
        // Both, where a later one has come while the urgent one waited.
        const other = batch.get(id);
        if (!other || isLater(touch, other)) batch.set(id, touch);
      }
    }
    return batch;
  }

  private putBack(touches: Iterable<Touch>): void {
    this.inFlight = NOTHING;
    for (const touch of touches) {
      const newer = this.queued.get(touch.id);
      if (!newer || isLater(touch, newer)) this.queued.set(touch.id, touch);
    }
    if (this.queued.size > 0 && !this.closed) this.schedule();
  }

  private forgetWritten(batch: Batch): void {
    for (const [id, touch] of batch) if (this.queued.get(id) === touch) this.queued.delete(id);
  }
}

/** One that knows an older key would not be written, where it has been changed since. */
function isLater(one: Touch, other: Touch): boolean {
  const [key, otherKey] = [one.keyChanged ?? 0, other.keyChanged ?? 0];
  return key === otherKey ? one.expiry > other.expiry : key > otherKey;
}
