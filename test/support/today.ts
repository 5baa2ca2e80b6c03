/**
 * The number of the day, in UTC. Where there are more cases than a run has time for, it picks those of today, so that
 * all of them are seen in time and two runs of one day are the same. `VISIT_TEST_SEED` stands for another day.
 */
export const TODAY = Number(process.env['VISIT_TEST_SEED'] ?? Math.floor(Date.now() / 86_400_000));
