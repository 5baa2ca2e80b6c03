import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitError, VisitStoreUnavailableError } from '../errors/visit.error.js';
import { VisitStore } from './visit.store.js';

/** The way to the store for everything that a request or a caller waits for: what fails there is said in one voice. */
@Injectable()
export class StoreAccess {
  private readonly logger = new Logger('Visit');

  constructor(@Inject(VisitStore) private readonly store: VisitStore) {}

  /** @throws VisitStoreUnavailableError (503) when the store fails; the cause goes to the log, not to the client */
  async call<T>(work: (store: VisitStore) => Promise<T>): Promise<T> {
    try {
      return await work(this.store);
    } catch (error) {
      if (error instanceof VisitError) throw error;
      this.logger.error(`The store failed: ${(error as Error).message}`);
      throw new VisitStoreUnavailableError({ cause: error });
    }
  }
}
