import { describeKept, ExpungeService } from '../../expunge/expunge.service.js';
import type { VisitStore } from '../../store/visit.store.js';
import type { Wishes } from '../arguments.js';
import { BATCH_SIZE, KEEP_DAYS, MAX_CLOCK_SKEW, TOUCH } from '../defaults.js';
import { many, type Report } from '../terminal.js';

/** Clean-up as in the application, but without plugins, which are part of the application. */
export function cleanUp(store: VisitStore, { keepDays = KEEP_DAYS, batchSize = BATCH_SIZE } = {}): ExpungeService {
  const options = {
    expunge: { schedule: false as const, keepDays, batchSize },
    touch: TOUCH,
    clock: Date,
    maxClockSkew: MAX_CLOCK_SKEW,
  };
  return new ExpungeService(options, store, { emit: async () => {} });
}

/** Deletes visits that expired or ended long ago. */
export async function expunge(store: VisitStore, wish: Wishes['expunge'], report: Report): Promise<void> {
  const { dryRun } = wish;
  const counts = await cleanUp(store, wish).run({
    dryRun,
    onProgress: ({ visits }) => report.progress(`expunged ${many(visits, 'visit')}`),
    onKept: (kept) => report.terminal.error(`nest-visit: ${describeKept(kept)}`),
  });
  const text = `${many(counts.visits, 'visit')} and ${many(counts.identities, 'identity')}`;
  report.result(`${dryRun ? 'would expunge' : 'expunged'} ${text}`, counts);
}

/** Deletes the session data of expired visits. */
export async function wipe(store: VisitStore, wish: Wishes['wipe'], report: Report): Promise<void> {
  const { dryRun } = wish;
  const wiped = (count: number): string =>
    `${dryRun ? 'would wipe' : 'wiped'} the session data of ${many(count, 'visit')}`;
  const visits = await cleanUp(store, wish).wipeExpired({
    dryRun,
    onProgress: (soFar) => report.progress(wiped(soFar)),
  });
  report.result(wiped(visits), { visits });
}
