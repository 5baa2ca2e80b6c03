import { Inject, Injectable } from '@nestjs/common';
import { StoreAccess } from '../store/store-access.js';

/** An id that no visit has: ids have 32 hexadecimal digits. */
const NOBODY = '-';

/** The state of the visit store. */
export interface VisitHealthStatus {
  /** `up`: visits can be read. `down`: they cannot be read, and requests that need their visit get 503. */
  readonly status: 'up' | 'down';
  /** Visits can be read, but writes do not complete at the moment: sign-ins and changed sessions get 503. */
  readonly degraded?: true;
  /** A description of the problem, without text from the database. */
  readonly message?: string;
}

/**
 * Whether visits can be served, in the shape that `@nestjs/terminus` 11 and 12 expect of a health indicator, and that
 * can be read without it.
 *
 * @example
 * ```ts
 * @Get('health')
 * @SkipVisit()
 * @HealthCheck()
 * check() {
 *   return this.health.check([() => this.visitHealth.check()]);
 * }
 * ```
 */
@Injectable()
export class VisitHealth {
  constructor(@Inject(StoreAccess) private readonly store: StoreAccess) {}

  /**
   * Looks up a visit that does not exist, together with the look-ups of requests. It writes nothing and waits as long
   * as a request would: at most `storeTimeout`, and not at all while the store is known to be unavailable. Never
   * throws.
   *
   * @param key the name of the entry in the result
   */
  async check<Key extends string = 'visits'>(key: Key = 'visits' as Key): Promise<Record<Key, VisitHealthStatus>> {
    return { [key]: await this.status() } as Record<Key, VisitHealthStatus>;
  }

  private async status(): Promise<VisitHealthStatus> {
    try {
      await this.store.find(NOBODY);
    } catch {
      return { status: 'down', message: 'The session store is unavailable.' };
    }
    if (this.store.endsWrites) return { status: 'up' };
    return { status: 'up', degraded: true, message: 'Writes to the session store do not end.' };
  }
}
