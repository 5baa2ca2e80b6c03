import { randomBytes } from 'node:crypto';
import { VisitError, VisitOptionError } from '../../errors/visit.error.js';
import type { Clock } from '../../options/visit-options.interface.js';
import type {
  CleanUpBatch,
  EndedBatch,
  EndingBatch,
  ExpungedBatch,
  ListPosition,
  Lock,
  LockResult,
  UserEndingBatch,
  UserList,
  UserVisits,
  VisitCleanup,
  VisitLocks,
  VisitPage,
  VisitPages,
  VisitServer,
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
import { byAccess, pageOf } from '../visit.record.js';

/** The end reason of a visit that continues in the other store. */
const MOVED = 'moved';

/**
 * A prefix of the session data of a visit that is being moved. No serializer uses it: the first byte of ours is its
 * format.
 */
const MARK = Buffer.from('\0moving\0');

/** The prefix of a position in `to`. */
const IN_TO = 'to:';

/** How many attempts are made to move a visit that is being changed. */
const MOST_TRIES = 20;

/** A visit that could not be moved. It stays in the old store, and cannot be used until `to` accepts it. */
export interface RefusedVisit {
  readonly id: string;
  /** What the store threw. */
  readonly error: unknown;
}

/** The result of a batch in one of the stores. */
interface Done {
  readonly visits?: number;
  readonly ended?: readonly string[];
  readonly next: unknown;
}

/** The result for a page of visits. */
export interface MovedPage {
  readonly moved: number;
  readonly refused: readonly RefusedVisit[];
  /** Where the next page begins; null: that was the last one. */
  readonly next: string | null;
}

/** Options of `MovingVisitStore`. */
export interface MovingVisitStoreOptions {
  /** The old store. */
  readonly from: VisitStore;
  /** The new store. */
  readonly to: VisitStore;
  /**
   * Whether visits move when they are used, and new visits begin in `to`. Set it to false while other processes still
   * use `from` alone: then all visits stay there, and visits that have already moved are still found. @default true
   */
  readonly moves?: boolean;
  /** @default Date */
  readonly clock?: Clock;
}

/**
 * Combines two stores while visits move from the first to the second: a visit is looked up in both, moves when it is
 * used, and is written where it is. No acknowledged write is lost, as long as every process that uses `from` does so
 * through this class.
 *
 * A visit moves in steps. Each step can be repeated by another process, if a process dies between them:
 *
 * 1. Its session data is marked by a compare-and-set. From then on, every save that does not know of the mark
 *    conflicts.
 * 2. It is inserted in `to`, with its version.
 * 3. It ends in `from` with the reason "moved". From then on, every other write there is refused.
 * 4. What has happened to it between the steps (it was ended, its key was changed) is also done in `to`.
 *
 * Until then, the copy may be that of an ended visit, or have a replaced key, so it is not used: both stores are asked
 * for a visit, and a process that finds an unfinished move completes it.
 */
export class MovingVisitStore
  extends VisitStore
  implements UserVisits, VisitPages, VisitLocks, VisitCleanup, VisitServer
{
  override readonly capabilities: VisitStoreCapabilities;
  // What both stores can.
  override readonly users: UserVisits | undefined;
  override readonly pages: VisitPages | undefined;
  override readonly locks: VisitLocks | undefined;
  /** The clean-up of either store; one of them may delete stale visits by itself. */
  override readonly cleanup: VisitCleanup | undefined;
  override readonly server: VisitServer = this;
  readonly #from: VisitStore;
  readonly #to: VisitStore;
  readonly #moves: boolean;
  readonly #clock: Clock;

  constructor({ from, to, moves = true, clock = Date }: MovingVisitStoreOptions) {
    super();
    if (from === to) throw sameVisits();
    if (from.clients || to.clients)
      throw new VisitOptionError('MovingVisitStore does not support stores that keep visits in cookies');
    this.#from = from;
    this.#to = to;
    this.#moves = moves;
    this.#clock = clock;
    const both = (name: keyof VisitStoreCapabilities): boolean => from.capabilities[name] && to.capabilities[name];
    this.capabilities = {
      atomic: both('atomic'),
      revocable: both('revocable'),
      shared: both('shared'),
      durable: both('durable'),
    };
    this.users = from.users && to.users && this;
    this.pages = from.pages && to.pages && this;
    this.locks = from.locks && to.locks && this;
    this.cleanup = (from.cleanup ?? to.cleanup) && this;
  }

  get connections(): number | undefined {
    const [from = Infinity, to = Infinity] = [this.#from.server?.connections, this.#to.server?.connections];
    const least = Math.min(from, to);
    return least === Infinity ? undefined : least;
  }

  get isDivided(): boolean {
    return [this.#from, this.#to].some(({ server }) => server?.isDivided);
  }

  setDeadline(milliseconds: number): void {
    for (const { server } of [this.#from, this.#to]) server?.setDeadline?.(milliseconds);
  }

  requireConnection(): void {
    for (const { server } of [this.#from, this.#to]) server?.requireConnection?.();
  }

  async serverTime(): Promise<number> {
    return (await this.#to.server?.serverTime?.()) ?? (await this.#from.server?.serverTime?.()) ?? this.#clock.now();
  }

  /** @throws VisitOptionError if `to` is neither shared nor durable and `from` is */
  async check(): Promise<void> {
    const outlives = ({ capabilities: { shared, durable } }: VisitStore): boolean => shared || durable;
    if (outlives(this.#from) && !outlives(this.#to)) {
      throw new VisitOptionError(
        `visits cannot be moved to ${this.#to.constructor.name}, which is neither shared nor durable: they would ` +
          'be lost with this process',
      );
    }
    await this.#from.check();
    await this.#to.check();
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    const [copies, olds] = await this.#findBoth(ids);
    return Promise.all(ids.map((_, index) => this.#settle(olds[index]!, copies[index]!)));
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    await (this.#moves ? this.#to : this.#from).create(visits);
  }

  async save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return this.#write(saves, (store, some) => store.save(some));
  }

  async rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    return this.#write(changes, (store, some) => store.rekey(some));
  }

  async lock(lock: Lock): Promise<LockResult> {
    const [result] = await this.#write([lock], async (store, some) => [await store.locks!.lock(some[0]!)]);
    return result!;
  }

  async unlock(id: string, owner: string): Promise<void> {
    await Promise.all([this.#from, this.#to].map((store) => store.locks!.unlock(id, owner)));
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    // Where a visit is not, or has ended, it is left alone.
    await Promise.all([this.#from.touch(touches), this.#to.touch(touches)]);
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    // In this order: who moves a visit meanwhile sees afterwards that it has ended.
    const ended = new Set([...(await this.#from.end(ids, ending)), ...(await this.#to.end(ids, ending))]);
    return ids.filter((id) => ended.has(id));
  }

  async listForUser(list: UserList): Promise<VisitPage<ListPosition>> {
    const olds = await this.#from.users!.listForUser(list);
    const moved = await this.#to.users!.listForUser(list);
    const known = new Set(moved.visits.map(({ id }) => id));
    const all = [...moved.visits, ...olds.visits.filter(({ id }) => !known.has(id))];
    // Beyond the end of either page, the other one may not have all.
    const [end] = [olds.next, moved.next].filter((next) => next !== null).sort(byAccess);
    const { visits, next } = pageOf(end ? all.filter((visit) => byAccess(visit, end) <= 0) : all, list);
    return { visits, next: next ?? end ?? null };
  }

  async userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    return [
      ...new Set([
        ...(await this.#from.users!.userAgentsOf(userId, before)),
        ...(await this.#to.users!.userAgentsOf(userId, before)),
      ]),
    ];
  }

  /** The live visits of `from`, then those of `to`. */
  async liveVisits({ after, ...page }: { after: string; limit: number; now: number }): Promise<VisitPage> {
    if (!after.startsWith(IN_TO)) {
      const { visits, next } = await this.#from.pages!.liveVisits({ after, ...page });
      return { visits, next: next ?? IN_TO };
    }
    const { visits, next } = await this.#to.pages!.liveVisits({ after: after.slice(IN_TO.length), ...page });
    return { visits, next: next === null ? null : IN_TO + next };
  }

  async endAllForUser(batch: UserEndingBatch): Promise<EndedBatch> {
    return this.#inTurn(batch, (store, one) => store.users!.endAllForUser(one));
  }

  async endAll(batch: EndingBatch): Promise<EndedBatch> {
    return this.#inTurn(batch, (store, one) => store.users!.endAll(one));
  }

  async revokedAt(userId: string): Promise<number | null> {
    const instants = await Promise.all([this.#from.users!.revokedAt(userId), this.#to.users!.revokedAt(userId)]);
    const known = instants.filter((at) => at !== null);
    return known.length > 0 ? Math.max(...known) : null;
  }

  expunge(batch: CleanUpBatch): Promise<ExpungedBatch> {
    return this.#inTurn(
      batch,
      async (store, one) => (await store.cleanup?.expunge(one)) ?? { visits: 0, identities: 0, next: null },
    );
  }

  wipe(batch: CleanUpBatch): Promise<WipedBatch> {
    return this.#inTurn(batch, async (store, one) => (await store.cleanup?.wipe(one)) ?? { visits: 0, next: null });
  }

  async close(): Promise<void> {
    await this.#from.close();
    await this.#to.close();
  }

  /**
   * Moves a page of live visits, whether or not they are used. A visit that `to` refuses, for example because it is too
   * large, is skipped.
   *
   * @param page `after`: '' at first, then the `next` of the previous page; `limit`: the maximum number of visits
   * @returns how many visits have moved, which have not, and the start of the next page; null: that was the last one
   * @throws the error of a store that is unavailable
   */
  async movePage({ after, limit }: { readonly after: string; readonly limit: number }): Promise<MovedPage> {
    const { visits, next } = await this.#from.pages!.liveVisits({ after, limit, now: this.#clock.now() });
    const ids = visits.map(({ id }) => id);
    const [copies, olds] = await this.#findBoth(ids);
    const move = async (copy: VisitRecord | null, old: VisitRecord | null): Promise<boolean> => {
      if (copy) await this.#finish(copy, old);
      else if (old) await this.#move(old);
      return (copy ?? old) !== null;
    };
    const results = await Promise.allSettled(ids.map((_, index) => move(copies[index]!, olds[index]!)));
    const refused = results.flatMap((result, index) =>
      result.status === 'rejected' ? [{ id: ids[index]!, error: result.reason as unknown }] : [],
    );
    if (refused.length > 0) await this.#requireStores(refused);
    return { moved: results.filter((result) => result.status === 'fulfilled' && result.value).length, refused, next };
  }

  /** If both stores answer, the failures are due to the visits themselves. */
  async #requireStores(refused: readonly RefusedVisit[]): Promise<void> {
    const [first] = refused;
    const ours = refused.find(({ error }) => error instanceof VisitError);
    if (ours) throw ours.error;
    const nobody = [randomBytes(16).toString('hex')];
    await this.#findBoth(nobody).catch(() => {
      throw first!.error;
    });
  }

  /** The number of visits that have not moved yet. */
  async countLive(): Promise<number> {
    let count = 0;
    for (let after: string | null = ''; after !== null;) {
      const { visits, next }: VisitPage = await this.#from.pages!.liveVisits({
        after,
        limit: 500,
        now: this.#clock.now(),
      });
      count += visits.length;
      after = next;
    }
    return count;
  }

  /** Runs a batch of `from`; when nothing is left there, one of `to`. */
  async #inTurn<B extends { readonly after?: unknown }, D extends Done>(
    batch: B,
    call: (store: VisitStore, batch: B) => Promise<D>,
  ): Promise<D> {
    const { isInTo = false, after } = (batch.after ?? {}) as { isInTo?: boolean; after?: unknown };
    const done = await call(isInTo ? this.#to : this.#from, { ...batch, after });
    if (done.next !== null) return { ...done, next: { isInTo, after: done.next } };
    if (isInTo) return done;
    const next = { isInTo: true };
    const isIdle = (done.visits ?? done.ended?.length) === 0;
    return isIdle ? this.#inTurn({ ...batch, after: next }, call) : { ...done, next };
  }

  async #findBoth(ids: readonly string[]): Promise<[copies: (VisitRecord | null)[], olds: (VisitRecord | null)[]]> {
    return Promise.all([this.#to.find(ids), this.#from.find(ids)]);
  }

  /** Returns the current state of a visit that was found. */
  async #settle(old: VisitRecord | null, copy: VisitRecord | null): Promise<VisitRecord | null> {
    if (copy) return this.#finish(copy, old);
    if (!old) return null;
    if (old.endedAt !== null) return this.#follow(old);
    const isWanted = this.#moves && old.expiry > this.#clock.now();
    return isWanted || isMarked(old.sessionData) ? this.#move(old) : old;
  }

  async #findMoved(id: string): Promise<VisitRecord | null> {
    const [moved = null] = await this.#to.find([id]);
    return moved;
  }

  /** Returns the state of a visit that has ended in `from`. */
  async #follow(old: VisitRecord): Promise<VisitRecord | null> {
    if (old.endReason !== MOVED) return old;
    const copy = await this.#findMoved(old.id);
    return copy && this.#finish(copy, old);
  }

  async #move(found: VisitRecord): Promise<VisitRecord | null> {
    let old: VisitRecord | null = found;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (old === null) return this.#findMoved(found.id);
      if (old.endedAt !== null) return this.#follow(old);
      const marked: VisitRecord | null = isMarked(old.sessionData) ? old : await this.#mark(old);
      if (marked) return this.#insert(unmarked(marked));
      [old = null] = await this.#from.find([found.id]);
    }
    throw new Error(`[visit] visit ${found.id} could not be moved, because it was changed at each attempt`);
  }

  /** Marks a visit. Null: another request has changed it. */
  async #mark(old: VisitRecord): Promise<VisitRecord | null> {
    const { id, keyHash, sessionVersion: version } = old;
    const data = Buffer.concat([MARK, old.sessionData ?? new Uint8Array(0)]);
    const [result] = await this.#from.save([{ id, keyHash, now: this.#clock.now(), version, data }]);
    if (result!.outcome === 'failed') throw result!.error;
    return result!.outcome === 'saved' ? { ...old, sessionData: data, sessionVersion: result!.version } : null;
  }

  async #insert(visit: VisitRecord): Promise<VisitRecord | null> {
    const { id } = visit;
    try {
      await this.#to.create([visit]);
    } catch (error) {
      // Somebody else may have been faster.
      if (!(await this.#findMoved(id))) throw error;
    }
    const last = await this.#leave(id);
    if (last) await this.#catchUp(visit, last);
    const copy = await this.#findMoved(id);
    return copy && this.#finish(copy, last);
  }

  /** Ends the original, and returns its final state. */
  async #leave(id: string): Promise<VisitRecord | null> {
    await this.#from.end([id], { reason: MOVED, at: this.#clock.now() });
    const [last = null] = await this.#from.find([id]);
    return last;
  }

  /** Completes the last steps of a move, if necessary. Only then may a copy be used. */
  async #finish(copy: VisitRecord, old: VisitRecord | null): Promise<VisitRecord | null> {
    if (!old || copy.endedAt !== null) return copy;
    if (old.endedAt === null) await this.#ensureMarked(old);
    const last = old.endedAt === null ? await this.#leave(copy.id) : old;
    // Keys never come back: if the copy has the one that was replaced last, it has not been told.
    if (last && (last.endReason !== MOVED || last.previousKeyHash === copy.keyHash)) await this.#catchUp(copy, last);
    else if (last === old) return copy;
    return this.#findMoved(copy.id);
  }

  /**
   * A visit is marked before it is copied. If it has a copy but no mark, it is its own copy: both stores use the same
   * rows.
   */
  async #ensureMarked(old: VisitRecord): Promise<void> {
    const isOwnCopy = (visit: VisitRecord | null): boolean =>
      visit !== null && visit.endedAt === null && !isMarked(visit.sessionData) && visit.expiry > this.#clock.now();
    if (!isOwnCopy(old)) return;
    // It may have been read before it was marked, and its copy after that.
    const [again = null] = await this.#from.find([old.id]);
    if (isOwnCopy(again)) throw sameVisits();
  }

  /**
   * Applies what was written in `from` after the visit was read and before it ended there. Session data cannot have
   * changed, because it was marked.
   */
  async #catchUp(visit: VisitRecord, last: VisitRecord): Promise<void> {
    const { id, keyHash } = visit;
    const { accessed, expiry, absoluteExpiry, permanent, identity, previousKeyUntil } = last;
    if (last.endReason !== MOVED) {
      const at = last.endedAt ?? this.#clock.now();
      const retiresKey = last.keyChanged === at && previousKeyUntil === at;
      await this.#to.end([id], { reason: last.endReason ?? 'ended', at, retiresKey });
      return;
    }
    if (last.keyHash !== keyHash) {
      const change = { permanent, identity, expiry, previousKeyUntil, absoluteExpiry };
      await this.#to.rekey([{ id, keyHash, now: last.keyChanged, newKeyHash: last.keyHash, ...change }]);
      // Who ended all visits of the user before this has not seen that it is one of them.
      const isLinked = identity !== null && identity.userId !== visit.identity?.userId;
      const endedAll = isLinked && this.users ? await this.users.revokedAt(identity.userId) : null;
      if (endedAll !== null && endedAll > identity!.created)
        await this.#to.end([id], { reason: 'revoked', at: endedAll });
    }
    if (accessed > visit.accessed || expiry > visit.expiry)
      await this.#to.touch([{ id, accessed, expiry, keyChanged: last.keyChanged }]);
  }

  /**
   * Writes each change where its visit is, which is looked up first: a store may treat a visit that is inserted
   * meanwhile as its own write.
   */
  async #write<W extends { readonly id: string }, R extends SaveResult | RekeyResult | LockResult>(
    writes: readonly W[],
    call: (store: VisitStore, some: readonly W[]) => Promise<R[]>,
  ): Promise<R[]> {
    const ids = [...new Set(writes.map(({ id }) => id))];
    const [copies, olds] = await this.#findBoth(ids);
    await Promise.all(copies.map(async (copy, index) => copy && this.#finish(copy, olds[index]!)));
    const moved = new Set(ids.filter((_, index) => copies[index]));
    const there = writes.map(({ id }) => moved.has(id));
    const results: R[] = [];
    for (const store of [this.#to, this.#from]) {
      const some = writes
        .map((write, index) => ({ write, index }))
        .filter(({ index }) => there[index] === (store === this.#to));
      if (some.length === 0) continue;
      const answers = await call(
        store,
        some.map(({ write }) => write),
      );
      for (const [position, { index }] of some.entries()) results[index] = answers[position]!;
    }
    for (const [index, write] of writes.entries()) {
      if (there[index] || !hasMoved(results[index]!)) continue;
      await this.find([write.id]);
      const [again] = await call(this.#to, [write]);
      if (!isUnknown(again!)) results[index] = again!;
    }
    return results;
  }
}

function sameVisits(): Error {
  return new VisitOptionError('"from" and "to" of MovingVisitStore are the same store of visits: nothing can be moved');
}

type Result = SaveResult | RekeyResult | LockResult;

const isUnknown = (result: Result): boolean => result.outcome === 'refused' && result.reason === 'unknown';

/** Whether the visit may have moved in the meantime, or be about to. */
function hasMoved(result: Result): boolean {
  if (result.outcome === 'conflict') return isMarked(result.data);
  return result.outcome === 'refused' && result.reason === 'ended';
}

function isMarked(data: Uint8Array | null): boolean {
  return data !== null && data.length >= MARK.length && MARK.equals(data.subarray(0, MARK.length));
}

function unmarked(visit: VisitRecord): VisitRecord {
  if (!isMarked(visit.sessionData)) return visit;
  const data = visit.sessionData!.subarray(MARK.length);
  return { ...visit, sessionData: data.length === 0 ? null : data };
}
