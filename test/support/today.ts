import { isSoak } from './soak.js';

/**
 * The number of the day, in UTC. If there are more cases than a run has time for, it selects the cases of the day: all
 * are run in time, and two runs on one day are the same. `VISIT_TEST_SEED` sets another day.
 */
export const TODAY = Number(process.env['VISIT_TEST_SEED'] ?? Math.floor(Date.now() / 86_400_000));

/**
 * Whether this case is for today: one of `oneOf` cases, and another one each day, so that all are run within as many
 * days. `npm run test:soak` runs all of them each time.
 *
 * Within a suite that takes turns itself, such as one with one of the two platforms a day, `oneOf` must be odd: if it
 * were 2, each case would always meet the same platform.
 */
export function isForToday(index: number, oneOf: number): boolean {
  return isSoak || (index + TODAY) % oneOf === 0;
}

/** Of these cases, the one for today; all of them in `npm run test:soak`. Suites with another `shift` have another one. */
export function ofToday<Case>(cases: readonly Case[], shift: number): readonly Case[] {
  return cases.filter((_, index) => isForToday(shift + index, cases.length));
}
