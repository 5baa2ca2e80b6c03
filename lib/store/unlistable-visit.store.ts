import { VisitStoreUnsupportedError } from '../errors/visit.error.js';
import { VisitStore, type StaleCounts, type VisitRecord } from './visit.store.js';

/** The part of the contract that is the same for every store through whose visits nobody can look, and which lets go of stale ones by itself. */
export abstract class UnlistableVisitStore extends VisitStore {
  async listForUser(): Promise<VisitRecord[]> {
    throw new VisitStoreUnsupportedError('listForUser', 'listable');
  }

  override async userAgentsOf(): Promise<(string | null)[]> {
    throw new VisitStoreUnsupportedError('userAgentsOf', 'listable');
  }

  async endAllForUser(): Promise<string[]> {
    throw new VisitStoreUnsupportedError('endAllForUser', 'listable');
  }

  async endEverything(): Promise<number> {
    throw new VisitStoreUnsupportedError('endEverything', 'listable');
  }

  async endedAllAt(): Promise<number | null> {
    return null;
  }

  async expunge(): Promise<StaleCounts> {
    return { visits: 0, identities: 0 };
  }

  async countStale(): Promise<StaleCounts> {
    return { visits: 0, identities: 0 };
  }

  async wipe(): Promise<number> {
    return 0;
  }

  async countUnwiped(): Promise<number> {
    return 0;
  }
}
