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

// The results of the writes of the contract, and the reasons for refusals: pure functions, defined only here. A store
// that can read a visit and store the next state in one step needs only these. A store that writes conditionally uses
// them to find out why a write has changed nothing. Records are never modified, and results share no bytes with their
// arguments.

/** The result of a write, and the new state to store; null: the stored state does not change. */
export interface Transition<Result, Next = VisitRecord> {
  readonly result: Result;
  readonly next: Next | null;
}

/** The owner of the lock of a visit, and its expiry, as read from a database. */
export interface Lease {
  readonly lockOwner?: unknown;
  readonly lockedUntil?: unknown;
}

const NO_LEASE: Lease = {};

/** The required properties of a new visit. */
export type NewVisit = Pick<VisitRecord, 'id' | 'keyHash' | 'created' | 'expiry'> & Partial<VisitRecord>;

/** The default properties of a new visit. */
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
 * A new visit. Unless other values are given, its key is as old as the visit and has replaced no other, it was last
 * used when it was created, its session is empty with version 0, it has no user, and it has not ended.
 */
export function created(visit: NewVisit): VisitRecord {
  const { created: now } = visit;
  return copyOf({ ...FRESH, keyChanged: now, accessed: now, ...visit } as VisitRecord);
}

/**
 * A save: a compare-and-set on the version. `next` is null if it was refused or conflicts.
 *
 * @param lease the current lease of the lock
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

/** A touch. Null: the visit does not change. */
export function touched(visit: VisitRecord | null, touch: Touch): VisitRecord | null {
  if (!visit || visit.endedAt !== null || visit.keyChanged > (touch.keyChanged ?? Infinity)) return null;
  return { ...visit, accessed: Math.max(visit.accessed, touch.accessed), expiry: Math.max(visit.expiry, touch.expiry) };
}

/** A change of key, with its identity and lifetime. `next` is null if it was refused. */
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

/** An end. Null: there is nothing to end. */
export function ended(visit: VisitRecord | null, { at, reason, retiresKey = false }: Ending): VisitRecord | null {
  if (!visit || visit.endedAt !== null) return null;
  const retired = retiresKey ? { previousKeyUntil: at, keyChanged: at } : {};
  return { ...emptied(visit), ...retired, endedAt: at, endReason: reason };
}

/** Taking a lock, given its current lease. */
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

/** The visit without session data, with the next version. */
export function emptied(visit: VisitRecord): VisitRecord {
  return { ...visit, sessionData: null, sessionVersion: visit.sessionVersion + 1 };
}

/** A copy, because callers and the store must not share bytes. */
export function copyOf(visit: VisitRecord): VisitRecord {
  const { sessionData, identity } = visit;
  return { ...visit, sessionData: bytesOf(sessionData), identity: identity && { ...identity } };
}

/** The visit as in lists, without session data. */
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

/** The reason to refuse this write, given the stored visit; null if there is none. */
export function refusalOf(stored: VisitRecord | null, guard: WriteGuard): Refusal | null {
  if (!stored) return 'unknown';
  if (stored.endedAt !== null) return 'ended';
  const isCurrent = stored.keyHash === guard.keyHash;
  const isInGrace = stored.previousKeyHash === guard.keyHash && (stored.previousKeyUntil ?? 0) > guard.now;
  return isCurrent || isInGrace ? null : 'retired';
}

/** The guard of a change of key. A renewal does not accept a previous key. */
export function rekeyGuard({ id, keyHash, now, previousKeyUntil }: Rekey): WriteGuard {
  return { id, keyHash, now: previousKeyUntil === null ? now : Number.MAX_SAFE_INTEGER };
}

/** Whether this owner holds the lock, with a lease that has not expired. */
export function isHeldBy(owner: string, { lockOwner, lockedUntil }: Lease, now: number): boolean {
  return lockOwner === owner && Number(lockedUntil) > now;
}

/** The result of a save that has written nothing, given the stored visit; null if there is no longer a reason. */
export function verdictOn(save: SessionSave, stored: VisitRecord | null, lease = NO_LEASE): SaveResult | null {
  const reason = refusalOf(stored, save);
  if (reason) return refused(reason);
  if (save.lockOwner !== undefined && !isHeldBy(save.lockOwner, lease, save.now)) return refused('unlocked');
  if (!stored || stored.sessionVersion === save.version) return null;
  return { outcome: 'conflict', version: stored.sessionVersion, data: stored.sessionData };
}

/** The expiry after a change of key: a renewal only moves it forward; a change of rights sets it. */
export function expiryAfter({ expiry, previousKeyUntil }: Rekey, stored: number): number {
  if (expiry === undefined) return stored;
  return previousKeyUntil === null ? expiry : Math.max(stored, expiry);
}

/** Whether a visit expired or ended before this instant. */
export function isStale({ expiry, endedAt }: VisitRecord, before: number): boolean {
  return expiry < before || (endedAt !== null && endedAt < before);
}

/** Whether a visit expired before this instant and still has session data. */
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
