import type { Refusal, VisitRecord, WriteGuard } from './visit.store.js';

/** Why this write must be refused, given what is stored; null if nothing speaks against it. */
export function refusalOf(stored: VisitRecord | null, guard: WriteGuard): Refusal | null {
  if (!stored) return 'unknown';
  if (stored.endedAt !== null) return 'ended';
  const isCurrent = stored.keyHash === guard.keyHash;
  const isInGrace = stored.previousKeyHash === guard.keyHash && (stored.previousKeyUntil ?? 0) > guard.now;
  return isCurrent || isInGrace ? null : 'retired';
}
