import type { Refusal, Rekey, SaveResult, SessionSave, Touch, VisitRecord, WriteGuard } from './visit.store.js';

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

/** Who has the lock of a visit, and until when; as a database gives it. */
export interface Lease {
  readonly lockOwner?: unknown;
  readonly lockedUntil?: unknown;
}

/** Whether the lock is this owner's, and its lease has not run out. */
export function isHeldBy(owner: string, { lockOwner, lockedUntil }: Lease, now: number): boolean {
  return lockOwner === owner && Number(lockedUntil) > now;
}

/** What became of a save that has written nothing, given what is stored; null if nothing speaks against it any more. */
export function verdictOn(save: SessionSave, stored: VisitRecord | null, lease: Lease): SaveResult | null {
  const reason = refusalOf(stored, save);
  if (reason) return { outcome: 'refused', reason };
  if (save.lockOwner !== undefined && !isHeldBy(save.lockOwner, lease, save.now)) return { outcome: 'refused', reason: 'unlocked' };
  if (!stored || stored.sessionVersion === save.version) return null;
  return { outcome: 'conflict', version: stored.sessionVersion, data: stored.sessionData };
}

/** The expiry after a change of key: a renewal only moves it forward, a change of rights sets it. */
export function expiryAfter({ expiry, previousKeyUntil }: Rekey, stored: number): number {
  if (expiry === undefined) return stored;
  return previousKeyUntil === null ? expiry : Math.max(stored, expiry);
}

/** Whether the touch may move the instants of this visit. */
export function isTouchable({ endedAt, keyChanged }: VisitRecord, touch: Touch): boolean {
  return endedAt === null && keyChanged <= (touch.keyChanged ?? Infinity);
}
