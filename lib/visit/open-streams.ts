import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitRecord } from '../store/visit.store.js';
import { TimeLimits } from './time-limits.js';

/** How many checks may fail in a row before a stream ends, because its visit is unknown by then. */
const MOST_FAILURES = 2;

/** A stream of events or a socket that belongs to a visit. */
export interface OpenStream {
  readonly visitId: string;
  /** Where the visit is stored. `nowhere`: it is not stored yet. */
  readonly storedIn: 'store' | 'client' | 'nowhere';
  /** The visit as the client has sent it, if the client stores it. */
  readonly record: VisitRecord;
  /** Whether the visit now belongs to another user than when the stream began. */
  isForeign(record: VisitRecord): boolean;
  /** Called once, when the visit has ended, has expired, or belongs to another user. */
  end(): void;
}

/**
 * Ends streams and sockets with their visit. Changes by this process are known immediately. Changes by other processes,
 * and expiry, are looked up every `streams.interval`, for all visits together.
 */
@Injectable()
export class OpenStreams {
  private readonly logger = new Logger('Visit');
  /** Serves many requests, so it runs outside of all request contexts. */
  private readonly scope = new AsyncResource('VisitOpenStreams');
  /** The streams of each visit, with the number of failed checks in a row. */
  private readonly streams = new Map<string, Map<OpenStream, number>>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'clock' | 'streams'>,
    @Inject(StoreAccess) private readonly store: Pick<StoreAccess, 'find'>,
    @Inject(TimeLimits) private readonly limits: Pick<TimeLimits, 'applyTo' | 'endOf'>,
  ) {}

  /**
   * Adds a stream, which then ends with its visit.
   *
   * @returns a function to call when the stream has ended by itself
   */
  add(stream: OpenStream): () => void {
    if (!this.options.streams.endWithVisit) return () => undefined;
    const { visitId } = stream;
    const ofVisit = this.streams.get(visitId) ?? new Map<OpenStream, number>();
    this.streams.set(visitId, ofVisit.set(stream, 0));
    this.timer ??= this.scope.runInAsyncScope(() =>
      setInterval(() => void this.check(), this.options.streams.interval).unref(),
    );
    return () => this.remove(visitId, stream);
  }

  /** The number of visits with open streams. */
  get size(): number {
    return this.streams.size;
  }

  /** These visits have ended. */
  visitsEnded(ids: readonly string[]): void {
    if (this.streams.size === 0) return;
    for (const id of ids) this.endWhere(id, () => true);
  }

  /** All visits have ended. */
  allEnded(): void {
    this.visitsEnded([...this.streams.keys()]);
  }

  /** Called when the rights of the visit have changed by a sign-in or a sign-out. */
  rightsChanged(record: VisitRecord): void {
    if (this.streams.size > 0) this.endWhere(record.id, (stream) => stream.isForeign(record));
  }

  /** Ends the streams whose visits have ended. */
  async check(): Promise<void> {
    await Promise.all([...this.streams.keys()].map((id) => this.checkVisit(id)));
  }

  private async checkVisit(id: string): Promise<void> {
    const streams = this.streams.get(id);
    const stored = [...(streams?.keys() ?? [])].filter(({ storedIn }) => storedIn !== 'nowhere');
    if (!streams || stored.length === 0) return;
    try {
      const record = stored[0]!.storedIn === 'client' ? stored[0]!.record : await this.store.find(id);
      for (const stream of stored) if (streams.has(stream)) streams.set(stream, 0);
      const isLive = record !== null && this.isLive(record);
      this.endWhere(id, (stream) => !isLive || stream.isForeign(record));
    } catch (error) {
      for (const stream of stored) if (streams.has(stream)) streams.set(stream, streams.get(stream)! + 1);
      const isGivenUp = (stream: OpenStream): boolean => (streams.get(stream) ?? 0) >= MOST_FAILURES;
      if (stored.some(isGivenUp))
        this.logger.warn(
          `Ending the streams of visit ${id} because the visit could not be looked up: ${reasonOf(error)}`,
        );
      this.endWhere(id, isGivenUp);
    }
  }

  private isLive(record: VisitRecord): boolean {
    return record.endedAt === null && this.options.clock.now() < this.limits.endOf(this.limits.applyTo(record));
  }

  private endWhere(id: string, isOver: (stream: OpenStream) => boolean): void {
    for (const stream of this.streams.get(id)?.keys() ?? []) {
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
