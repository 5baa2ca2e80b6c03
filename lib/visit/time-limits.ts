import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { ListedVisit, VisitRecord } from '../store/visit.store.js';
import { TouchQueue } from './touch.queue.js';

type Lifetime = Pick<VisitRecord, 'id' | 'expiry' | 'absoluteExpiry'>;

/** Determines when visits end: by their stored limits and, with the option `shortenExisting`, by the current limits. */
@Injectable()
export class TimeLimits {
  /** The longest idle timeout of all handlers, in milliseconds. */
  longestOfHandlers = 0;

  constructor(
    @Inject(VISIT_OPTIONS)
    private readonly options: Pick<
      ResolvedVisitOptions,
      'shortenExisting' | 'timeout' | 'permanentTimeout' | 'absoluteTimeout'
    >,
    @Inject(TouchQueue) private readonly touches: Pick<TouchQueue, 'waiting'>,
  ) {}

  /** When this visit ends, in milliseconds since 1970. Pending expiry updates count as if they were written. */
  endOf({ id, expiry, absoluteExpiry }: Lifetime): number {
    return Math.min(Math.max(expiry, this.touches.waiting(id) ?? 0), absoluteExpiry ?? Infinity);
  }

  /**
   * The visit with the current limits, which are never longer than the stored ones. The store keeps its own limits, but
   * records each use of the visit, from which the current limits are counted.
   */
  applyTo<V extends ListedVisit>(record: V): V {
    if (!this.options.shortenExisting) return record;
    const { timeout, permanentTimeout, absoluteTimeout } = this.options;
    const { permanent, identity, keyChanged } = record;
    const idle = Math.max(permanent ? permanentTimeout : timeout, this.longestOfHandlers);
    const absolute = absoluteTimeout === false ? Infinity : (identity?.authenticatedAt ?? keyChanged) + absoluteTimeout;
    const limit = Math.min(absolute, record.absoluteExpiry ?? Infinity);
    const expiry = Math.min(record.expiry, Math.max(record.accessed, keyChanged) + idle, limit);
    return { ...record, expiry, absoluteExpiry: limit === Infinity ? null : limit };
  }
}
