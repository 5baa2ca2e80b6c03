import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { RequestContext } from '../context/request.context.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitRecord } from '../store/visit.store.js';
import { TimeLimits } from './time-limits.js';

/** So many checks in a row may fail before a stream ends: nobody knows any more whose it is. */
const MOST_FAILURES = 2;

interface OpenStream {
  readonly context: RequestContext;
  readonly end: () => void;
  failures: number;
}

/**
 * Responses that go on for long, such as server-sent events: they end with the visit that they were let in for. What this process does to a
 * visit is known at once; what others do, and that a visit has expired, is looked up each `touch.interval`, all visits together.
 */
@Injectable()
export class OpenStreams {
  private readonly logger = new Logger('Visit');
  /** What serves many requests runs in the asynchronous context of none. */
  private readonly scope = new AsyncResource('VisitOpenStreams');
  private readonly streams = new Map<string, Set<OpenStream>>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'clock' | 'touch' | 'streams'>,
    @Inject(StoreAccess) private readonly store: Pick<StoreAccess, 'find'>,
    @Inject(TimeLimits) private readonly limits: Pick<TimeLimits, 'applyTo' | 'endOf'>,
  ) {}

  /**
   * From now on the stream of this request ends with its visit.
   *
   * @param end called once, when the visit has ended, expired, or belongs to somebody else
   * @returns what is to be called when the stream has ended otherwise
   */
  add(context: RequestContext, end: () => void): () => void {
    if (!this.options.streams.endWithVisit || !context.resolvedVisit) return () => undefined;
    const { id } = context.resolvedVisit.record;
    const stream: OpenStream = { context, end, failures: 0 };
    const ofVisit = this.streams.get(id) ?? new Set();
    this.streams.set(id, ofVisit.add(stream));
    this.timer ??= this.scope.runInAsyncScope(() => setInterval(() => void this.check(), this.options.touch.interval).unref());
    return () => this.remove(id, stream);
  }

  /** Of how many visits streams are open. */
  get size(): number {
    return this.streams.size;
  }

  /** These visits have ended. */
  visitsEnded(ids: readonly string[]): void {
    if (this.streams.size === 0) return;
    for (const id of ids) this.endWhere(id, () => true);
  }

  /** All visits have ended. */
  everythingEnded(): void {
    this.visitsEnded([...this.streams.keys()]);
  }

  /** The visit belongs to somebody else now, or to nobody. */
  identityChanged(id: string, userId: string | undefined): void {
    if (this.streams.size > 0) this.endWhere(id, ({ context }) => userOf(context) !== userId);
  }

  /** Ends the streams whose visits have ended by now. */
  async check(): Promise<void> {
    await Promise.all([...this.streams.keys()].map((id) => this.checkVisit(id)));
  }

  private async checkVisit(id: string): Promise<void> {
    const stored = [...(this.streams.get(id) ?? [])].filter(({ context }) => context.resolvedVisit?.is === 'stored');
    if (stored.length === 0) return;
    try {
      // A store that keeps visits with their clients knows this one by its request alone.
      const { attendance, resolvedVisit } = stored[0]!.context;
      const record = attendance ? resolvedVisit!.record : await this.store.find(id);
      for (const stream of stored) stream.failures = 0;
      const isLive = record !== null && this.isLive(record);
      this.endWhere(
        id,
        ({ context }) => context.resolvedVisit?.is === 'stored' && (!isLive || userOf(context) !== record.identity?.userId),
      );
    } catch (error) {
      for (const stream of stored) stream.failures++;
      if (stored.some(({ failures }) => failures >= MOST_FAILURES))
        this.logger.warn(`Streams of visit ${id} end, because the visit could not be looked up: ${reasonOf(error)}`);
      this.endWhere(id, ({ failures }) => failures >= MOST_FAILURES);
    }
  }

  private isLive(record: VisitRecord): boolean {
    return record.endedAt === null && this.options.clock.now() < this.limits.endOf(this.limits.applyTo(record));
  }

  private endWhere(id: string, isOver: (stream: OpenStream) => boolean): void {
    for (const stream of this.streams.get(id) ?? []) {
      if (!isOver(stream)) continue;
      this.remove(id, stream);
      stream.end();
    }
  }

  private remove(id: string, stream: OpenStream): void {
    const ofVisit = this.streams.get(id);
    if (!ofVisit?.delete(stream) || ofVisit.size > 0) return;
    this.streams.delete(id);
    if (this.streams.size > 0) return;
    clearInterval(this.timer);
    this.timer = undefined;
  }
}

const userOf = (context: RequestContext): string | undefined => context.resolvedVisit?.record.identity?.userId;
