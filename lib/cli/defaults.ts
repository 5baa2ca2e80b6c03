import { parseDuration } from '../options/duration.js';
import { optionTable } from '../options/option-table.js';

// The defaults of the module's options. The command line does not know the options of the application, which may
// differ.
const { expunge, touch } = optionTable;

export const KEEP_DAYS = expunge.keepDays.default() as number;
export const BATCH_SIZE = expunge.batchSize.default() as number;
export const TOUCH = {
  interval: parseDuration(touch.interval.default())!,
  resolution: parseDuration(touch.resolution.default())!,
};
export const MAX_CLOCK_SKEW = parseDuration(optionTable.maxClockSkew.default())!;
/** How many visits of a user are listed by default. */
export const LIST_LIMIT = 100;
