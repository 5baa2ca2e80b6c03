import type { Rekey, VisitRecord } from '../store/visit.store.js';

/**
 * What undoes a change of rights: only on top of it, and so nothing where that has not been done. A key in its grace
 * goes on to be in it.
 *
 * @param before what the visit was; its expiry from now on
 * @param newKeyHash of the key that it got by the change, which has left nobody
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

/** The visit after that. */
export function undone(
  before: VisitRecord,
  { now, expiry, keyHash, previousKeyHash = keyHash, previousKeyUntil }: Rekey,
): VisitRecord {
  return { ...before, keyChanged: now, expiry: expiry ?? before.expiry, previousKeyHash, previousKeyUntil };
}
