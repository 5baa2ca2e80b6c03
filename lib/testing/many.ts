import assert from 'node:assert/strict';
import type { EndedBatch, ListPosition, UserVisits, VisitPage, VisitPages } from '../store/visit.facets.js';
import type { Ending, ListedVisit } from '../store/visit.store.js';

type WithUsers = { readonly users?: UserVisits | undefined };

/** More batches than a correct store ever needs. A store that never finishes must not block its tests. */
const MOST_STEPS = 5_000;

/** Repeats a call, beginning with no position, until it returns no `next`. */
export async function eachStep<Step extends { readonly next: unknown }>(
  step: (after: Step['next'] | undefined) => Promise<Step>,
): Promise<Step[]> {
  const steps: Step[] = [];
  for (let after: Step['next'] | undefined; after !== null;) {
    assert.ok(steps.length < MOST_STEPS, 'there is always a `next`, so it would never end');
    const done = await step(after);
    steps.push(done);
    after = done.next;
  }
  return steps;
}

/** All listed visits of a user, in pages of `limit`. */
export async function listAll({ users }: WithUsers, userId: string, now: number, limit = 100): Promise<ListedVisit[]> {
  const page = (after: ListPosition | null = null) =>
    users!.listForUser({ userId, now, limit, after: after ?? undefined });
  return (await eachStep<VisitPage<ListPosition>>(page)).flatMap(({ visits }) => visits);
}

/** All live visits, in pages of `limit`. */
export async function listLive(
  { pages }: { readonly pages?: VisitPages | undefined },
  now: number,
  limit = 100,
): Promise<ListedVisit[]> {
  const page = (after: string | null = null) => pages!.liveVisits({ after: after ?? '', limit, now });
  return (await eachStep<VisitPage>(page)).flatMap(({ visits }) => visits);
}

/** Ends all visits of a user, in batches of `limit`. Returns the ids of the ended visits. */
export async function endAllOf(
  { users }: WithUsers,
  userId: string,
  { except, ...ending }: Ending & { readonly except?: string },
  limit = 100,
): Promise<string[]> {
  const batches = await eachStep<EndedBatch>((after) => users!.endAllForUser({ userId, except, ending, limit, after }));
  return batches.flatMap(({ ended }) => ended);
}

/** Ends every visit, in batches of `limit`. Returns the ids of the ended visits. */
export async function endAll({ users }: WithUsers, ending: Ending, limit = 100): Promise<string[]> {
  return (await eachStep<EndedBatch>((after) => users!.endAll({ ending, limit, after }))).flatMap(({ ended }) => ended);
}
