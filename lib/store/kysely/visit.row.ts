import { listedReader, recordReader, rowWriter, type Readers, type Writers } from '../record.rows.js';
import { toBuffer, toConfidential } from '../sql.values.js';
import { IDENTITY_COLUMNS, VISIT_COLUMNS } from '../visit.columns.js';
import type { IdentityRecord, VisitRecord } from '../visit.store.js';

const asIs = <T>(value: T): T => value;

// Wide integers may be text or `bigint`, flags numbers, and binary data comes in three kinds: as driver and application like it.
const readers: Readers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: Number,
  count: Number,
  flag: (value: unknown) => Boolean(Number(value)),
  bytes: toBuffer,
};

const writers: Writers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: asIs,
  count: asIs,
  // Not every driver of SQLite takes booleans.
  flag: (value) => (value ? 1 : 0),
  bytes: toConfidential,
};

/** The visit that a row holds; null for a row that was spoiled. */
export const recordOf = recordReader<object>({ readers });

/** As `recordOf`, for a row of a list. */
export const listedOf = listedReader<object>({ readers });

export const visitValues = rowWriter<VisitRecord>(VISIT_COLUMNS, writers);
export const identityValues = rowWriter<IdentityRecord>(IDENTITY_COLUMNS, writers);
