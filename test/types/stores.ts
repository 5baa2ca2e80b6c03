import { expectTypeOf } from 'vitest';
import type { MemoryVisitStore, UserVisits, VisitStore } from 'nest-visit';
import { KyselyVisitStore } from 'nest-visit/kysely';

// Compiled and never run: what may be asked of a store, and, by errors that are expected, what it may not have.

declare const any: VisitStore;
declare const memory: MemoryVisitStore;

export async function facets(): Promise<void> {
  await any.find(['x']);
  expectTypeOf(any.users).toEqualTypeOf<UserVisits | undefined>();
  // @ts-expect-error: not every store lists the visits of a user
  await any.users.listForUser({ userId: 'a', now: 0, limit: 1 });
  // @ts-expect-error: nor lends exclusive access
  await any.locks.unlock('x', 'me');
  // @ts-expect-error: nor is there something to clean up
  await any.cleanup.expunge({ before: 0, limit: 1 });
  // @ts-expect-error: nor can all of them be gone through
  await any.pages.liveVisits({ after: '', limit: 1, now: 0 });
  // @ts-expect-error: a write without the key that it was made with
  await any.save([{ id: 'x', now: 0, version: 0, data: null }]);
  await any.users?.endAll({ ending: { reason: 'x', at: 0 }, limit: 1 });
  // This one does.
  await memory.users.listForUser({ userId: 'a', now: 0, limit: 1 });
  // @ts-expect-error: an instance is asked for
  new KyselyVisitStore({ pool: {} });
}
