import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitError, VisitStoreUnavailableError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { withDeadline } from './deadline.js';
import { createVisitAccess, type VisitAccess } from './batching/batching.js';
import { VisitStore, type NewVisitRecord, type SaveResult, type SessionSave, type VisitRecord } from './visit.store.js';

/** The way to the store for everything that a request or a caller waits for: what fails there is said in one voice. */
@Injectable()
export class StoreAccess {
  private readonly logger = new Logger('Visit');
  /** What requests do all the time goes out in groups. */
  private readonly grouped: VisitAccess;

  constructor(
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'storeTimeout'>,
  ) {
    this.grouped = createVisitAccess(store);
  }

  find(id: string): Promise<VisitRecord | null> {
    return this.call(() => this.grouped.find(id));
  }

  create(visit: NewVisitRecord): Promise<void> {
    return this.call(() => this.grouped.create(visit));
  }

  save(save: SessionSave): Promise<Exclude<SaveResult, { outcome: 'failed' }>> {
    return this.call(async () => {
      const result = await this.grouped.save(save);
      if (result.outcome === 'failed') throw result.error;
      return result;
    });
  }

  /** @throws VisitStoreUnavailableError (503) when the store fails or does not answer in time; the cause goes to the log, not to the client */
  async call<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    try {
      return await withDeadline(work(this.store), this.options.storeTimeout);
    } catch (error) {
      if (error instanceof VisitError) throw error;
      this.logger.error(`The store failed: ${(error as Error).message}`);
      throw new VisitStoreUnavailableError({ cause: error });
    }
  }
}
