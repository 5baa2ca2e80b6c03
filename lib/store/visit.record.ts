import { listed, VISIT_COLUMNS, type Column } from './visit.columns.js';
import type { ListPosition, Lock, LockResult, UserList } from './visit.facets.js';
import type {
  Ending,
  ListedVisit,
  Refusal,
  Rekey,
  RekeyResult,
  SaveResult,
  SessionSave,
  Touch,
  VisitRecord,
  WriteGuard,
} from './visit.store.js';

// What the writes of the contract make of a visit, and when they are refused: pure functions, and the one home of both.
// A store that can read a visit and keep the next one in one step needs no more than these; one that writes by
// conditions of its own asks them afterwards why a write has hit nothing. No record is ever changed itself, and none
// shares bytes with what it was made of.

/** What became of a write, and what is stored from now on; null: what was stored before. */
export interface Transition<Result, Next = VisitRecord> {
  readonly result: Result;
  readonly next: Next | null;
}

/** Who has the lock of a visit, and until when; as a database gives it. */
export interface Lease {
  readonly lockOwner?: unknown;
  readonly lockedUntil?: unknown;
}

const NO_LEASE: Lease = {};

/** What has to be said of a visit that begins. */
export type NewVisit = Pick<VisitRecord, 'id' | 'keyHash' | 'created' | 'expiry'> & Partial<VisitRecord>;

/** What a visit begins with, unless something else is said. */
const FRESH = {
  ...Object.fromEntries(
    listed(VISIT_COLUMNS).flatMap(({ name, nullable }: Column & { readonly name: string }) =>
      nullable ? [[name, null]] : [],
    ),
  ),
  permanent: false,
  sessionVersion: 0,
  identity: null,
};

/**
 * A visit that begins. Its key is as old as itself and has replaced none, it was used last when it was created, its
 * session is empty and has version 0, it is nobody's, and it has not ended; unless something else is said.
 */
export function created(visit: NewVisit): VisitRecord {
  const { created: now } = visit;
  return copyOf({ ...FRESH, keyChanged: now, accessed: now, ...visit } as VisitRecord);
}

/**
 * A save: compare-and-set on the version. `next` is null where it was refused, or met a conflict.
 *
 * @param lease who has the lock by now
 */
export function saved(visit: VisitRecord | null, save: SessionSave, lease = NO_LEASE): Transition<SaveResult> {
  const verdict = verdictOn(save, visit, lease);
  if (verdict?.outcome === 'conflict') return { result: { ...verdict, data: bytesOf(verdict.data) }, next: null };
  if (verdict || !visit) return { result: verdict ?? refused('unknown'), next: null };
  const version = visit.sessionVersion + 1;
  return {
    result: { outcome: 'saved', version },
    next: { ...visit, sessionData: bytesOf(save.data), sessionVersion: version },
  };
}

/** Null: the visit is left alone. */
export function touched(visit: VisitRecord | null, touch: Touch): VisitRecord | null {
  if (!visit || visit.endedAt !== null || visit.keyChanged > (touch.keyChanged ?? Infinity)) return null;
  return { ...visit, accessed: Math.max(visit.accessed, touch.accessed), expiry: Math.max(visit.expiry, touch.expiry) };
}

/** A change of key, with the identity and lifetime that come with it. `next` is null where it was refused. */
export function rekeyed(visit: VisitRecord | null, change: Rekey): Transition<RekeyResult> {
  const reason = refusalOf(visit, rekeyGuard(change));
  if (reason || !visit) return { result: refused(reason ?? 'unknown'), next: null };
  const { identity, absoluteExpiry } = change;
  const next: VisitRecord = {
    ...visit,
    keyHash: change.newKeyHash,
    previousKeyHash: change.previousKeyHash ?? visit.keyHash,
    previousKeyUntil: change.previousKeyUntil,
    keyChanged: change.now,
    identity: identity === undefined ? visit.identity : identity && { ...identity },
    permanent: change.permanent ?? visit.permanent,
    expiry: expiryAfter(change, visit.expiry),
    absoluteExpiry: absoluteExpiry === undefined ? visit.absoluteExpiry : absoluteExpiry,
  };
  return { result: { outcome: 'done' }, next };
}

/** Null: there is nothing to end. */
export function ended(visit: VisitRecord | null, { at, reason, retiresKey = false }: Ending): VisitRecord | null {
  if (!visit || visit.endedAt !== null) return null;
  const retired = retiresKey ? { previousKeyUntil: at, keyChanged: at } : {};
  return { ...emptied(visit), ...retired, endedAt: at, endReason: reason };
}

/** Of who wants the lock, and what is known of who has it. */
export function locked(
  visit: VisitRecord | null,
  lock: Lock,
  lease = NO_LEASE,
): Transition<LockResult, Required<Lease>> {
  const { owner, until, now, renews = false } = lock;
  const reason = refusalOf(visit, lock) ?? (renews && !isHeldBy(owner, lease, now) ? 'unlocked' : null);
  if (reason) return { result: refused(reason), next: null };
  const isFree = !lease.lockOwner || lease.lockOwner === owner || !(Number(lease.lockedUntil) > now);
  return isFree
    ? { result: { outcome: 'locked' }, next: { lockOwner: owner, lockedUntil: until } }
    : { result: { outcome: 'held' }, next: null };
}

/** Without its session data, whose version has grown by that. */
export function emptied(visit: VisitRecord): VisitRecord {
  return { ...visit, sessionData: null, sessionVersion: visit.sessionVersion + 1 };
}

/** What callers hold and what is stored never share bytes. */
export function copyOf(visit: VisitRecord): VisitRecord {
  const { sessionData, identity } = visit;
  return { ...visit, sessionData: bytesOf(sessionData), identity: identity && { ...identity } };
}

/** The visit as lists have it. */
export function listedCopyOf({ sessionData: _data, ...visit }: VisitRecord): ListedVisit {
  return { ...visit, identity: visit.identity && { ...visit.identity } };
}

/**
 * A page of a list of visits by use.
 *
 * @param visits all of them, in any order
 */
export function pageOf<V extends ListPosition>(
  visits: readonly V[],
  { limit, after }: Pick<UserList, 'limit' | 'after'>,
): { readonly visits: V[]; readonly next: ListPosition | null } {
  const rest = visits.filter((visit) => !after || byAccess(after, visit) < 0).sort(byAccess);
  const page = rest.slice(0, limit);
  const last = page.at(-1);
  return { visits: page, next: last && page.length < rest.length ? { accessed: last.accessed, id: last.id } : null };
}

/** Why this write must be refused, given what is stored; null if nothing speaks against it. */
export function refusalOf(stored: VisitRecord | null, guard: WriteGuard): Refusal | null {
  if (!stored) return 'unknown';
  if (stored.endedAt !== null) return 'ended';
  const isCurrent = stored.keyHash === guard.keyHash;
  const isInGrace = stored.previousKeyHash === guard.keyHash && (stored.previousKeyUntil ?? 0) > guard.now;
  return isCurrent || isInGrace ? null : 'retired';
}

/** The guard of a change of key: for a renewal as if every grace were over. */
export function rekeyGuard({ id, keyHash, now, previousKeyUntil }: Rekey): WriteGuard {
  return { id, keyHash, now: previousKeyUntil === null ? now : Number.MAX_SAFE_INTEGER };
}

/** Whether the lock is this owner's, and its lease has not run out. */
export function isHeldBy(owner: string, { lockOwner, lockedUntil }: Lease, now: number): boolean {
  return lockOwner === owner && Number(lockedUntil) > now;
}

/** What became of a save that has written nothing, given what is stored; null if nothing speaks against it any more. */
export function verdictOn(save: SessionSave, stored: VisitRecord | null, lease = NO_LEASE): SaveResult | null {
  const reason = refusalOf(stored, save);
  if (reason) return refused(reason);
  if (save.lockOwner !== undefined && !isHeldBy(save.lockOwner, lease, save.now)) return refused('unlocked');
  if (!stored || stored.sessionVersion === save.version) return null;
  return { outcome: 'conflict', version: stored.sessionVersion, data: stored.sessionData };
}

/** The expiry after a change of key: a renewal only moves it forward, a change of rights sets it. */
export function expiryAfter({ expiry, previousKeyUntil }: Rekey, stored: number): number {
  if (expiry === undefined) return stored;
  return previousKeyUntil === null ? expiry : Math.max(stored, expiry);
}

/** Whether a visit has expired or ended before this instant: nobody misses it. */
export function isStale({ expiry, endedAt }: VisitRecord, before: number): boolean {
  return expiry < before || (endedAt !== null && endedAt < before);
}

/** Whether a visit has expired before this instant, and holds data still. */
export function isUnwiped({ expiry, sessionData }: VisitRecord, before: number): boolean {
  return expiry < before && sessionData !== null;
}

/** Whether a visit has neither ended nor expired. */
export function isLive({ endedAt, expiry }: Pick<VisitRecord, 'endedAt' | 'expiry'>, now: number): boolean {
  return endedAt === null && expiry > now;
}

/** The order of lists for people: the most recently used first. */
export function byAccess(one: ListPosition, other: ListPosition): number {
  return other.accessed - one.accessed || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);
}

function refused(reason: Refusal): { readonly outcome: 'refused'; readonly reason: Refusal } {
  return { outcome: 'refused', reason };
}

function bytesOf(data: Uint8Array | null): Uint8Array | null {
  return data && Uint8Array.from(data);
}
