import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { reasonOf } from '../errors/failure.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitRecord } from '../store/visit.store.js';
import { TimeLimits } from './time-limits.js';

/** So many checks in a row may fail before a stream ends: nobody knows any more whose it is. */
const MOST_FAILURES = 2;

/** Something that goes on for long, and was let in for a visit: a stream of events, or a socket. */
export interface OpenStream {
  readonly visitId: string;
  /** Where what is stored of the visit is to be found. `nowhere`: nothing is stored of it yet. */
  readonly storedIn: 'store' | 'client' | 'nowhere';
  /** What the client has brought of a visit that it keeps itself. */
  readonly record: VisitRecord;
  /** Whether it was let in for somebody else than whoever this visit belongs to now. */
  isForeign(record: VisitRecord): boolean;
  /** Called once, when the visit has ended, expired, or belongs to somebody else. */
  end(): void;
}

/**
 * Streams and sockets end with the visit that they were let in for. What this process does to a visit is known at once;
 * what others do, and that a visit has expired, is looked up each `streams.interval`, all visits together.
 */
@Injectable()
export class OpenStreams {
  private readonly logger = new Logger('Visit');
  /** What serves many requests runs in the asynchronous context of none. */
  private readonly scope = new AsyncResource('VisitOpenStreams');
  /** Those of each visit, with how many checks in a row have failed. */
  private readonly streams = new Map<string, Map<OpenStream, number>>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'clock' | 'streams'>,
    @Inject(StoreAccess) private readonly store: Pick<StoreAccess, 'find'>,
    @Inject(TimeLimits) private readonly limits: Pick<TimeLimits, 'applyTo' | 'endOf'>,
  ) {}

  /** From now on the stream ends with its visit. @returns what is to be called when it has ended otherwise */
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
  allEnded(): void {
    this.visitsEnded([...this.streams.keys()]);
  }

  /** The rights of the visit have changed: by a sign-in or a sign-out. */
  rightsChanged(record: VisitRecord): void {
    if (this.streams.size > 0) this.endWhere(record.id, (stream) => stream.isForeign(record));
  }

  /** Ends the streams whose visits have ended by now. */
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
