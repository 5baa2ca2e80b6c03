export { KeyvVisitStore, type KeyvVisitStoreOptions, type VisitKeyv } from './keyv-visit.store.js';
