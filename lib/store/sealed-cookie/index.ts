export { SealedCookieVisitStore, type SealedCookieVisitStoreOptions } from './sealed-cookie-visit.store.js';
