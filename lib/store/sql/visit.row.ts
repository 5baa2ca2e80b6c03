import { listedReader, recordReader, type Readers } from '../record.rows.js';
import { toBuffer } from '../sql.values.js';
import type { Result } from './statement.js';

const asIs = <T>(value: T): T => value;

/**
 * Wide integers may be text or `bigint`, flags numbers, and binary data comes in three kinds: as driver and application
 * like it.
 */
const readers: Readers = {
  hex: asIs,
  text: asIs,
  exact: asIs,
  instant: Number,
  count: Number,
  flag: (value: unknown) => Boolean(Number(value)),
  bytes: toBuffer,
};

/** The visit that a row of `VisitSql.find` holds; null for a row that was spoiled. */
export const recordOf = recordReader<Result['rows'][number]>({ readers });

/** As `recordOf`, for a row of a list. */
export const listedOf = listedReader<Result['rows'][number]>({ readers });
