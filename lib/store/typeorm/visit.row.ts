import { listedReader, recordReader, type Readers } from '../record.rows.js';
import { toBuffer } from '../sql.values.js';
import type { IDENTITY_FIELDS, IDENTITY_COLUMNS, RowOf, VISIT_COLUMNS } from '../visit.columns.js';

type Whole = number | string;

/** As drivers return values: wide integers may be text, binary data comes in three kinds. */
interface Values {
  readonly hex: string;
  readonly text: string;
  readonly exact: string;
  readonly instant: Whole;
  readonly count: Whole;
  readonly flag: boolean | Whole;
  readonly bytes: Uint8Array | ArrayBuffer;
}

type OwnerRow = RowOf<typeof IDENTITY_COLUMNS, Values>;

/** A visit with its identity; of one that is nobody's, those columns are null. */
export type VisitRow = RowOf<typeof VISIT_COLUMNS, Values> & {
  readonly [Name in keyof OwnerRow as (typeof IDENTITY_FIELDS)[Name]]: OwnerRow[Name] | null;
};

export type ListedRow = Omit<VisitRow, 'sessionData'>;

const asIs = (value: string): string => value;

const readers: Readers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: Number,
  count: Number,
  flag: (value: boolean | Whole) => Boolean(Number(value)),
  bytes: toBuffer,
};

/** The visit that a row holds; null for a row that was spoiled. */
export const recordOf = recordReader<VisitRow>({ readers });

/** As `recordOf`, for a row of a list. */
export const listedOf = listedReader<ListedRow>({ readers });
