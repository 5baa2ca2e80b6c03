import { VisitStoreUnsupportedError } from '../../errors/visit.error.js';
import { MAX_ROWS } from '../../options/max-rows.js';
import type { ListPosition, VisitPage } from '../../store/visit.facets.js';
import type { ListedVisit, VisitStore } from '../../store/visit.store.js';

/** All visits that are neither ended nor expired, page by page. @throws VisitStoreUnsupportedError */
export async function* liveVisitsOf({ pages }: VisitStore, act: string): AsyncGenerator<readonly ListedVisit[]> {
  if (!pages) throw new VisitStoreUnsupportedError(act, 'pages');
  for (let after: string | null = ''; after !== null;) {
    const page: VisitPage = await pages.liveVisits({ after, limit: MAX_ROWS, now: Date.now() });
    yield page.visits;
    after = page.next;
  }
}

/** The live ones of a user, page by page. */
export async function* visitsOf({ users }: VisitStore, userId: string): AsyncGenerator<readonly ListedVisit[]> {
  if (!users) return;
  const now = Date.now();
  for (let after: ListPosition | null | undefined; after !== null;) {
    const page: VisitPage<ListPosition> = await users.listForUser({ userId, now, limit: MAX_ROWS, after });
    yield page.visits;
    after = page.next;
  }
}
