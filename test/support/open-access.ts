import { onTestFinished } from 'vitest';
import { StoreAccess } from '../../lib/store/store-access.js';
import type { VisitStore } from '../../lib/store/visit.store.js';

/**
 * The way to a store, as an application has it. It is silent when the test is over: files share a process, and some
 * read its log.
 */
export function openAccess(store: VisitStore, storeTimeout: number): StoreAccess {
  const access = new StoreAccess(store, { storeTimeout });
  onTestFinished(() => access.close());
  return access;
}
