import { AsyncResource } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { withDeadline } from '../store/deadline.js';
import type { Touch, VisitStore } from '../store/visit.store.js';

/** The maximum number of waiting visits; beyond it, those that have waited longest are dropped. */
const MOST_WAITING = 100_000;
/** The maximum number of visits in one call, which has its own deadline. Fewer while the store is slow. */
const MOST_AT_ONCE = 500;
/** How long shutdown waits for pending updates, in milliseconds. */
const LONGEST_CLOSE = 2000;

type Batch = ReadonlyMap<string, Touch>;

const NOTHING: Batch = new Map();

/**
 * Collects expiry updates for an interval and writes them in batches. Pending updates count as if they were written. A
 * failed write returns to the queue without replacing anything newer. Batches belong to many requests, so they run
 * outside of all request contexts, in the context in which the queue was created.
 */
export class TouchQueue {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitTouchQueue');
  /** Updates that callers wait for: they are in the next batch. */
  private readonly urgent = new Map<string, Touch>();
  private readonly queued = new Map<string, Touch>();
  /** Those to be dropped first, while the queue is full. */
  private oldest: Iterator<string, undefined> | undefined;
  /** The updates that are being written. */
  private inFlight = NOTHING;
  private timer: NodeJS.Timeout | undefined;
  /** Batches run one after the other. */
  private last: Promise<unknown> = Promise.resolve();
  /** The next batch, for all callers that wait. */
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
    if (this.queued.size > MOST_WAITING) this.dropOldest();
    if (this.closed) void this.flush();
    else this.schedule();
  }

  /**
   * A touch without which a visit could count as expired if this process were suspended or killed. Resolves when it was
   * written, or has failed and is pending. Undefined: writes have just failed, and callers do not wait.
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

  /** The pending expiry of this visit, in milliseconds since 1970. */
  waiting(id: string): number | undefined {
    return (this.queued.get(id) ?? this.urgent.get(id) ?? this.inFlight.get(id))?.expiry;
  }

  /** Called when the visit has ended or its lifetime was set: pending updates for it are discarded. */
  forget(id: string): void {
    this.queued.delete(id);
    this.urgent.delete(id);
  }

  /** Writes pending updates. Never rejects: a failure is logged and retried later. */
  flush(): Promise<void> {
    return (this.flushing ??= this.writeAll().finally(() => (this.flushing = undefined)));
  }

  /** Writes pending updates within a limited time at shutdown. Later updates are written immediately. */
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

  /** The timer is unref'ed: a pending touch does not keep the process alive. */
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

  /**
   * Continues where it has stopped: a new iterator would first pass the empty places of all that were dropped before,
   * which are as many as the queue is long.
   */
  private dropOldest(): void {
    this.oldest ??= this.queued.keys();
    this.queued.delete(this.oldest.next().value!);
  }

  private inOrder<T>(work: () => Promise<T>): Promise<T> {
    return this.scope.runInAsyncScope(() => {
      const turn = this.last.then(work);
      this.last = turn;
      return turn;
    });
  }

  /**
   * Writes one batch. Returns the number of updates; 0 if there were none, or if it has failed and they are pending
   * again.
   */
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

  /** For visits on several servers: a server that is unavailable only delays its own updates. */
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
    // An iterator that is not used retains what the map was made of before it grew.
    this.oldest = undefined;
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

/** Compares by the key first: a touch with an older key would not be written if the key has changed since. */
function isLater(one: Touch, other: Touch): boolean {
  const [key, otherKey] = [one.keyChanged ?? 0, other.keyChanged ?? 0];
  return key === otherKey ? one.expiry > other.expiry : key > otherKey;
}
