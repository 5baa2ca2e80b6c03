import type { VisitStore } from '../../store/visit.store.js';
import type { Wishes } from '../arguments.js';
import { many, type Report } from '../terminal.js';
import { cleanUp } from './clean-up.js';
import { liveVisitsOf } from './pages.js';

const HOUR = 3_600_000;

/** Counts visits, without reading their session data. */
export async function countVisits(store: VisitStore, { keepDays }: Wishes['stats'], report: Report): Promise<void> {
  const now = Date.now();
  const counts = { live: 0, signedIn: 0, permanent: 0, usedLastHour: 0, usedLastDay: 0 };
  for await (const page of liveVisitsOf(store, 'stats')) {
    for (const { identity, permanent, accessed } of page) {
      counts.live++;
      if (identity) counts.signedIn++;
      if (permanent) counts.permanent++;
      if (accessed > now - HOUR) counts.usedLastHour++;
      if (accessed > now - 24 * HOUR) counts.usedLastDay++;
    }
    report.progress(`counted ${many(counts.live, 'visit')}`, 'none of them changed');
  }
  // A store without clean-up deletes visits by itself.
  const service = store.cleanup && cleanUp(store, { keepDays });
  const toExpunge = service ? (await service.run({ dryRun: true })).visits : null;
  const toWipe = service ? await service.wipeExpired({ dryRun: true }) : null;
  const lines: [string, number | null, string][] = [
    ['live', counts.live, 'neither ended nor expired'],
    ['signed in', counts.signedIn, ''],
    ['anonymous', counts.live - counts.signedIn, ''],
    ['permanent', counts.permanent, '"remember me"'],
    ['used', counts.usedLastHour, 'within the last hour'],
    ['used', counts.usedLastDay, 'within the last day'],
    ['to expunge', toExpunge, `over for more than ${keepDays} days`],
    ['to wipe', toWipe, 'expired, with session data'],
  ];
  const shown = lines.filter(([, count]) => count !== null);
  const width = Math.max(...shown.map(([, count]) => String(count).length));
  const text = shown
    .map(([name, count, note]) => `${name.padEnd(10)}  ${String(count).padStart(width)}  ${note}`.trimEnd())
    .join('\n');
  report.result(text, { ...counts, anonymous: counts.live - counts.signedIn, toExpunge, toWipe });
}
