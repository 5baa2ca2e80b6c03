import { createHash, randomBytes } from 'node:crypto';
import { askEach, type Outcome } from './ask-each.js';
import type {
  CleanUpBatch,
  EndedBatch,
  EndingBatch,
  ExpungedBatch,
  KeptVisits,
  ListPosition,
  Lock,
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
} from './visit.facets.js';
import { VisitStore, type Ending, type Rekey, type RekeyResult, type Touch, type VisitRecord } from './visit.store.js';
import { MAX_ROWS } from '../options/max-rows.js';
import { refusalOf } from './visit.record.js';

export { MAX_ROWS };

/**
 * The maximum number of bytes in one group. It keeps the largest statement well below the 16 MB limit of MariaDB, where
 * binary data is sent as hexadecimal digits.
 */
export const MAX_BYTES = 4_000_000;
/** How often a refused write is retried if its reason has disappeared; after that, something else is wrong. */
export const MAX_UNEXPLAINED = 10;
/** The user id that stands for all users. */
export const EVERYBODY = '';
/** The latest instant of `Date`. */
const LATEST = 8_640_000_000_000_000;
/**
 * An id that no visit has, and that sorts before all ids. Not an empty text, which is NULL with EMPTY_STRING_IS_NULL.
 */
export const NO_ID = '-';

/** How many visits of a user are looked up at once, to be ended in batches. */
const MOST_OF_USER = 20_000;

/** A visit to end. */
export interface VisitToEnd {
  readonly id: string;
  /** Its key must still be this one. Then it still belongs to the same user, because linking a user changes the key. */
  readonly keyHash?: string;
}

/** The position of a look-up of stale visits: it continues behind this visit, ordered by this column and the id. */
export interface StalePlace {
  readonly column: 'expiry' | 'endedAt';
  readonly instant: number;
  readonly id: string;
}

/** The first positions, for each column. */
const [FIRST_EXPIRED, FIRST_ENDED] = (['expiry', 'endedAt'] as const).map((column): StalePlace => ({
  column,
  instant: Number.MIN_SAFE_INTEGER,
  id: NO_ID,
}));

/**
 * Stale visits that were looked up, how many of them have been processed, and the position of the next look-up;
 * undefined: there is none.
 */
interface Looked {
  readonly ids: readonly string[];
  readonly done: number;
  readonly next: StalePlace | undefined;
}

/** The constraint that prevents a visit from being deleted, because rows of other tables refer to it. */
export interface Reference {
  /** The name of the constraint, if known. */
  readonly constraint: string | undefined;
}

/** Visits of a user that were looked up. Those from `done` on must still be ended. */
interface LookedToEnd {
  readonly visits: readonly VisitToEnd[];
  readonly done: number;
  /** Whether there may be more visits: there were too many for one look-up, or a key has changed in the meantime. */
  readonly isPartial: boolean;
}

const LOOK_AGAIN = Symbol('look again');

/**
 * The common part of all stores over tables: it goes through the table for clean-up, and ends many visits without
 * missing one. Subclasses provide single statements or transactions.
 */
export abstract class TableVisitStore extends VisitStore implements UserVisits, VisitPages, VisitLocks, VisitCleanup {
  override readonly users = this;
  override readonly pages = this;
  override readonly locks = this;
  override readonly cleanup = this;
  /**
   * How many stale visits are looked up at once, to be deleted in batches. In the order of their keys, several are on
   * the same page of the table.
   */
  protected abstract readonly staleIdsAtOnce: number;

  abstract unlock(id: string, owner: string): Promise<void>;
  abstract listForUser(list: UserList): Promise<VisitPage<ListPosition>>;
  abstract userAgentsOf(userId: string, before: number): Promise<(string | null)[]>;
  abstract revokedAt(userId: string): Promise<number | null>;
  abstract liveVisits(page: {
    readonly after: string;
    readonly limit: number;
    readonly now: number;
  }): Promise<VisitPage>;

  /**
   * Writes the instants of each visit if they are later than the stored ones, unless its key has changed since. The
   * visits are distinct and ordered by id.
   */
  protected abstract touchEach(touches: readonly Required<Touch>[]): Promise<void>;
  protected abstract rekeyOne(change: Rekey): Promise<RekeyResult>;
  /** Takes the lock or renews its lease. Returns whether it did. */
  protected abstract takeLock(lock: Lock): Promise<boolean>;
  /**
   * Ends those of these visits that have not ended and still have the given key, in one step. They are distinct,
   * ordered by id, and at most `MAX_ROWS`. `mark` is stored as the owner of their locks, which ended visits do not
   * need. So it can be determined afterwards which visits this call has ended, even if its answer was lost. Returns
   * their ids, or undefined if only the mark can tell.
   */
  protected abstract endThese(
    visits: readonly VisitToEnd[],
    ending: Ending,
    mark: string,
  ): Promise<readonly string[] | undefined>;
  /** Returns those of these visits that have the mark. */
  protected abstract markedIds(ids: readonly string[], mark: string): Promise<string[]>;
  /** Stores that all visits of the user end now; a later stored instant is kept. */
  protected abstract remember(userId: string, at: number): Promise<void>;
  /**
   * Returns at most `most` visits of the user that have not ended, including expired ones, ordered by id, without
   * `except`.
   */
  protected abstract keysOfUser(userId: string, except: string, most: number): Promise<Required<VisitToEnd>[]>;
  /** Returns at most `most` visits that have not ended, behind `after`, ordered by id. */
  protected abstract liveIds(after: string, most: number): Promise<string[]>;
  /**
   * Returns visits whose `place.column` is before this instant, behind the place, ordered by that column and the id.
   * For `endedAt`, only those whose `expiry` is not before the instant, because the others are found by `expiry`.
   */
  protected abstract staleBehind(
    place: StalePlace,
    before: number,
    most: number,
  ): Promise<{ id: string; instant: number }[]>;
  /** Deletes those of these visits that are still stale: all of them, or none if it throws. */
  protected abstract expungeThese(ids: readonly string[], before: number): Promise<StaleCounts>;
  /**
   * The constraint in an error of `expungeThese`, if rows of other tables refer to the visits; undefined for any other
   * error.
   */
  protected abstract referenceIn(error: unknown): Reference | undefined;
  protected abstract expungeRevocations(before: number): Promise<void>;
  /** Returns visits with session data whose expiry is between `from` and `before`, ordered by expiry. */
  protected abstract unwiped(where: {
    from: number;
    before: number;
    most: number;
  }): Promise<{ id: string; expiry: number }[]>;
  /** Wipes the session data of those of these visits that are still expired. Returns how many there were. */
  protected abstract wipeThese(ids: readonly string[], before: number): Promise<number>;
  /** Returns how many visits and identities `expunge` would delete. */
  protected abstract countStale(before: number): Promise<StaleCounts>;
  /** Returns how many visits `wipe` would change. */
  protected abstract countUnwiped(before: number): Promise<number>;

  /** Like `find`, but a visit that cannot be read fails alone. */
  protected findEach(ids: readonly string[]): Promise<readonly Outcome<VisitRecord | null>[]> {
    return askEach(ids, { ask: (some) => this.find(some), probe: () => this.find([NO_ID]) });
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    const latest = new Map<string, Required<Touch>>();
    for (const { id, accessed, expiry, keyChanged = LATEST } of touches) {
      const other = latest.get(id);
      // Of two touches with different keys, only the later one can count.
      if (other && other.keyChanged > keyChanged) continue;
      const same = other?.keyChanged === keyChanged ? other : undefined;
      const instants = {
        accessed: Math.max(accessed, same?.accessed ?? 0),
        expiry: Math.max(expiry, same?.expiry ?? 0),
      };
      latest.set(id, { id, keyChanged, ...instants });
    }
    await this.touchEach([...latest.values()].sort(byId));
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    const results: RekeyResult[] = [];
    for (const change of changes) results.push(await this.rekeyOne(change));
    return results;
  }

  async lock(lock: Lock): Promise<LockResult> {
    if (await this.takeLock(lock)) return { outcome: 'locked' };
    const [stored = null] = await this.find([lock.id]);
    const reason = refusalOf(stored, lock) ?? (lock.renews ? 'unlocked' : null);
    return reason ? { outcome: 'refused', reason } : { outcome: 'held' };
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    const visits = [...new Set(ids)].sort().map((id) => ({ id }));
    const ended = new Set<string>();
    for (const group of chunks(visits)) for (const id of await this.#endGroup(group, ending)) ended.add(id);
    return ids.filter((id) => ended.delete(id));
  }

  async endAllForUser({ userId, ending, limit, after, except = NO_ID }: UserEndingBatch): Promise<EndedBatch> {
    if (after === undefined) await this.remember(userId, ending.at);
    const isNewLook = after === undefined || after === LOOK_AGAIN;
    const looked = isNewLook ? await this.#lookToEnd(userId, except) : (after as LookedToEnd);
    const end = looked.done + Math.min(limit, MAX_ROWS);
    const group = looked.visits.slice(looked.done, end);
    const ended = await this.#endGroup(group, ending);
    // A visit whose key has changed may belong to another user now, so another look-up is needed.
    const isPartial = looked.isPartial || ended.length < group.length;
    if (end < looked.visits.length) return { ended, next: { ...looked, done: end, isPartial } };
    return { ended, next: isPartial ? LOOK_AGAIN : null };
  }

  async endAll({ ending, limit, after }: EndingBatch): Promise<EndedBatch> {
    if (after === undefined) await this.remember(EVERYBODY, ending.at);
    // Goes through the table once: visits that begin meanwhile may remain, or this would never end.
    const most = Math.min(limit, MAX_ROWS);
    const ids = await this.liveIds((after as string | undefined) ?? NO_ID, most);
    const visits = ids.map((id) => ({ id }));
    return { ended: await this.#endGroup(visits, ending), next: ids.length < most ? null : ids.at(-1)! };
  }

  async #lookToEnd(userId: string, except: string): Promise<LookedToEnd> {
    const visits = await this.keysOfUser(userId, except, MOST_OF_USER);
    return { visits, done: 0, isPartial: visits.length >= MOST_OF_USER };
  }

  /**
   * Returns the ids that this call has ended. After a lost answer, they are looked up, because a repeated call could
   * not tell which ones it has ended.
   */
  async #endGroup(visits: readonly VisitToEnd[], ending: Ending): Promise<string[]> {
    if (visits.length === 0) return [];
    const mark = randomBytes(16).toString('hex');
    const ids = visits.map(({ id }) => id);
    const marked = (): Promise<string[]> => this.markedIds(ids, mark);
    try {
      return [...((await this.endThese(visits, ending, mark)) ?? (await marked()))];
    } catch (error) {
      const ended = await marked().catch(() => []);
      if (ended.length === 0) throw error;
      return ended;
    }
  }

  async expunge({ before, limit, after, dryRun = false }: CleanUpBatch): Promise<ExpungedBatch> {
    if (dryRun) return { ...(await this.countStale(before)), next: null };
    const { ids, done, next } = (after as Looked | undefined) ?? (await this.#lookUpStale(FIRST_EXPIRED, before));
    if (ids.length === 0) {
      await this.expungeRevocations(before);
      return { visits: 0, identities: 0, next: null };
    }
    const end = done + Math.min(limit, MAX_ROWS);
    const expunged = await this.#expungeAllBut(ids.slice(done, end), before);
    const rest: Looked = end < ids.length ? { ids, done: end, next } : await this.#lookUpStale(next, before);
    return { ...expunged, next: rest };
  }

  /**
   * Skips visits to which rows of other tables refer with a restricting foreign key. They are found by trying halves,
   * because the database names at most one.
   */
  async #expungeAllBut(ids: readonly string[], before: number): Promise<Omit<ExpungedBatch, 'next'>> {
    try {
      return await this.expungeThese(ids, before);
    } catch (error) {
      const reference = this.referenceIn(error);
      if (!reference) throw error;
      const constraints = reference.constraint === undefined ? [] : [reference.constraint];
      if (ids.length === 1) return { visits: 0, identities: 0, kept: { visits: 1, constraints } };
      const middle = ids.length >> 1;
      const [one, other] = [
        await this.#expungeAllBut(ids.slice(0, middle), before),
        await this.#expungeAllBut(ids.slice(middle), before),
      ];
      return {
        visits: one.visits + other.visits,
        identities: one.identities + other.identities,
        kept: keptIn([one, other]),
      };
    }
  }

  async wipe({ before, limit, after, dryRun = false }: CleanUpBatch): Promise<WipedBatch> {
    if (dryRun) return { visits: await this.countUnwiped(before), next: null };
    // Not past those again that are wiped already, and at the end once more from the beginning: some may have come
    // behind.
    const from = (after as number | undefined) ?? 0;
    const visits = await this.unwiped({ from, before, most: Math.min(limit, MAX_ROWS) });
    const last = visits.at(-1);
    if (!last) return { visits: 0, next: from === 0 ? null : 0 };
    return { visits: await this.wipeThese(visits.map(({ id }) => id).sort(), before), next: last.expiry };
  }

  /**
   * Looks up stale visits, in the order of their keys, because several are on the same page of the table. Several
   * machines use the same order; in different orders, neighboring rows would cause deadlocks. Visits that are skipped
   * are left behind.
   */
  async #lookUpStale(from: StalePlace | undefined, before: number): Promise<Looked> {
    const ids = new Set<string>();
    let place: StalePlace | undefined = from;
    while (place && ids.size < this.staleIdsAtOnce) {
      const most = this.staleIdsAtOnce - ids.size;
      const found = await this.staleBehind(place, before, most);
      for (const { id } of found) ids.add(id);
      const last = found.at(-1);
      if (last && found.length === most) place = { column: place.column, ...last };
      else place = place.column === 'expiry' ? FIRST_ENDED : undefined;
    }
    return { ids: [...ids].sort(), done: 0, next: place };
  }
}

/** What several batches have left, together. */
function keptIn(batches: readonly Pick<ExpungedBatch, 'kept'>[]): KeptVisits {
  const kept = batches.flatMap((batch) => batch.kept ?? []);
  return {
    visits: kept.reduce((sum, { visits }) => sum + visits, 0),
    constraints: [...new Set(kept.flatMap(({ constraints }) => constraints))],
  };
}

/** Lists that fit into one statement each. */
export function chunks<T>(
  items: readonly T[],
  bytesOf: (item: T) => number | undefined = () => 0,
  most = MAX_BYTES,
): T[][] {
  const all: T[][] = [];
  let bytes = 0;
  for (const item of items) {
    const size = bytesOf(item) ?? 0;
    bytes += size;
    const current = all.at(-1);
    if (current && current.length < MAX_ROWS && bytes <= most) {
      current.push(item);
    } else {
      all.push([item]);
      bytes = size;
    }
  }
  return all;
}

/** As what a user stands among the revocations: no collation takes two for one then. */
export function userHashOf(userId: string): string {
  return createHash('sha256').update(userId).digest('hex');
}

/** The order of ids, in which rows are locked. */
export function byId(a: { id: string }, b: { id: string }): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** A write has hit nothing `MAX_UNEXPLAINED` times, though nothing speaks against it. @param method of the store */
export function unexplainedRefusal(method: string): Error {
  return new Error(`[visit] ${method}: the database repeatedly refused a write that the stored row allows`);
}
