import { listedReader, recordReader, type Readers } from '../record.rows.js';
import { toBuffer } from '../sql.values.js';
import type { Result } from './statement.js';

const asIs = <T>(value: T): T => value;

/** Drivers return wide integers as text or `bigint`, flags as numbers, and binary data in three types. */
const readers: Readers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: Number,
  count: Number,
  flag: (value: unknown) => Boolean(Number(value)),
  bytes: toBuffer,
};

/** Reads a row of `VisitSql.find`. Null for a corrupted row. */
export const recordOf = recordReader<Result['rows'][number]>({ readers });

/** The same for a row of a list. */
export const listedOf = listedReader<Result['rows'][number]>({ readers });
