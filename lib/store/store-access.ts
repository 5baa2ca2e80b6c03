import { AsyncResource } from 'node:async_hooks';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitError, VisitStoreCannotError, VisitStoreUnavailableError } from '../errors/visit.error.js';
import { canGive } from '../options/store-needs.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { withDeadline } from './deadline.js';
import { createVisitAccess, type SaveOutcome, type VisitAccess } from './batching/batching.js';
import { VisitStore, type NewVisitRecord, type SessionSave, type VisitRecord, type VisitStoreCapabilities } from './visit.store.js';

/**
 * The way to the store for everything that a request or a caller waits for: what fails there is said in one voice.
 *
 * The store works in the asynchronous context in which this was made, and in that of no request: a connection that it opens lives on, and
 * whatever its driver calls back later, for others, would find itself in the request that came first. Who waits goes on in their own.
 */
@Injectable()
export class StoreAccess {
  private readonly logger = new Logger('Visit');
  private readonly scope = new AsyncResource('VisitStoreAccess');
  /** What requests do all the time goes out in groups. */
  private readonly grouped: VisitAccess;

  constructor(
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'storeTimeout'>,
  ) {
    this.grouped = createVisitAccess(store, { deadline: options.storeTimeout, explain: (error) => this.unavailable(error) });
  }

  /** @throws VisitStoreUnavailableError (503), as all of these do: a failed look-up is never "no visit" (B18) */
  find(id: string): Promise<VisitRecord | null> {
    return this.grouped.find(id);
  }

  create(visit: NewVisitRecord): Promise<void> {
    // Visits that clients keep have a limit each: one that is too large is not to fail the others of a group.
    return this.store.attend ? this.call((store) => store.create([visit])) : this.grouped.create(visit);
  }

  save(save: SessionSave): Promise<SaveOutcome> {
    return this.grouped.save(save);
  }

  /** Whether the store can give this. One that does not say so can. */
  can(capability: keyof VisitStoreCapabilities): boolean {
    return canGive(this.store, capability);
  }

  /** Before a call that not every store can give. @throws VisitStoreCannotError */
  need(call: string, ...capabilities: readonly (keyof VisitStoreCapabilities)[]): void {
    for (const capability of capabilities) if (!this.can(capability)) throw new VisitStoreCannotError(call, capability);
  }

  /** Everything else. The work runs in nobody's asynchronous context. */
  async call<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    try {
      return await this.scope.runInAsyncScope(() => withDeadline(work(this.store), this.options.storeTimeout));
    } catch (error) {
      throw this.unavailable(error);
    }
  }

  /** What a client is told when the store fails or does not answer in time; the cause goes to the log, once for a whole batch. */
  private unavailable(error: unknown): unknown {
    if (error instanceof VisitError) return error;
    this.logger.error(`The store failed: ${error instanceof Error ? error.message : String(error)}`);
    return new VisitStoreUnavailableError({ cause: error });
  }
}
