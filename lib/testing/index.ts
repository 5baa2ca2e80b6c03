export { describeVisitStore } from './describe-visit-store.js';
export type { TestRunner, VisitStoreFactory, VisitStoreFixture, VisitStoreSuiteOptions } from './suite.js';
