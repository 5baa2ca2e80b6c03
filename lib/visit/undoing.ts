import type { Rekey, VisitRecord } from '../store/visit.store.js';

/**
 * The change that undoes a change of rights. It applies only on top of that change, so it has no effect if the change
 * was not made. A key in its grace period stays in it.
 *
 * @param before the visit before the change; its expiry from now on
 * @param newKeyHash the hash of the key that the change has set, which no client has received
 */
export function undoing(before: VisitRecord, newKeyHash: string, now: number): Rekey {
  const { id, keyHash, previousKeyHash, previousKeyUntil, identity, permanent, expiry, absoluteExpiry } = before;
  const isInGrace = previousKeyHash !== null && previousKeyUntil !== null && previousKeyUntil > now;
  const previous = isInGrace ? { previousKeyHash, previousKeyUntil } : { previousKeyUntil: null };
  return {
    id,
    keyHash: newKeyHash,
    now,
    newKeyHash: keyHash,
    ...previous,
    identity,
    permanent,
    expiry,
    absoluteExpiry,
  };
}

/** The visit after it was undone. */
export function undone(
  before: VisitRecord,
  { now, expiry, keyHash, previousKeyHash = keyHash, previousKeyUntil }: Rekey,
): VisitRecord {
  return { ...before, keyChanged: now, expiry: expiry ?? before.expiry, previousKeyHash, previousKeyUntil };
}
