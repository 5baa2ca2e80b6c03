/**
 * The suite that every store passes.
 *
 * @module nest-visit/testing
 */

export { describeVisitStore } from './describe-visit-store.js';
export type { TestRunner, VisitStoreFactory, VisitStoreFixture, VisitStoreSuiteOptions } from './suite.js';
