import { Inject, Injectable } from '@nestjs/common';
import { StoreAccess } from '../store/store-access.js';

/** No visit has it: a visit's id is 32 hexadecimal digits. */
const NOBODY = '-';

/** How the store of visits is. */
export interface VisitHealthStatus {
  /** `up`: visits can be read. `down`: they cannot, and requests that need their visit get 503. */
  readonly status: 'up' | 'down';
  /** Visits can be read, but writes do not end at the moment: sign-ins and changed sessions get 503. */
  readonly degraded?: true;
  /** What is wrong, without any word of the database's. */
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
   * Asks the store for a visit that nobody has, which takes part in the look-ups of the moment, writes nothing, and
   * waits as long as any request would: at most `storeTimeout`, and not at all while the store is known to be away.
   * Never throws.
   *
   * @param key the name of the entry in the answer
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
