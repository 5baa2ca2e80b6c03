import type { NewVisitRecord, VisitRecord } from '../visit.store.js';

/** The fields of a visit's hash that make up a record; null is a field that is not there. The lock and `wiped` are the store's own. */
export const FIELDS = [
  'keyHash',
  'previousKeyHash',
  'previousKeyUntil',
  'keyChanged',
  'created',
  'accessed',
  'expiry',
  'absoluteExpiry',
  'endedAt',
  'endReason',
  'permanent',
  'remoteAddress',
  'userAgent',
  'sessionData',
  'sessionVersion',
  'userId',
  'linked',
  'authenticatedAt',
] as const;

type Field = (typeof FIELDS)[number];

/** Instants and versions as text; whole, because they are read as such. */
export function textOf(value: number): string {
  return String(Math.trunc(value));
}

/** Data as the client sends it. */
export function bytesOf(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

/** Fields and values in turn. */
export function fieldsOf(visit: NewVisitRecord): (string | Buffer)[] {
  const { identity } = visit;
  const values: Partial<Record<Field, string | Buffer | null>> = {
    keyHash: visit.keyHash,
    previousKeyHash: visit.previousKeyHash ?? null,
    previousKeyUntil: typeof visit.previousKeyUntil === 'number' ? textOf(visit.previousKeyUntil) : null,
    keyChanged: textOf(visit.keyChanged ?? visit.created),
    created: textOf(visit.created),
    accessed: textOf(visit.accessed),
    expiry: textOf(visit.expiry),
    absoluteExpiry: visit.absoluteExpiry === null ? null : textOf(visit.absoluteExpiry),
    permanent: visit.permanent ? '1' : '0',
    remoteAddress: visit.remoteAddress,
    userAgent: visit.userAgent,
    sessionData: visit.sessionData && bytesOf(visit.sessionData),
    sessionVersion: textOf(visit.sessionVersion ?? 0),
    ...(identity && { userId: identity.userId, linked: textOf(identity.created), authenticatedAt: textOf(identity.authenticatedAt) }),
  };
  return Object.entries(values).flatMap(([field, value]) => (value === null ? [] : [field, value]));
}

/** The visit that the values of `FIELDS` make up; null if there is none, or if it was spoiled. */
export function recordOf(id: string, values: readonly (Buffer | null)[]): VisitRecord | null {
  const value = (field: Field): Buffer | null => values[FIELDS.indexOf(field)] ?? null;
  const text = (field: Field): string | null => value(field)?.toString() ?? null;
  let spoiled = false;
  const whole = (field: Field): number | null => {
    const written = text(field);
    if (written === null) return null;
    const number = /^-?\d{1,16}$/.test(written) ? Number(written) : Number.NaN;
    if (!Number.isSafeInteger(number)) spoiled = true;
    return number;
  };
  const needed = (field: Field): number => {
    const number = whole(field);
    if (number === null) spoiled = true;
    return number ?? Number.NaN;
  };
  const keyHash = text('keyHash');
  const userId = text('userId');
  const sessionData = value('sessionData');
  if (keyHash === null) return null;
  const record: VisitRecord = {
    id,
    keyHash,
    previousKeyHash: text('previousKeyHash'),
    previousKeyUntil: whole('previousKeyUntil'),
    keyChanged: needed('keyChanged'),
    created: needed('created'),
    accessed: needed('accessed'),
    expiry: needed('expiry'),
    absoluteExpiry: whole('absoluteExpiry'),
    endedAt: whole('endedAt'),
    endReason: text('endReason'),
    permanent: text('permanent') === '1',
    remoteAddress: text('remoteAddress'),
    userAgent: text('userAgent'),
    sessionData,
    sessionVersion: needed('sessionVersion'),
    identity: userId === null ? null : { userId, created: needed('linked'), authenticatedAt: needed('authenticatedAt') },
  };
  return spoiled ? null : record;
}
