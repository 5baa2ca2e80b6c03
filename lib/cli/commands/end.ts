import { VisitStoreUnsupportedError } from '../../errors/visit.error.js';
import { MAX_ROWS } from '../../options/max-rows.js';
import { supports } from '../../options/store-needs.js';
import { requireClock } from '../../store/clock-skew.js';
import type { EndedBatch, EndingBatch } from '../../store/visit.facets.js';
import type { Ending, VisitStore } from '../../store/visit.store.js';
import type { Victims, Wishes } from '../arguments.js';
import { MAX_CLOCK_SKEW } from '../defaults.js';
import { many, type Report } from '../terminal.js';
import { liveVisitsOf, visitsOf } from './pages.js';

/** Ends visits by their ids, those of a user, or all. */
export async function endVisits(
  store: VisitStore,
  { victims, reason, dryRun }: Wishes['end'],
  report: Report,
): Promise<void> {
  const progress = (soFar: number): void => report.progress(`${dryRun ? 'found' : 'ended'} ${many(soFar, 'visit')}`);
  if (victims.are !== 'ids' && !store.users) throw new VisitStoreUnsupportedError('end', 'users');
  if (!supports(store, 'revocable')) throw new VisitStoreUnsupportedError('end', 'revocable');
  if (dryRun) {
    const visits = await count(store, victims, progress);
    return report.result(`would end ${many(visits, 'visit')}`, { visits });
  }
  const visits = await end(store, victims, { reason, at: Date.now() }, progress);
  report.result(`ended ${many(visits, 'visit')}`, { visits });
}

async function end(
  store: VisitStore,
  victims: Victims,
  ending: Ending,
  progress: (soFar: number) => void,
): Promise<number> {
  let visits = 0;
  if (victims.are === 'ids') {
    for (let index = 0; index < victims.ids.length; index += MAX_ROWS) {
      visits += (await store.end(victims.ids.slice(index, index + MAX_ROWS), ending)).length;
      progress(visits);
    }
    return visits;
  }
  const users = store.users!;
  // The stored instant of the end would also apply to later sign-ins.
  await requireClock(
    store,
    { clock: Date, maxClockSkew: MAX_CLOCK_SKEW },
    victims.are === 'all' ? 'the end of all visits' : 'the end',
  );
  const endBatch = (batch: EndingBatch): Promise<EndedBatch> =>
    victims.are === 'all' ? users.endAll(batch) : users.endAllForUser({ ...batch, userId: victims.userId });
  for (let after: unknown; after !== null;) {
    const { ended, next } = await endBatch({ ending, limit: MAX_ROWS, after });
    visits += ended.length;
    after = next;
    if (after !== null) progress(visits);
  }
  return visits;
}

/** How many live visits would end. Expired visits would end too, but this has no effect for users. */
async function count(store: VisitStore, victims: Victims, progress: (soFar: number) => void): Promise<number> {
  if (victims.are === 'ids') {
    const found = await store.find(victims.ids);
    return found.filter((visit) => visit && visit.endedAt === null && visit.expiry > Date.now()).length;
  }
  let visits = 0;
  for await (const page of victims.are === 'all'
    ? liveVisitsOf(store, 'end --all --dry-run')
    : visitsOf(store, victims.userId)) {
    visits += page.length;
    progress(visits);
  }
  return visits;
}
