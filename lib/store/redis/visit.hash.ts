import { listedReader, recordReader, rowWriter, type Readers, type RowLayout } from '../record.rows.js';
import { IDENTITY_COLUMNS, IDENTITY_FIELDS, namesIn, VISIT_COLUMNS } from '../visit.columns.js';
import type { IdentityRecord, ListedVisit, VisitRecord } from '../visit.store.js';

const { id: _id, ...HASH_COLUMNS } = VISIT_COLUMNS;
const OWNER_FIELDS = namesIn(IDENTITY_COLUMNS).map((name) => IDENTITY_FIELDS[name]);

/**
 * The fields of a visit's hash that make up a record; null is a field that is not there. The lock and `wiped` are the
 * store's own.
 */
export const FIELDS: readonly string[] = [...namesIn(HASH_COLUMNS), ...OWNER_FIELDS];

/** Those of a list. */
export const LISTED_FIELDS: readonly string[] = FIELDS.filter((field) => field !== 'sessionData');

/** Instants and versions as text; whole, because they are read as such. */
export function textOf(value: number): string {
  return String(Math.trunc(value));
}

/** Data as the client sends it. */
export function bytesOf(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

const asIs = (value: string): string => value;
const writers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: textOf,
  count: textOf,
  flag: (value: boolean) => (value ? '1' : '0'),
  bytes: bytesOf,
};
const visitValues = rowWriter<VisitRecord>(HASH_COLUMNS, writers);
const identityValues = rowWriter<IdentityRecord>(IDENTITY_COLUMNS, writers);

/** Fields and values in turn. */
export function fieldsOf(visit: VisitRecord): (string | Buffer)[] {
  const values = [...visitValues(visit), ...(visit.identity ? identityValues(visit.identity) : [])];
  return values.flatMap((value, index) => (value === null ? [] : [FIELDS[index]!, value as string | Buffer]));
}

const asText = (value: Buffer): string => value.toString();

function asWhole(value: Buffer): number {
  const text = value.toString();
  return /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
}

const readers: Readers = {
  // The id is that of the key, and no value of the hash.
  hex: (value: Buffer | string) => (typeof value === 'string' ? value : asText(value)),
  text: asText,
  exact: asText,
  instant: asWhole,
  count: asWhole,
  flag: (value: Buffer) => value.toString() === '1',
  bytes: (value: Buffer) => value,
};

type Values = readonly unknown[];

/** Where the values of these fields stand, and the id behind them. */
function layoutOf(fields: readonly string[]): RowLayout {
  const places = new Map([...fields, 'id'].map((field, index) => [field, index]));
  return { readers, placeOf: (field) => places.get(field)! };
}

const read = recordReader<Values>(layoutOf(FIELDS));
const readListed = listedReader<Values>(layoutOf(LISTED_FIELDS));

/** The visit that the values of `FIELDS` make up; null if there is none, or if it was spoiled. */
export function recordOf(id: string, values: readonly (Buffer | null)[]): VisitRecord | null {
  return read(withId(id, values, FIELDS));
}

/** As `recordOf`, of the values of `LISTED_FIELDS`. */
export function listedOf(id: string, values: readonly (Buffer | null)[]): ListedVisit | null {
  return readListed(withId(id, values, LISTED_FIELDS));
}

function withId(id: string, values: readonly (Buffer | null)[], { length }: readonly string[]): Values {
  const row: unknown[] = values.slice(0, length);
  row[length] = id;
  return row;
}
