import { isSoak } from './soak.js';

/**
 * The number of the day, in UTC. Where there are more cases than a run has time for, it picks those of today, so that
 * all of them are seen in time and two runs of one day are the same. `VISIT_TEST_SEED` stands for another day.
 */
export const TODAY = Number(process.env['VISIT_TEST_SEED'] ?? Math.floor(Date.now() / 86_400_000));

/**
 * Whether this one of many cases is for today: one of so many, and another one each day, so that all of them have been
 * run after as many days. `npm run test:soak` runs all of them each time.
 */
export function isForToday(index: number, oneOf: number): boolean {
  return isSoak || (index + TODAY) % oneOf === 0;
}
