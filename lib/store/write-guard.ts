import type { Refusal, Rekey, SaveResult, SessionSave, VisitRecord, WriteGuard } from './visit.store.js';

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

/** What became of a save that has written nothing, given what is stored; null if nothing speaks against it any more. */
export function verdictOn(save: SessionSave, stored: VisitRecord | null, lockOwner: unknown): SaveResult | null {
  const reason = refusalOf(stored, save);
  if (reason) return { outcome: 'refused', reason };
  if (save.lockOwner !== undefined && save.lockOwner !== lockOwner) return { outcome: 'refused', reason: 'unlocked' };
  if (!stored || stored.sessionVersion === save.version) return null;
  return { outcome: 'conflict', version: stored.sessionVersion, data: stored.sessionData };
}
