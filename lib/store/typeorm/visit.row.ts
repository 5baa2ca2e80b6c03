import type { VisitRecord } from '../visit.store.js';
import { toBuffer } from './column.transformers.js';

type Whole = number | string;

/** A visit with its identity, as drivers return it: wide integers may be text, binary data comes in three kinds. */
export interface VisitRow extends Record<string, unknown> {
  readonly id: string;
  readonly keyHash: string;
  readonly previousKeyHash: string | null;
  readonly previousKeyUntil: Whole | null;
  readonly keyChanged: Whole;
  readonly created: Whole;
  readonly accessed: Whole;
  readonly expiry: Whole;
  readonly absoluteExpiry: Whole | null;
  readonly endedAt: Whole | null;
  readonly endReason: string | null;
  readonly permanent: boolean | Whole;
  readonly remoteAddress: string | null;
  readonly userAgent: string | null;
  readonly sessionData: Uint8Array | ArrayBuffer | null;
  readonly sessionVersion: Whole;
  readonly userId: string | null;
  readonly linked: Whole | null;
  readonly authenticatedAt: Whole | null;
}

/**
 * The visit that a row holds; null for a row that was spoiled: an instant or a version that is no whole number compares
 * with nothing, and so would never expire, nor ever be saved.
 */
export function recordOf(row: VisitRow): VisitRecord | null {
  const { userId, linked, authenticatedAt } = row;
  const record: VisitRecord = {
    id: row.id,
    keyHash: row.keyHash,
    previousKeyHash: row.previousKeyHash,
    previousKeyUntil: wholeOrNull(row.previousKeyUntil),
    keyChanged: Number(row.keyChanged),
    created: Number(row.created),
    accessed: Number(row.accessed),
    expiry: Number(row.expiry),
    absoluteExpiry: wholeOrNull(row.absoluteExpiry),
    endedAt: wholeOrNull(row.endedAt),
    endReason: row.endReason,
    permanent: Boolean(Number(row.permanent)),
    remoteAddress: row.remoteAddress,
    userAgent: row.userAgent,
    sessionData: row.sessionData === null ? null : toBuffer(row.sessionData),
    sessionVersion: Number(row.sessionVersion),
    identity: userId === null ? null : { userId, created: Number(linked), authenticatedAt: Number(authenticatedAt) },
  };
  return isWhole(record) ? record : null;
}

function wholeOrNull(value: Whole | null): number | null {
  return value === null ? null : Number(value);
}

function isWhole({
  previousKeyUntil,
  keyChanged,
  created,
  accessed,
  expiry,
  absoluteExpiry,
  endedAt,
  sessionVersion,
  identity,
}: VisitRecord): boolean {
  return (
    Number.isSafeInteger(keyChanged) &&
    Number.isSafeInteger(created) &&
    Number.isSafeInteger(accessed) &&
    Number.isSafeInteger(expiry) &&
    Number.isSafeInteger(sessionVersion) &&
    (previousKeyUntil === null || Number.isSafeInteger(previousKeyUntil)) &&
    (absoluteExpiry === null || Number.isSafeInteger(absoluteExpiry)) &&
    (endedAt === null || Number.isSafeInteger(endedAt)) &&
    (identity === null || (Number.isSafeInteger(identity.created) && Number.isSafeInteger(identity.authenticatedAt)))
  );
}
