import { recordReader, rowWriter } from '../record.rows.js';
import { IDENTITY_COLUMNS, IDENTITY_FIELDS, namesIn, VISIT_COLUMNS } from '../visit.columns.js';
import { created } from '../visit.record.js';
import type { IdentityRecord, NewVisitRecord, VisitRecord } from '../visit.store.js';

const { id: _id, ...HASH_COLUMNS } = VISIT_COLUMNS;
const OWNER_FIELDS = namesIn(IDENTITY_COLUMNS).map((name) => IDENTITY_FIELDS[name]);

/** The fields of a visit's hash that make up a record; null is a field that is not there. The lock and `wiped` are the store's own. */
export const FIELDS: readonly string[] = [...namesIn(HASH_COLUMNS), ...OWNER_FIELDS];

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
export function fieldsOf(visit: NewVisitRecord): (string | Buffer)[] {
  const values = [...visitValues(created(visit)), ...(visit.identity ? identityValues(visit.identity) : [])];
  return values.flatMap((value, index) => (value === null ? [] : [FIELDS[index]!, value as string | Buffer]));
}

const asText = (value: Buffer): string => value.toString();

function asWhole(value: Buffer): number {
  const text = value.toString();
  return /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
}

const ID = FIELDS.length;
const places = new Map([...FIELDS, 'id'].map((field, index) => [field, index]));

const read = recordReader<readonly unknown[]>({
  readers: {
    // The id is that of the key, and no value of the hash.
    hex: (value: Buffer | string) => (typeof value === 'string' ? value : asText(value)),
    text: asText,
    exact: asText,
    instant: asWhole,
    count: asWhole,
    flag: (value: Buffer) => value.toString() === '1',
    bytes: (value: Buffer) => value,
  },
  placeOf: (field) => places.get(field)!,
});

/** The visit that the values of `FIELDS` make up; null if there is none, or if it was spoiled. */
export function recordOf(id: string, values: readonly (Buffer | null)[]): VisitRecord | null {
  const row: unknown[] = values.slice(0, ID);
  row[ID] = id;
  return read(row);
}
