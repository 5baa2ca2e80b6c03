import { reasonOf } from '../../errors/failure.js';
import { MovingVisitStore, type MovedPage, type RefusedVisit } from '../../store/moving/moving-visit.store.js';
import type { Wishes } from '../arguments.js';
import { readSource } from '../exported.file.js';
import { openStore } from '../opened.store.js';
import { many, type Report } from '../terminal.js';

/** How many refused visits are named. */
const MOST_NAMED = 20;

/** Moves live visits to another store. @throws Error if that store has refused some */
export async function moveVisits(
  { from: oldFile, to: newFile, batchSize, dryRun }: Wishes['move'],
  report: Report,
): Promise<void> {
  const from = await openStore(await readSource(oldFile));
  // A connection that stays open would keep the process from ending.
  const to = await readSource(newFile)
    .then(openStore)
    .catch(async (error: unknown) => {
      await from.close();
      throw error;
    });
  const store = new MovingVisitStore({ from, to });
  try {
    await store.check();
    if (dryRun) {
      const visits = await store.countLive();
      return report.result(`would move ${many(visits, 'visit')}`, { visits });
    }
    const { visits, refused } = await moveAll(store, batchSize, (count) =>
      report.progress(`moved ${many(count, 'visit')}`),
    );
    const refusedIds = refused.length > 0 ? { refused: refused.map(({ id }) => id) } : {};
    report.result(`moved ${many(visits, 'visit')}`, { visits, ...refusedIds });
    if (refused.length > 0) throw new Error(refusalOf(refused));
  } finally {
    await store.close();
  }
}

/** Moves all pages. Returns how many visits have moved, and which have not. */
async function moveAll(
  store: MovingVisitStore,
  limit: number,
  onProgress: (soFar: number) => void,
): Promise<{ visits: number; refused: RefusedVisit[] }> {
  let visits = 0;
  const refused: RefusedVisit[] = [];
  for (let after: string | null = ''; after !== null;) {
    const page: MovedPage = await store.movePage({ after, limit });
    visits += page.moved;
    refused.push(...page.refused);
    after = page.next;
    onProgress(visits);
  }
  return { visits, refused };
}

/** The reason for each one. The text of an error may contain session data, so it is not shown. */
function refusalOf(refused: readonly RefusedVisit[]): string {
  const named = refused.slice(0, MOST_NAMED).map(({ id, error }) => `${id} (${reasonOf(error)})`);
  const more = refused.length > named.length ? ` and ${refused.length - named.length} more` : '';
  return `the new store refused ${many(refused.length, 'visit')}, now left in the old one: ${named.join(', ')}${more}`;
}
