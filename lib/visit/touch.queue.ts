import { AsyncResource } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { withDeadline } from '../store/deadline.js';
import type { Touch, VisitStore } from '../store/visit.store.js';
import { reasonOf } from '../errors/failure.js';

/** More than this many visits never wait; the ones that have waited longest are given up first. */
const MOST_WAITING = 100_000;

/**
 * Gathers "this visit is still in use" for an interval and writes it in one go (R26, B33). What waits counts as if it
 * were written (R27, B20). A failed write goes back into the queue without overwriting anything newer (R28, B21).
 *
 * What is written is many requests', so it is written in the asynchronous context of none of them, but in that in which the queue was made.
 */
export class TouchQueue {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitTouchQueue');
  private queued = new Map<string, Touch>();
  /** What a write under way carries. */
  private flying = new Map<string, Touch>();
  private timer: NodeJS.Timeout | undefined;
  private flushing: Promise<void> | undefined;
  private failing = false;
  private closed = false;

  constructor(
    private readonly store: Pick<VisitStore, 'touch'>,
    private readonly interval: number,
    private readonly storeTimeout: number,
  ) {}

  add(touch: Touch): void {
    const queued = this.queued.get(touch.id);
    // One that knows an older key would not be written, where it has been changed since.
    if (queued && (queued.keyChanged ?? 0) > (touch.keyChanged ?? 0)) return;
    if (queued && queued.keyChanged === touch.keyChanged && queued.expiry >= touch.expiry) return;
    this.queued.set(touch.id, touch);
    if (this.queued.size > MOST_WAITING) this.queued.delete(this.queued.keys().next().value!);
    if (this.closed) {
      void this.flush();
      return;
    }
    // unref: a waiting touch does not keep a process alive that has nothing else to do (R29, B39).
    this.timer ??= this.scope.runInAsyncScope(() => setTimeout(() => void this.flush(), this.interval).unref());
  }

  /** The expiry that waits to be written for this visit, in milliseconds since 1970. */
  waiting(id: string): number | undefined {
    return (this.queued.get(id) ?? this.flying.get(id))?.expiry;
  }

  /** The visit has ended, or has got another life: what waits for it is void. */
  forget(id: string): void {
    this.queued.delete(id);
  }

  /** Writes what waits. Never rejects: a failure is logged and tried again later. */
  async flush(): Promise<void> {
    while (this.flushing) await this.flushing;
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.queued.size === 0) return;
    this.flushing = this.scope.runInAsyncScope(() => this.write()).finally(() => (this.flushing = undefined));
    await this.flushing;
  }

  /** Writes what waits, and from now on everything at once: the application is shutting down (R29). */
  async close(): Promise<void> {
    this.closed = true;
    await this.flush();
  }

  private async write(): Promise<void> {
    this.flying = this.queued;
    this.queued = new Map();
    try {
      await withDeadline(this.store.touch([...this.flying.values()]), this.storeTimeout);
      if (this.failing) this.logger.log('Expiry updates are written again');
      this.failing = false;
    } catch (error) {
      if (!this.failing) this.logger.warn(`Expiry updates could not be written and wait: ${reasonOf(error)}`);
      this.failing = true;
      const waiting = this.flying;
      this.flying = new Map();
      for (const touch of waiting.values()) if (!this.closed) this.add(touch);
    } finally {
      this.flying = new Map();
    }
  }
}
