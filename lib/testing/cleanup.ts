import type { StaleCounts } from '../store/visit.facets.js';
import type { Bench } from './suite.js';

type Cleaned = Pick<Bench, 'store'>;

/** The counts that a dry run of `expunge` returns. */
export async function countStale({ store }: Cleaned, before: number): Promise<StaleCounts> {
  const sum = { visits: 0, identities: 0 };
  for (let after: unknown; after !== null;) {
    const { visits, identities, next } = await store.cleanup!.expunge({ before, limit: 1_000, after, dryRun: true });
    sum.visits += visits;
    sum.identities += identities;
    after = next;
  }
  return sum;
}

/** The count that a dry run of `wipe` returns. */
export async function countUnwiped({ store }: Cleaned, before: number): Promise<number> {
  let sum = 0;
  for (let after: unknown; after !== null;) {
    const { visits, next } = await store.cleanup!.wipe({ before, limit: 1_000, after, dryRun: true });
    sum += visits;
    after = next;
  }
  return sum;
}

/** Deletes everything that is stale. Returns the batches that deleted something. */
export async function expungeAll(
  { store }: Cleaned,
  { before, limit }: { before: number; limit: number },
): Promise<StaleCounts[]> {
  const batches: StaleCounts[] = [];
  for (let after: unknown; after !== null;) {
    const { next, ...counts } = await store.cleanup!.expunge({ before, limit, after });
    if (counts.visits > 0) batches.push(counts);
    after = next;
  }
  return batches;
}
