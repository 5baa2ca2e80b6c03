import { VisitOptionError } from '../../errors/visit.error.js';
import {
  VisitStore,
  type Ending,
  type Lock,
  type LockResult,
  type NewVisitRecord,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type StaleCounts,
  type Touch,
  type VisitPage,
  type VisitRecord,
  type VisitStoreCapabilities,
} from '../visit.store.js';
import { expiryAfter, isHeldBy, isTouchable, refusalOf, rekeyGuard } from '../write-guard.js';

type Mutable = { -readonly [K in keyof VisitRecord]: VisitRecord[K] };

export interface MemoryVisitStoreOptions {
  /**
   * With more visits than this, those go first that have ended or expired, then those that were used least recently, as far as that has
   * been recorded. A hundredth more goes at once, so that not every new visit looks for room. @default 100000
   */
  maxVisits?: number;
}

/** Visits in the memory of one process, for tests and applications that may lose them at a restart. Keeps all promises of the contract. */
export class MemoryVisitStore extends VisitStore {
  override readonly capabilities: VisitStoreCapabilities = { atomic: true, revocable: true, listable: true, shared: false, durable: false };

  readonly #visits = new Map<string, Mutable>();
  /** By user id; the empty one is everybody. */
  readonly #endedAllAt = new Map<string, number>();
  readonly #leases = new Map<string, { readonly lockOwner: string; readonly lockedUntil: number }>();
  readonly #maxVisits: number;

  constructor({ maxVisits = 100_000 }: MemoryVisitStoreOptions = {}) {
    super();
    if (!(maxVisits >= 1)) throw new VisitOptionError(`option "maxVisits" must be a number of at least 1, got ${String(maxVisits)}`);
    this.#maxVisits = maxVisits;
  }

  async check(): Promise<void> {}

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    return ids.map((id) => copyOf(this.#visits.get(id) ?? null));
  }

  async create(visits: readonly NewVisitRecord[]): Promise<void> {
    const ids = new Set(visits.map(({ id }) => id));
    if (ids.size < visits.length || visits.some(({ id }) => this.#visits.has(id)))
      throw new Error('[visit] a visit with this id exists already');
    for (const visit of visits) {
      this.#visits.set(
        visit.id,
        copyOf({
          previousKeyHash: null,
          previousKeyUntil: null,
          keyChanged: visit.created,
          sessionVersion: 0,
          ...visit,
          endedAt: null,
          endReason: null,
        }),
      );
    }
    if (this.#visits.size > this.#maxVisits) this.#evict(visits.reduce((latest, { created }) => Math.max(latest, created), 0));
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return saves.map((save): SaveResult => {
      const visit = this.#visits.get(save.id) ?? null;
      const reason = refusalOf(visit, save);
      if (!visit || reason) return { outcome: 'refused', reason: reason ?? 'unknown' };
      if (save.lockOwner !== undefined && !isHeldBy(save.lockOwner, this.#leases.get(save.id) ?? {}, save.now))
        return { outcome: 'refused', reason: 'unlocked' };
      if (visit.sessionVersion !== save.version) {
        return { outcome: 'conflict', version: visit.sessionVersion, data: visit.sessionData && visit.sessionData.slice() };
      }
      visit.sessionData = save.data && Uint8Array.from(save.data);
      visit.sessionVersion++;
      return { outcome: 'saved', version: visit.sessionVersion };
    });
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    for (const touch of touches) {
      const { id, accessed, expiry } = touch;
      const visit = this.#visits.get(id);
      if (!visit || !isTouchable(visit, touch)) continue;
      visit.accessed = Math.max(visit.accessed, accessed);
      visit.expiry = Math.max(visit.expiry, expiry);
    }
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    return changes.map((change): RekeyResult => {
      const visit = this.#visits.get(change.id) ?? null;
      const reason = refusalOf(visit, rekeyGuard(change));
      if (!visit || reason) return { outcome: 'refused', reason: reason ?? 'unknown' };
      visit.previousKeyHash = change.previousKeyHash ?? visit.keyHash;
      visit.previousKeyUntil = change.previousKeyUntil;
      visit.keyChanged = change.now;
      visit.keyHash = change.newKeyHash;
      if (change.identity !== undefined) visit.identity = change.identity && { ...change.identity };
      if (change.permanent !== undefined) visit.permanent = change.permanent;
      visit.expiry = expiryAfter(change, visit.expiry);
      if (change.absoluteExpiry !== undefined) visit.absoluteExpiry = change.absoluteExpiry;
      return { outcome: 'done' };
    });
  }

  async lock({ owner, until, renews = false, ...guard }: Lock): Promise<LockResult> {
    const reason = refusalOf(this.#visits.get(guard.id) ?? null, guard);
    if (reason) return { outcome: 'refused', reason };
    const lease = this.#leases.get(guard.id);
    if (renews && !isHeldBy(owner, lease ?? {}, guard.now)) return { outcome: 'refused', reason: 'unlocked' };
    if (lease && lease.lockOwner !== owner && lease.lockedUntil > guard.now) return { outcome: 'held' };
    this.#leases.set(guard.id, { lockOwner: owner, lockedUntil: until });
    return { outcome: 'locked' };
  }

  async unlock(id: string, owner: string): Promise<void> {
    if (this.#leases.get(id)?.lockOwner === owner) this.#leases.delete(id);
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return ids.filter((id) => this.#endOne(this.#visits.get(id), ending));
  }

  async listForUser(userId: string, now: number): Promise<VisitRecord[]> {
    return this.#filter((visit) => visit.identity?.userId === userId && visit.endedAt === null && visit.expiry > now)
      .sort((a, b) => b.accessed - a.accessed || (a.id < b.id ? -1 : 1))
      .map(copyOf);
  }

  override async liveVisits({ after, limit, now }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    const visits = this.#filter(({ id, endedAt, expiry }) => id > after && endedAt === null && expiry > now)
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .slice(0, limit)
      .map(copyOf);
    return { visits, next: visits.at(-1)?.id ?? null };
  }

  async endAllForUser(userId: string, { except, ...ending }: Ending & { readonly except?: string }): Promise<string[]> {
    this.#remember(userId, ending.at);
    const visits = this.#filter(({ id, identity }) => identity?.userId === userId && id !== except);
    return visits.filter((visit) => this.#endOne(visit, ending)).map(({ id }) => id);
  }

  async endedAllAt(userId: string): Promise<number | null> {
    const instants = [userId, ''].map((id) => this.#endedAllAt.get(id)).filter((at) => at !== undefined);
    return instants.length > 0 ? Math.max(...instants) : null;
  }

  async endEverything(ending: Ending): Promise<number> {
    this.#remember('', ending.at);
    return this.#filter((visit) => this.#endOne(visit, ending)).length;
  }

  async expunge({ before, limit }: { readonly before: number; readonly limit: number }): Promise<StaleCounts> {
    const stale = this.#filter(isStale(before)).slice(0, limit);
    for (const { id } of stale) this.#drop(id);
    for (const [userId, at] of this.#endedAllAt) if (at < before) this.#endedAllAt.delete(userId);
    return countsOf(stale);
  }

  async countStale(before: number): Promise<StaleCounts> {
    return countsOf(this.#filter(isStale(before)));
  }

  async wipe({ before, limit }: { readonly before: number; readonly limit: number }): Promise<number> {
    const unwiped = this.#filter(isUnwiped(before)).slice(0, limit);
    for (const visit of unwiped) wipeData(visit);
    return unwiped.length;
  }

  async countUnwiped(before: number): Promise<number> {
    return this.#filter(isUnwiped(before)).length;
  }

  async close(): Promise<void> {}

  #filter(condition: (visit: Mutable) => boolean): Mutable[] {
    return [...this.#visits.values()].filter(condition);
  }

  #endOne(visit: Mutable | undefined, { at, reason, retiresKey = false }: Ending): boolean {
    if (!visit || visit.endedAt !== null) return false;
    if (retiresKey) visit.previousKeyUntil = visit.keyChanged = at;
    visit.endedAt = at;
    visit.endReason = reason;
    wipeData(visit);
    this.#leases.delete(visit.id);
    return true;
  }

  #remember(userId: string, at: number): void {
    this.#endedAllAt.set(userId, Math.max(at, this.#endedAllAt.get(userId) ?? at));
  }

  /**
   * Makes room for more than one: looking through all of them at each new visit would be slow. The new visit tells what time it is, since a
   * store has no clock of its own.
   */
  #evict(now: number): void {
    const isDead = ({ endedAt, expiry }: Mutable) => endedAt !== null || expiry <= now;
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

function isStale(before: number) {
  return ({ expiry, endedAt }: VisitRecord) => expiry < before || (endedAt !== null && endedAt < before);
}

function isUnwiped(before: number) {
  return ({ expiry, sessionData }: VisitRecord) => expiry < before && sessionData !== null;
}

function countsOf(visits: readonly VisitRecord[]): StaleCounts {
  return { visits: visits.length, identities: visits.filter(({ identity }) => identity).length };
}

function wipeData(visit: Mutable): void {
  visit.sessionData = null;
  visit.sessionVersion++;
}

/** What callers hold and what is stored never share bytes. */
function copyOf<T extends VisitRecord | null>(visit: T): T {
  if (!visit) return visit;
  return {
    ...visit,
    sessionData: visit.sessionData && Uint8Array.from(visit.sessionData),
    identity: visit.identity && { ...visit.identity },
  };
}
