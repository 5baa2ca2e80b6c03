import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitError, VisitStoreCannotError, VisitStoreUnavailableError } from '../errors/visit.error.js';
import { canGive } from '../options/store-needs.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { createVisitAccess, type SaveOutcome, type VisitAccess } from './batching/batching.js';
import { away, CircuitBreaker } from './circuit-breaker.js';
import { withDeadline } from './deadline.js';
import { settle } from './lost-answers.js';
import {
  VisitStore,
  type Ending,
  type NewVisitRecord,
  type Rekey,
  type RekeyResult,
  type SessionSave,
  type VisitRecord,
  type VisitStoreCapabilities,
} from './visit.store.js';
import { reasonOf } from '../errors/failure.js';

/**
 * The way to the store for everything that a request or a caller waits for: what fails there is said in one voice, and while the store does
 * not answer at all, nobody waits for it.
 *
 * The store works in the asynchronous context in which this was made, and in that of no request: a connection that it opens lives on, and
 * whatever its driver calls back later, for others, would find itself in the request that came first. Who waits goes on in their own.
 */
@Injectable()
export class StoreAccess {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitStoreAccess');
  private readonly breaker: CircuitBreaker;
  /** What requests do all the time goes out in groups. */
  private readonly grouped: VisitAccess;

  constructor(
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'storeTimeout'>,
  ) {
    const { storeTimeout } = options;
    const breaker = new CircuitBreaker({
      timeout: storeTimeout,
      opened: () => {
        this.logger.error('The store does not answer: requests are refused at once, but for one at a time that tries again');
        this.grouped.refuse(away());
      },
      closed: () => this.logger.log('The store answers again'),
    });
    this.breaker = breaker;
    this.grouped = createVisitAccess(
      {
        find: (ids) => breaker.watch(() => store.find(ids)),
        create: (visits) => breaker.watch(() => store.create(visits)),
        save: (saves) =>
          breaker.watch(
            () => store.save(saves),
            (results) => results.some(({ outcome }) => outcome !== 'failed'),
          ),
      },
      { deadline: storeTimeout, explain: (error) => this.unavailable(error) },
    );
  }

  /** @throws VisitStoreUnavailableError (503), as all of these do: a failed look-up is never "no visit" (B18) */
  find(id: string): Promise<VisitRecord | null> {
    return this.breaker.isClosed ? this.grouped.find(id) : this.enter(() => this.grouped.find(id));
  }

  create(visit: NewVisitRecord): Promise<void> {
    // Visits that clients keep have a limit each, and are made for one response: nothing is gained by groups.
    if (this.store.attend) return this.call((store) => store.create([visit]));
    return this.breaker.isClosed ? this.grouped.create(visit) : this.enter(() => this.grouped.create(visit));
  }

  save(save: SessionSave): Promise<SaveOutcome> {
    return this.breaker.isClosed ? this.grouped.save(save) : this.enter(() => this.grouped.save(save));
  }

  /** Whether the store can give this. One that does not say so can. */
  can(capability: keyof VisitStoreCapabilities): boolean {
    return canGive(this.store, capability);
  }

  /** Before a call that not every store can give. @throws VisitStoreCannotError */
  need(call: string, ...capabilities: readonly (keyof VisitStoreCapabilities)[]): void {
    for (const capability of capabilities) if (!this.can(capability)) throw new VisitStoreCannotError(call, capability);
  }

  /** Changes one key. The new one is random: whoever finds it stored knows that it was this change. */
  rekey(change: Rekey): Promise<RekeyResult> {
    const { id, newKeyHash } = change;
    return settle<RekeyResult>({
      write: async () => (await this.call((store) => store.rekey([change])))[0]!,
      look: async () => {
        const stored = await this.find(id);
        // Another request may have renewed it since.
        return stored?.keyHash === newKeyHash || stored?.previousKeyHash === newKeyHash ? { outcome: 'done' } : undefined;
      },
      isVain: ({ outcome }) => outcome === 'refused',
      patience: this.options.storeTimeout / 2,
    });
  }

  /** Ends visits. The ids of those that this call ended. */
  end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return settle<string[]>({
      write: () => this.call((store) => store.end(ids, ending)),
      look: async () => {
        const found = await Promise.all(ids.map((id) => this.find(id)));
        const isEnded = found.every((visit) => !visit || visit.endedAt !== null);
        return isEnded ? found.filter((visit) => visit && isEndedBy(visit, ending)).map((visit) => visit!.id) : undefined;
      },
      // Those that the first try has ended are not among those of the second.
      isVain: (ended) => ended.length < ids.length,
      patience: this.options.storeTimeout / 2,
    });
  }

  /** Everything else. The work runs in nobody's asynchronous context. */
  call<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    return this.enter(() =>
      this.scope.runInAsyncScope(() =>
        withDeadline(
          this.breaker.watch(() => work(this.store)),
          this.options.storeTimeout,
        ),
      ),
    );
  }

  /** What the breaker lets through, or an error for whoever asked. */
  private async enter<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.breaker.enter(work);
    } catch (error) {
      throw this.unavailable(error);
    }
  }

  /**
   * What a client is told when the store fails or does not answer in time. The cause goes to the log, once for a whole batch, and not while
   * nothing is new about it.
   */
  private unavailable(error: unknown): unknown {
    if (error instanceof VisitError) return error;
    if (this.breaker.isClosed) this.logger.error(`The store failed: ${reasonOf(error)}`);
    return new VisitStoreUnavailableError({ cause: error });
  }
}

function isEndedBy({ endedAt, endReason }: VisitRecord, { at, reason }: Ending): boolean {
  return endedAt === at && endReason === reason;
}
