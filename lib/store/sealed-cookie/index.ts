/**
 * Visits in sealed cookies.
 *
 * @module nest-visit/sealed-cookie
 */

export { SealedCookieVisitStore, type SealedCookieVisitStoreOptions } from './sealed-cookie-visit.store.js';
