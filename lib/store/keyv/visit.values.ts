import { recordReader, rowWriter } from '../record.rows.js';
import { namesIn, VISIT_COLUMNS } from '../visit.columns.js';
import type { VisitRecord } from '../visit.store.js';

/** The format of a value. Formats of the past get their own reader here. */
const FORMAT = 1;

const asIs = <T>(value: T): T => value;
const NAMES = namesIn(VISIT_COLUMNS);
const valuesOf = rowWriter<VisitRecord>(VISIT_COLUMNS, {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: asIs,
  count: asIs,
  flag: asIs,
  bytes: (data) => Buffer.from(data).toString('base64'),
});

/** What is kept of a visit under its key: text that says its format, with the session data in base64. */
export function valueOf(visit: VisitRecord): string {
  const values = valuesOf(visit);
  const columns = Object.fromEntries(NAMES.map((name, index) => [name, values[index]]));
  return JSON.stringify({ format: FORMAT, ...columns, identity: visit.identity });
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const number = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

const read = recordReader<{ identity?: unknown }>({
  readers: {
    hex: text,
    text,
    exact: text,
    instant: number,
    count: number,
    flag: (value: unknown) => (typeof value === 'boolean' ? value : undefined),
    bytes: (value: unknown) => (typeof value === 'string' ? Buffer.from(value, 'base64') : undefined),
  },
  identityOf: ({ identity }: { identity?: unknown }) => (identity === null ? null : Object(identity)),
});

/** The visit of a value; null if there is none, or if it is anything else than such a text. */
export function visitOf(id: string, value: unknown): VisitRecord | null {
  const found = parsed(value);
  return found?.['format'] === FORMAT && found['id'] === id ? read(found) : null;
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
