import { VisitOptionError } from '../errors/visit.error.js';
import { describeCapabilities } from './capabilities.suite.js';
import { describeEnd } from './end.suite.js';
import { describeExpunge } from './expunge.suite.js';
import { describeFindAndCreate } from './find-and-create.suite.js';
import { describeKeys } from './keys.suite.js';
import { describeLock } from './lock.suite.js';
import { describeSave } from './save.suite.js';
import {
  createSuite,
  type Suite,
  type TestRunner,
  type VisitStoreFactory,
  type VisitStoreSuiteOptions,
} from './suite.js';
import { describeTouch } from './touch.suite.js';
import { describeUsers } from './users.suite.js';

const SECTIONS: Record<string, (suite: Suite) => void> = {
  capabilities: describeCapabilities,
  'find and create': describeFindAndCreate,
  save: describeSave,
  keys: describeKeys,
  lock: describeLock,
  touch: describeTouch,
  end: describeEnd,
  users: describeUsers,
  'expunge and wipe': describeExpunge,
};

/**
 * Tests a store against the contract of `VisitStore`. Each test gets its own fixture; none sleeps, and all instants are
 * passed to the store.
 *
 * Features that a store declares as missing are not skipped: those tests check that it refuses the calls.
 *
 * @example
 * describeVisitStore('MapVisitStore', () => ({ store: new MapVisitStore() }));
 */
export function describeVisitStore(
  name: string,
  factory: VisitStoreFactory,
  options: VisitStoreSuiteOptions = {},
): void {
  const runner = options.runner ?? globalRunner();
  const suite = createSuite(runner, factory, options);
  runner.describe(`Contract of VisitStore: ${name}`, () => {
    for (const [title, describeSection] of Object.entries(SECTIONS))
      runner.describe(title, () => describeSection(suite));
  });
}

function globalRunner(): TestRunner {
  const { describe, test } = globalThis as unknown as Partial<TestRunner>;
  if (describe && test) return { describe, test };
  throw new VisitOptionError(
    'option "runner" must be { describe, test } where these are no globals, such as the module "node:test"',
  );
}
