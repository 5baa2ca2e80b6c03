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

/** The visit that a row holds. */
export function recordOf(row: VisitRow): VisitRecord {
  return {
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
    sessionData: row.sessionData && toBuffer(row.sessionData),
    sessionVersion: Number(row.sessionVersion),
    identity:
      row.userId === null ? null : { userId: row.userId, created: Number(row.linked), authenticatedAt: Number(row.authenticatedAt) },
  };
}

function wholeOrNull(value: Whole | null): number | null {
  return value === null ? null : Number(value);
}
