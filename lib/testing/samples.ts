import { createHash, randomBytes } from 'node:crypto';
import { created } from '../store/visit.record.js';
import type { IdentityRecord, VisitRecord, Rekey, SessionSave } from '../store/visit.store.js';

export const NOW = Date.UTC(2026, 5, 1, 12, 0, 0, 123);
export const MINUTE = 60_000;
export const DAY = 86_400_000;
/** The last instant that JavaScript knows. */
export const NEVER = 8_640_000_000_000_000;

export function newId(): string {
  return randomBytes(16).toString('hex');
}

export function newHash(): string {
  return createHash('sha256').update(randomBytes(32)).digest('hex');
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
