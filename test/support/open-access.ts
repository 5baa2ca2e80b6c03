import { onTestFinished } from 'vitest';
import { StoreAccess } from '../../lib/store/store-access.js';
import type { VisitStore } from '../../lib/store/visit.store.js';

/**
 * The access to a store, as in an application. It logs nothing after the test, because files share a process, and some
 * read its log.
 */
export function openAccess(store: VisitStore, storeTimeout: number): StoreAccess {
  const access = new StoreAccess(store, { storeTimeout });
  onTestFinished(() => access.close());
  return access;
}
