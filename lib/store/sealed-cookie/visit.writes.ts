import type { Ending, NewVisitRecord, Rekey, SessionSave, Touch, VisitRecord } from '../visit.store.js';
import { expiryAfter } from '../write-guard.js';

// What the writes of the contract make of a visit that they are allowed to write. No record is ever changed itself.

export function created(visit: NewVisitRecord): VisitRecord {
  const fresh = { previousKeyHash: null, previousKeyUntil: null, keyChanged: visit.created, sessionVersion: 0 };
  return copyOf({ ...fresh, ...visit, endedAt: null, endReason: null });
}

export function saved(visit: VisitRecord, { data }: SessionSave): VisitRecord {
  return { ...visit, sessionData: data && Uint8Array.from(data), sessionVersion: visit.sessionVersion + 1 };
}

export function touched(visit: VisitRecord, { accessed, expiry }: Touch): VisitRecord {
  return { ...visit, accessed: Math.max(visit.accessed, accessed), expiry: Math.max(visit.expiry, expiry) };
}

export function rekeyed(visit: VisitRecord, change: Rekey): VisitRecord {
  return {
    ...visit,
    keyHash: change.newKeyHash,
    previousKeyHash: change.previousKeyHash ?? visit.keyHash,
    previousKeyUntil: change.previousKeyUntil,
    keyChanged: change.now,
    identity: change.identity === undefined ? visit.identity : change.identity && { ...change.identity },
    permanent: change.permanent ?? visit.permanent,
    expiry: expiryAfter(change, visit.expiry),
    absoluteExpiry: change.absoluteExpiry === undefined ? visit.absoluteExpiry : change.absoluteExpiry,
  };
}

/** By its own client, which is the only one that can. */
export function ended(visit: VisitRecord, { at, reason }: Ending): VisitRecord {
  const wiped = { sessionData: null, sessionVersion: visit.sessionVersion + 1 };
  return { ...visit, ...wiped, previousKeyUntil: at, keyChanged: at, endedAt: at, endReason: reason };
}

/** What callers hold and what is stored never share bytes. */
export function copyOf(visit: VisitRecord): VisitRecord {
  const { sessionData, identity } = visit;
  return { ...visit, sessionData: sessionData && Uint8Array.from(sessionData), identity: identity && { ...identity } };
}
