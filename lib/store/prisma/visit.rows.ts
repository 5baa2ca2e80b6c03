import { recordReader, rowWriter } from '../record.rows.js';
import { IDENTITY_COLUMNS, LOCK_COLUMNS, namesIn, REVOCATION_COLUMNS, VISIT_COLUMNS, type Column } from '../visit.columns.js';
import { created } from '../visit.record.js';
import type { IdentityRecord, NewVisitRecord, VisitRecord } from '../visit.store.js';
import type { VisitRow } from './prisma.client.js';

type Data = Readonly<Record<string, unknown>>;

/** Named one by one, because models may have columns of their own, and so that a missing one is noticed. */
const selectionOf = (names: readonly string[]): Readonly<Record<string, true>> => Object.fromEntries(names.map((name) => [name, true]));

export const VISIT_FIELDS = selectionOf([...namesIn(VISIT_COLUMNS), ...namesIn(LOCK_COLUMNS)]);
export const IDENTITY_FIELDS = selectionOf(['visitId', ...namesIn(IDENTITY_COLUMNS)]);
export const REVOCATION_FIELDS = selectionOf(namesIn(REVOCATION_COLUMNS));

const asIs = <T>(value: T): T => value;
const SAME = { hex: asIs, text: asIs, exact: asIs, count: asIs, flag: asIs, bytes: asIs };

/** The visit that a row holds; null for one that was spoiled. */
export const recordOf = recordReader<VisitRow>({
  readers: { ...SAME, instant: Number },
  identityOf: ({ identity }: VisitRow) => identity,
});

function dataOf<Row extends object>(columns: Readonly<Record<string, Column>>): (row: Row) => Data {
  const names = namesIn(columns);
  const valuesOf = rowWriter<Row>(columns, { ...SAME, instant: BigInt });
  return (row) => {
    const values = valuesOf(row);
    return Object.fromEntries(names.map((name, index) => [name, values[index]]));
  };
}

const visitRow = dataOf<VisitRecord>(VISIT_COLUMNS);

/** The columns of a visit to insert; those of the lock begin as NULL. */
export const visitData = (visit: NewVisitRecord): Data => visitRow(created(visit));

/** The columns of an identity, but for whose it is. */
export const identityData = dataOf<IdentityRecord>(IDENTITY_COLUMNS);

export function bigintOrNull(value: number | null = null): bigint | null {
  return value === null ? null : BigInt(value);
}
