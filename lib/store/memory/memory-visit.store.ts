import { VisitOptionError } from '../../errors/visit.error.js';
import type {
  CleanUpBatch,
  EndedBatch,
  EndingBatch,
  ExpungedBatch,
  Lock,
  ListPosition,
  LockResult,
  StaleCounts,
  UserEndingBatch,
  UserList,
  UserVisits,
  VisitCleanup,
  VisitLocks,
  VisitPage,
  VisitPages,
  WipedBatch,
} from '../visit.facets.js';
import {
  VisitStore,
  type Ending,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitRecord,
  type VisitStoreCapabilities,
} from '../visit.store.js';
import {
  copyOf,
  emptied,
  ended,
  isLive,
  isStale,
  isUnwiped,
  listedCopyOf,
  locked,
  pageOf,
  rekeyed,
  saved,
  touched,
  type Lease,
  type Transition,
} from '../visit.record.js';

/** Options of `MemoryVisitStore`. */
export interface MemoryVisitStoreOptions {
  /**
   * The maximum number of visits. Beyond it, ended and expired visits are removed first, then the least recently used
   * ones, as far as their use has been recorded. One percent more is removed at a time, so that not every new visit has
   * to search. @default 100000
   */
  maxVisits?: number;
}

/**
 * Stores visits in the memory of one process, for tests and for applications that may lose them at a restart.
 * Otherwise, it fulfills the whole contract.
 */
export class MemoryVisitStore extends VisitStore implements UserVisits, VisitPages, VisitLocks, VisitCleanup {
  override readonly capabilities: VisitStoreCapabilities = {
    atomic: true,
    revocable: true,
    shared: false,
    durable: false,
  };
  override readonly users = this;
  override readonly pages = this;
  override readonly locks = this;
  override readonly cleanup = this;

  readonly #visits = new Map<string, VisitRecord>();
  /** By user id; an empty id stands for all users. */
  readonly #revocations = new Map<string, number>();
  readonly #leases = new Map<string, Lease>();
  readonly #maxVisits: number;

  constructor({ maxVisits = 100_000 }: MemoryVisitStoreOptions = {}) {
    super();
    if (!(maxVisits >= 1))
      throw new VisitOptionError(`option "maxVisits" must be a number of at least 1, got ${String(maxVisits)}`);
    this.#maxVisits = maxVisits;
  }

  async check(): Promise<void> {}

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    return ids.map((id) => {
      const visit = this.#visits.get(id);
      return visit ? copyOf(visit) : null;
    });
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const ids = new Set(visits.map(({ id }) => id));
    if (ids.size < visits.length || visits.some(({ id }) => this.#visits.has(id)))
      throw new Error('[visit] a visit with this id already exists');
    for (const visit of visits) this.#visits.set(visit.id, copyOf(visit));
    if (this.#visits.size > this.#maxVisits)
      this.#evict(visits.reduce((latest, { created: at }) => Math.max(latest, at), 0));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return saves.map((save) => this.#keep(saved(this.#stored(save.id), save, this.#leases.get(save.id))));
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    for (const touch of touches) this.#put(touched(this.#stored(touch.id), touch));
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    return changes.map((change) => this.#keep(rekeyed(this.#stored(change.id), change)));
  }

  async lock(lock: Lock): Promise<LockResult> {
    const { result, next } = locked(this.#stored(lock.id), lock, this.#leases.get(lock.id));
    if (next) this.#leases.set(lock.id, next);
    return result;
  }

  async unlock(id: string, owner: string): Promise<void> {
    if (this.#leases.get(id)?.lockOwner === owner) this.#leases.delete(id);
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return ids.filter((id) => this.#endOne(this.#stored(id), ending));
  }

  async listForUser({ userId, now, ...page }: UserList): Promise<VisitPage<ListPosition>> {
    const { visits, next } = pageOf(
      this.#filter((visit) => visit.identity?.userId === userId && isLive(visit, now)),
      page,
    );
    return { visits: visits.map(listedCopyOf), next };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    const earlier = this.#filter(({ identity }) => identity?.userId === userId && identity.created < before);
    return [...new Set(earlier.map(({ userAgent }) => userAgent))];
  }

  async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const visits = this.#filter((visit) => visit.id > after && isLive(visit, now))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .slice(0, limit)
      .map(listedCopyOf);
    return { visits, next: visits.at(-1)?.id ?? null };
  }

  async endAllForUser({ userId, except, ...batch }: UserEndingBatch): Promise<EndedBatch> {
    this.#remember(userId, batch.ending.at);
    return this.#endSome(batch, ({ id, identity }) => identity?.userId === userId && id !== except);
  }

  async revokedAt(userId: string): Promise<number | null> {
    const instants = [userId, ''].map((id) => this.#revocations.get(id)).filter((at) => at !== undefined);
    return instants.length > 0 ? Math.max(...instants) : null;
  }

  async endAll(batch: EndingBatch): Promise<EndedBatch> {
    this.#remember('', batch.ending.at);
    return this.#endSome(batch, () => true);
  }

  async expunge({ before, limit, dryRun = false }: CleanUpBatch): Promise<ExpungedBatch> {
    const stale = this.#filter((visit) => isStale(visit, before));
    if (dryRun) return { ...countsOf(stale), next: null };
    const batch = stale.slice(0, limit);
    for (const { id } of batch) this.#drop(id);
    for (const [userId, at] of this.#revocations) if (at < before) this.#revocations.delete(userId);
    return { ...countsOf(batch), next: batch.length < stale.length ? 'more' : null };
  }

  async wipe({ before, limit, dryRun = false }: CleanUpBatch): Promise<WipedBatch> {
    const unwiped = this.#filter((visit) => isUnwiped(visit, before));
    if (dryRun) return { visits: unwiped.length, next: null };
    const batch = unwiped.slice(0, limit);
    for (const visit of batch) this.#put(emptied(visit));
    return { visits: batch.length, next: batch.length < unwiped.length ? 'more' : null };
  }

  async close(): Promise<void> {}

  #stored(id: string): VisitRecord | null {
    return this.#visits.get(id) ?? null;
  }

  #put(visit: VisitRecord | null): void {
    if (visit) this.#visits.set(visit.id, visit);
  }

  #keep<R>({ result, next }: Transition<R>): R {
    this.#put(next);
    return result;
  }

  #filter(condition: (visit: VisitRecord) => boolean): VisitRecord[] {
    return [...this.#visits.values()].filter(condition);
  }

  #endOne(visit: VisitRecord | null, ending: Ending): boolean {
    const next = ended(visit, ending);
    if (!next) return false;
    this.#put(next);
    this.#leases.delete(next.id);
    return true;
  }

  #endSome({ ending, limit }: EndingBatch, isMeant: (visit: VisitRecord) => boolean): EndedBatch {
    const visits = this.#filter((visit) => visit.endedAt === null && isMeant(visit));
    const batch = visits.slice(0, limit);
    for (const visit of batch) this.#endOne(visit, ending);
    return { ended: batch.map(({ id }) => id), next: batch.length < visits.length ? 'more' : null };
  }

  #remember(userId: string, at: number): void {
    this.#revocations.set(userId, Math.max(at, this.#revocations.get(userId) ?? at));
  }

  /**
   * Removes more visits than necessary, because searching all of them for each new visit would be slow. The new visit
   * provides the current time, because a store has no clock of its own.
   */
  #evict(now: number): void {
    const isDead = (visit: VisitRecord) => !isLive(visit, now);
    const excess = this.#visits.size - this.#maxVisits + Math.floor(this.#maxVisits / 100);
    const byWorth = this.#filter(() => true).sort(
      (a, b) => Number(isDead(b)) - Number(isDead(a)) || a.accessed - b.accessed || a.expiry - b.expiry,
    );
    for (const { id } of byWorth.slice(0, excess)) this.#drop(id);
  }

  #drop(id: string): void {
    this.#visits.delete(id);
    this.#leases.delete(id);
  }
}

function countsOf(visits: readonly VisitRecord[]): StaleCounts {
  return { visits: visits.length, identities: visits.filter(({ identity }) => identity).length };
}
