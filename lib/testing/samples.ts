import { randomBytes } from 'node:crypto';
import { created } from '../store/visit.record.js';
import type { IdentityRecord, VisitRecord, Rekey, SessionSave } from '../store/visit.store.js';

export const NOW = Date.UTC(2026, 5, 1, 12, 0, 0, 123);
export const MINUTE = 60_000;
export const DAY = 86_400_000;
/** The last instant that JavaScript can represent. */
export const NEVER = 8_640_000_000_000_000;

/** Requested one by one, random bytes would take longer than everything else in a suite of ten thousand visits. */
let pool = Buffer.alloc(0);
function randomHex(length: number): string {
  if (pool.length < length) pool = randomBytes(16_384);
  const hex = pool.toString('hex', 0, length);
  pool = pool.subarray(length);
  return hex;
}

export function newId(): string {
  return randomHex(16);
}

export function newHash(): string {
  return randomHex(32);
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function textOf({ sessionData }: VisitRecord): string | null {
  return sessionData && Buffer.from(sessionData).toString();
}

export function identityOf(userId: string, at = NOW): IdentityRecord {
  return { userId, created: at, authenticatedAt: at };
}

export function newVisit(given: Partial<VisitRecord> = {}): VisitRecord {
  const of = { id: newId(), keyHash: newHash(), created: NOW, expiry: NOW + 20 * MINUTE };
  return created({ ...of, remoteAddress: '192.0.2.7', userAgent: 'test', ...given });
}

export function saveOf({ id, keyHash }: VisitRecord, given: Partial<SessionSave> = {}): SessionSave {
  return { id, keyHash, now: NOW, version: 0, data: null, ...given };
}

export function rekeyOf({ id, keyHash }: VisitRecord, given: Partial<Rekey> = {}): Rekey {
  return { id, keyHash, now: NOW, newKeyHash: newHash(), previousKeyUntil: null, ...given };
}
