/**
 * Visits in what Keyv reaches: a file, memcached.
 *
 * @module nest-visit/keyv
 */

export { KeyvVisitStore, type KeyvVisitStoreOptions, type VisitKeyv } from './keyv-visit.store.js';
