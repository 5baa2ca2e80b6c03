import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitError, VisitStoreUnsupportedError, VisitStoreUnavailableError } from '../errors/visit.error.js';
import { supports, type Facet, type Feature } from '../options/store-needs.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { createVisitAccess, type SaveOutcome, type VisitAccess } from './batching/batching.js';
import { away, CircuitBreaker } from './circuit-breaker.js';
import { withDeadline } from './deadline.js';
import { settle } from './lost-answers.js';
import { Places } from './places.js';
import {
  VisitStore,
  type Ending,
  type Rekey,
  type RekeyResult,
  type SessionSave,
  type VisitRecord,
} from './visit.store.js';
import { FailureLog } from './failure-log.js';
import { Unfinished } from './unfinished.js';

/**
 * How many connections of a store writes of requests do not use: they are for two groups of look-ups, and for expiry
 * updates or clean-up.
 */
const NOT_FOR_WRITES = 3;

/**
 * The access to the store for everything that a request or a caller waits for. It converts errors, and while the store
 * does not answer at all, callers do not wait.
 *
 * The store runs in the asynchronous context in which this object was created, outside of all request contexts: a
 * connection that it opens is reused, and later callbacks of its driver would run in the context of the first request.
 * Callers continue in their own context.
 */
@Injectable()
export class StoreAccess {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitStoreAccess');
  private readonly failures = new FailureLog(this.logger);
  private readonly breaker: CircuitBreaker;
  /**
   * Writes may hang while the store can be read: because of the lock of a backup, of ALTER TABLE, or of a missing
   * standby.
   */
  private readonly writeBreaker: CircuitBreaker;
  private readonly writes: Places;
  private readonly unfinished = new Unfinished();
  /** Frequent calls are sent in groups. */
  private readonly grouped: VisitAccess;

  constructor(
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'storeTimeout'> &
      Partial<Pick<ResolvedVisitOptions, 'telemetry'>>,
  ) {
    const { storeTimeout } = options;
    this.breaker = new CircuitBreaker({
      timeout: storeTimeout,
      opened: () => {
        this.failures.stop();
        this.logger.error(
          'The store does not answer: requests are refused immediately, except for one at a time that tries again',
        );
        this.grouped.refuse(away());
      },
      succeeded: () => this.failures.answered(),
      closed: () => {
        this.logger.log('The store answers again');
        this.writeBreaker.reset();
      },
    });
    this.writeBreaker = new CircuitBreaker({
      timeout: storeTimeout,
      opened: () => {
        if (!this.breaker.isClosed) return;
        this.logger.error(
          'Writes to the store do not complete: they are refused immediately, except for one at a time that ' +
            'tries again',
        );
        this.grouped.refuseWrites(away());
      },
      closed: () => this.logger.log('Writes to the store complete again'),
      answered: () => this.breaker.answered(),
      succeeded: () => this.failures.answered(),
    });
    this.writes = new Places(Math.max(1, (store.server?.connections ?? Infinity) - NOT_FOR_WRITES), storeTimeout);
    this.grouped = createVisitAccess(
      {
        isDivided: store.server?.isDivided,
        find: (ids) => this.breaker.watch(() => store.find(ids)),
        create: (visits) => this.write(() => store.create(visits)),
        save: (saves) =>
          this.write(
            () => store.save(saves),
            (results) => results.some(({ outcome }) => outcome !== 'failed'),
          ),
      },
      { deadline: storeTimeout, explain: (error) => this.unavailable(error) },
    );
  }

  /** @throws VisitStoreUnavailableError (503), as all of these do: a failed look-up is never "no visit" */
  find(id: string): Promise<VisitRecord | null> {
    const { telemetry } = this.options;
    return telemetry ? telemetry.lookup(id, () => this.findSettled(id)) : this.findSettled(id);
  }

  private findSettled(id: string): Promise<VisitRecord | null> {
    return this.refusal() ?? this.unfinished.settle(id)?.then(() => this.look(id)) ?? this.look(id);
  }

  private look(id: string): Promise<VisitRecord | null> {
    return this.breaker.isClosed ? this.grouped.find(id) : this.enter(() => this.grouped.find(id));
  }

  create(visit: VisitRecord): Promise<void> {
    // Visits in cookies have their own size limit and belong to one response, so groups have no advantage.
    if (this.store.clients) return this.call((store) => store.create([visit]));
    const refusal = this.refusal();
    if (refusal) return refusal;
    return this.canWrite ? this.grouped.create(visit) : this.enterWrite(() => this.grouped.create(visit));
  }

  save(save: SessionSave): Promise<SaveOutcome> {
    const refusal = this.refusal();
    if (refusal) return refusal;
    return this.canWrite ? this.grouped.save(save) : this.enterWrite(() => this.grouped.save(save));
  }

  /** Called after the store was closed: nothing is tried or logged any more. The caller closes the store. */
  close(): void {
    this.failures.close();
    this.unfinished.close();
  }

  /** Whether the store has this feature. */
  supports(feature: Feature): boolean {
    return supports(this.store, feature);
  }

  /**
   * Called before a call that not every store supports.
   *
   * @throws VisitStoreUnsupportedError
   */
  need(call: string, feature: Feature): void {
    if (!this.supports(feature)) throw new VisitStoreUnsupportedError(call, feature);
  }

  /**
   * The facet of the store for this call.
   *
   * @throws VisitStoreUnsupportedError
   */
  facet<F extends Facet>(name: F, call: string): NonNullable<VisitStore[F]> {
    this.need(call, name);
    return this.store[name]!;
  }

  /** When all visits of the user were last ended; also null if the store does not support it. */
  async revokedAt(userId: string): Promise<number | null> {
    const { users } = this.store;
    return users ? this.read(() => users.revokedAt(userId)) : null;
  }

  /**
   * Changes one key. The new key is random, or undoes a change to a random key. So if it is stored, the change was made
   * by this call.
   *
   * @param isAgain whether an earlier call, whose answer was lost, may have made the change
   */
  rekey(change: Rekey, isAgain = false): Promise<RekeyResult> {
    const { id, keyHash, newKeyHash } = change;
    return settle<RekeyResult>({
      write: async () => (await this.call((store) => store.rekey([change])))[0]!,
      look: async () => {
        const stored = await this.look(id);
        // The key that undoes a sign-out is also the previous key.
        const isCurrent = stored?.keyHash === newKeyHash && (change.identity !== null || stored.identity === null);
        // Another request may have renewed it since.
        const isReplaced = stored?.previousKeyHash === newKeyHash && stored.keyHash !== keyHash;
        return isCurrent || isReplaced ? { outcome: 'done' } : undefined;
      },
      isVain: ({ outcome }) => outcome === 'refused',
      isAgain,
      patience: this.options.storeTimeout / 2,
    });
  }

  /** Ends visits. Returns the ids that this call has ended. */
  end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return settle<string[]>({
      write: () => this.call((store) => store.end(ids, ending)),
      look: async () => {
        const found = await Promise.all(ids.map((id) => this.look(id)));
        const isEnded = found.every((visit) => !visit || visit.endedAt !== null);
        return isEnded
          ? found.filter((visit) => visit && isEndedBy(visit, ending)).map((visit) => visit!.id)
          : undefined;
      },
      // The second attempt does not return visits that the first one has ended.
      isVain: (ended) => ended.length < ids.length,
      patience: this.options.storeTimeout / 2,
    });
  }

  /**
   * Changes a key or ends a visit as soon as the store answers again, because a request could not do so. Until then,
   * this process does not find the visit.
   */
  finishLater(id: string, finish: () => Promise<unknown>): void {
    this.scope.runInAsyncScope(() => this.unfinished.add(id, finish));
  }

  /** For other reads. Runs outside of all request contexts, like `call`. */
  read<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    return this.refusal() ?? this.enter(() => this.inTime(() => this.breaker.watch(() => work(this.store))));
  }

  /** For everything else. The work runs outside of all request contexts. */
  call<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    return this.refusal() ?? this.enterWrite(() => this.inTime(() => this.write(() => work(this.store))));
  }

  /** The error for a caller that would wait for a connection that it holds itself. */
  private refusal(): Promise<never> | undefined {
    try {
      this.store.server?.requireConnection?.();
      return undefined;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  private inTime<T>(work: () => Promise<T>): Promise<T> {
    return this.scope.runInAsyncScope(() => withDeadline(work(), this.options.storeTimeout));
  }

  private write<T>(work: () => Promise<T>, isAnswer?: (result: T) => boolean): Promise<T> {
    return this.writes.use(() => this.writeBreaker.watch(work, isAnswer));
  }

  /** Whether writes complete, as far as is known. */
  get endsWrites(): boolean {
    return this.writeBreaker.isClosed;
  }

  private get canWrite(): boolean {
    return this.breaker.isClosed && this.writeBreaker.isClosed;
  }

  private enterWrite<T>(work: () => Promise<T>): Promise<T> {
    return this.enter(() => this.writeBreaker.enter(work));
  }

  /** Runs the work if the breaker allows it; otherwise rejects. */
  private async enter<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.breaker.enter(work);
    } catch (error) {
      throw this.unavailable(error);
    }
  }

  /**
   * The error for clients when the store fails or does not answer in time. The cause is logged, but not repeatedly
   * while nothing changes.
   */
  private unavailable(error: unknown): unknown {
    if (error instanceof VisitError) return error;
    // A timer belongs to no request.
    if (this.canWrite) this.scope.runInAsyncScope(() => this.failures.failed(error));
    return new VisitStoreUnavailableError({ cause: error });
  }
}

function isEndedBy({ endedAt, endReason }: VisitRecord, { at, reason }: Ending): boolean {
  return endedAt === at && endReason === reason;
}
