import type { IdentityRecord, VisitRecord } from '../visit.store.js';

/** The format of a value. Formats of the past get their own reader here. */
const FORMAT = 1;

/** What is kept of a visit under its key: text that says its format, with the session data in base64. */
export function valueOf({ sessionData, ...visit }: VisitRecord): string {
  return JSON.stringify({ format: FORMAT, ...visit, sessionData: sessionData && Buffer.from(sessionData).toString('base64') });
}

/** The visit of a value; null if there is none, or if it is anything else than such a text. */
export function visitOf(id: string, value: unknown): VisitRecord | null {
  const found = parsed(value);
  if (found?.['format'] !== FORMAT || found['id'] !== id) return null;
  const { sessionData, identity } = found;
  const visit = { ...pick(found, SHAPE), sessionData: null, identity: null } as unknown as VisitRecord;
  const isWhole = Object.entries(SHAPE).every(([name, fits]) => fits(found[name]));
  const hasData = sessionData === null || typeof sessionData === 'string';
  const owner = identity === null ? null : identityOf(identity);
  if (!isWhole || !hasData || owner === undefined) return null;
  return { ...visit, sessionData: sessionData === null ? null : Buffer.from(sessionData, 'base64'), identity: owner };
}

function identityOf(value: unknown): IdentityRecord | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { userId, created, authenticatedAt } = value as Record<string, unknown>;
  if (typeof userId !== 'string' || !isWhole(created) || !isWhole(authenticatedAt)) return undefined;
  return { userId, created: created as number, authenticatedAt: authenticatedAt as number };
}

type Fits = (value: unknown) => boolean;

const isText: Fits = (value) => typeof value === 'string';
const isWhole: Fits = (value) => Number.isSafeInteger(value);
const orNull =
  (fits: Fits): Fits =>
  (value) =>
    value === null || fits(value);

const SHAPE: Record<keyof Omit<VisitRecord, 'sessionData' | 'identity'>, Fits> = {
  id: isText,
  keyHash: isText,
  previousKeyHash: orNull(isText),
  previousKeyUntil: orNull(isWhole),
  keyChanged: isWhole,
  created: isWhole,
  accessed: isWhole,
  expiry: isWhole,
  absoluteExpiry: orNull(isWhole),
  endedAt: orNull(isWhole),
  endReason: orNull(isText),
  permanent: (value) => typeof value === 'boolean',
  remoteAddress: orNull(isText),
  userAgent: orNull(isText),
  sessionVersion: isWhole,
};

function pick(found: Record<string, unknown>, shape: object): Record<string, unknown> {
  return Object.fromEntries(Object.keys(shape).map((name) => [name, found[name]]));
}

function parsed(value: unknown): Record<string, unknown> | null {
  if (typeof value !== 'string') return null;
  try {
    const found = JSON.parse(value) as unknown;
    return typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
