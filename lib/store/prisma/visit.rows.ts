import { listedReader, recordReader, rowWriter } from '../record.rows.js';
import {
  IDENTITY_COLUMNS,
  LISTED_COLUMNS,
  LOCK_COLUMNS,
  namesIn,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type Column,
} from '../visit.columns.js';
import type { IdentityRecord, VisitRecord } from '../visit.store.js';
import type { VisitRow } from './prisma.client.js';

type Data = Readonly<Record<string, unknown>>;

/** Named one by one, because models may have columns of their own, and so that a missing one is noticed. */
const selectionOf = (names: readonly string[]): Readonly<Record<string, true>> =>
  Object.fromEntries(names.map((name) => [name, true]));

export const VISIT_FIELDS = selectionOf([...namesIn(VISIT_COLUMNS), ...namesIn(LOCK_COLUMNS)]);
/** Of a list. */
export const LISTED_FIELDS = selectionOf(namesIn(LISTED_COLUMNS));
export const IDENTITY_FIELDS = selectionOf(['visitId', ...namesIn(IDENTITY_COLUMNS)]);
export const REVOCATION_FIELDS = selectionOf(namesIn(REVOCATION_COLUMNS));

const asIs = <T>(value: T): T => value;
const SAME = { hex: asIs, text: asIs, exact: asIs, count: asIs, flag: asIs, bytes: asIs };

const layout = { readers: { ...SAME, instant: Number }, identityOf: ({ identity }: VisitRow) => identity };

/** The visit that a row holds; null for one that was spoiled. */
export const recordOf = recordReader<VisitRow>(layout);

/** As `recordOf`, for a row of `LISTED_FIELDS`. */
export const listedOf = listedReader<VisitRow>(layout);

function dataOf<Row extends object>(columns: Readonly<Record<string, Column>>): (row: Row) => Data {
  const names = namesIn(columns);
  const valuesOf = rowWriter<Row>(columns, { ...SAME, instant: BigInt });
  return (row) => {
    const values = valuesOf(row);
    return Object.fromEntries(names.map((name, index) => [name, values[index]]));
  };
}

/** The columns of a visit to insert; those of the lock begin as NULL. */
export const visitData = dataOf<VisitRecord>(VISIT_COLUMNS);

/** The columns of an identity, but for whose it is. */
export const identityData = dataOf<IdentityRecord>(IDENTITY_COLUMNS);

export function bigintOrNull(value: number | null = null): bigint | null {
  return value === null ? null : BigInt(value);
}
