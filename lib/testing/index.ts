/**
 * Tests of applications, and the suite that every store passes.
 *
 * @module nest-visit/testing
 */

export { signIn, TestClock, VisitTestingModule, type BrowserCookie, type SignedInBrowser } from './application.js';
export { describeVisitStore } from './describe-visit-store.js';
export type { TestRunner, VisitStoreFactory, VisitStoreFixture, VisitStoreSuiteOptions } from './suite.js';
