import type { IdentityRecord, NewVisitRecord, VisitRecord } from '../visit.store.js';
import type { IdentityRow, RevocationRow, VisitRow } from './prisma.client.js';

type Selection<Row> = Readonly<Record<keyof Row & string, true>>;

/** Named one by one, because models may have columns of their own, and so that a missing one is noticed. */
export const VISIT_FIELDS: Selection<Omit<VisitRow, 'identity'>> = {
  id: true,
  keyHash: true,
  previousKeyHash: true,
  previousKeyUntil: true,
  keyChanged: true,
  created: true,
  accessed: true,
  expiry: true,
  absoluteExpiry: true,
  endedAt: true,
  endReason: true,
  permanent: true,
  remoteAddress: true,
  userAgent: true,
  sessionData: true,
  sessionVersion: true,
  lockOwner: true,
  lockedUntil: true,
};

export const IDENTITY_FIELDS: Selection<IdentityRow> = { visitId: true, userId: true, created: true, authenticatedAt: true };

export const REVOCATION_FIELDS: Selection<RevocationRow> = { userHash: true, endedAt: true };

/** The visit that a row holds. */
export function recordOf({ identity = null, ...row }: VisitRow): VisitRecord {
  return {
    id: row.id,
    keyHash: row.keyHash,
    previousKeyHash: row.previousKeyHash,
    previousKeyUntil: numberOrNull(row.previousKeyUntil),
    keyChanged: Number(row.keyChanged),
    created: Number(row.created),
    accessed: Number(row.accessed),
    expiry: Number(row.expiry),
    absoluteExpiry: numberOrNull(row.absoluteExpiry),
    endedAt: numberOrNull(row.endedAt),
    endReason: row.endReason,
    permanent: row.permanent,
    remoteAddress: row.remoteAddress,
    userAgent: row.userAgent,
    sessionData: row.sessionData,
    sessionVersion: row.sessionVersion,
    identity: identity && {
      userId: identity.userId,
      created: Number(identity.created),
      authenticatedAt: Number(identity.authenticatedAt),
    },
  };
}

/** The columns of a visit to insert; all others begin as NULL. */
export function visitData(visit: NewVisitRecord) {
  return {
    id: visit.id,
    keyHash: visit.keyHash,
    previousKeyHash: visit.previousKeyHash ?? null,
    previousKeyUntil: bigintOrNull(visit.previousKeyUntil),
    keyChanged: BigInt(visit.keyChanged ?? visit.created),
    created: BigInt(visit.created),
    accessed: BigInt(visit.accessed),
    expiry: BigInt(visit.expiry),
    absoluteExpiry: bigintOrNull(visit.absoluteExpiry),
    permanent: visit.permanent,
    remoteAddress: visit.remoteAddress,
    userAgent: visit.userAgent,
    sessionData: visit.sessionData,
    sessionVersion: visit.sessionVersion ?? 0,
  };
}

/** The columns of an identity, but for whose it is. */
export function identityData({ userId, created, authenticatedAt }: IdentityRecord) {
  return { userId, created: BigInt(created), authenticatedAt: BigInt(authenticatedAt) };
}

export function bigintOrNull(value: number | null = null): bigint | null {
  return value === null ? null : BigInt(value);
}

function numberOrNull(value: bigint | null): number | null {
  return value === null ? null : Number(value);
}
