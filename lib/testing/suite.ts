import { supports, type Facet, type Feature } from '../options/store-needs.js';
import type { VisitRecord, VisitStore, VisitStoreCapabilities } from '../store/visit.store.js';
import { refusals } from './refusals.js';
import { newVisit } from './samples.js';

/** A store without visits for one test, and other objects on the same visits. */
export interface VisitStoreFixture {
  readonly store: VisitStore;
  /**
   * Another store object on the same visits, as another process would have it. Required for a store that is `shared`.
   */
  readonly second?: VisitStore;
  /** Opens another store object, as after a restart; the suite closes it. Required for a store that is `durable`. */
  readonly reopen?: () => VisitStore | Promise<VisitStore>;
  /** Called once, after the test. */
  readonly close?: () => unknown;
}

/** The facets that a store can have. */
export const FACETS = ['users', 'pages', 'locks', 'cleanup', 'clients'] as const satisfies readonly Facet[];

/** Returns a store without visits, for one test. */
export type VisitStoreFactory = () => VisitStoreFixture | Promise<VisitStoreFixture>;

/** The functions of a test runner. `import * as runner from 'node:test'` has them, and so does vitest. */
export interface TestRunner {
  /** Defines a group of tests. */
  describe(title: string, define: () => void): unknown;
  /** Defines a test, which fails when its promise rejects. */
  test(title: string, run: () => Promise<void>): unknown;
}

/** Options of `describeVisitStore()`. */
export interface VisitStoreSuiteOptions {
  /** The capabilities that the store must declare. @default what it declares */
  readonly capabilities?: Partial<VisitStoreCapabilities>;
  /** The facets that the store must have, such as `['users', 'cleanup']`. @default those it has */
  readonly facets?: readonly Facet[];
  /** @default the global `describe` and `test` */
  readonly runner?: TestRunner;
  /** How often each race is repeated, so that both orders occur. @default 15 */
  readonly rounds?: number;
}

/** The environment of a test of the suite. */
export interface Bench {
  readonly fixture: VisitStoreFixture;
  readonly capabilities: VisitStoreCapabilities;
  readonly facets: readonly Facet[] | undefined;
  readonly store: VisitStore;
  /** The store object of a concurrent writer: `second` if the store is shared and atomic, otherwise the same object. */
  readonly second: VisitStore;
  readonly rounds: number;
  /** The visit with this id, which must exist. */
  readonly read: (id: string) => Promise<VisitRecord>;
  readonly made: (given?: Partial<VisitRecord>) => Promise<VisitRecord>;
  readonly madeMany: (count: number, given?: (index: number) => Partial<VisitRecord>) => Promise<VisitRecord[]>;
}

type Check = (title: string, body: (bench: Bench) => Promise<void>) => void;

/** The functions that the sections of the suite use. */
export interface Suite {
  readonly check: Check;
  /** Defines tests for stores with these features. For other stores, it checks that they refuse the calls. */
  readonly needing: (...features: readonly Feature[]) => Check;
}

export function createSuite(
  runner: TestRunner,
  factory: VisitStoreFactory,
  { capabilities, facets, rounds = 15 }: VisitStoreSuiteOptions,
): Suite {
  const needing =
    (...needs: readonly Feature[]): Check =>
    (title, body) => {
      runner.test(title, async () => {
        const fixture = await factory();
        try {
          const bench = { ...benchOf(fixture, { ...fixture.store.capabilities, ...capabilities }, rounds), facets };
          const missing = needs.filter(
            (need) => !supports({ ...facetsOf(fixture.store), capabilities: bench.capabilities }, need),
          );
          for (const one of missing) await refusals[one]?.(bench);
          if (missing.length === 0) await body(bench);
        } finally {
          await fixture.close?.();
        }
      });
    };
  return { check: needing(), needing };
}

function facetsOf({ users, pages, locks, cleanup, clients }: VisitStore): Pick<VisitStore, Facet> {
  return { users, pages, locks, cleanup, clients };
}

function benchOf(
  fixture: VisitStoreFixture,
  capabilities: VisitStoreCapabilities,
  rounds: number,
): Omit<Bench, 'facets'> {
  const { store } = fixture;
  const madeMany: Bench['madeMany'] = async (count, given = () => ({})) => {
    const visits = Array.from({ length: count }, (_, index) => newVisit(given(index)));
    await store.create(visits);
    return visits;
  };
  return {
    fixture,
    capabilities,
    store,
    second: (capabilities.shared && capabilities.atomic && fixture.second) || store,
    rounds,
    read: async (id) => {
      const [visit] = await store.find([id]);
      if (!visit) throw new Error(`there is no visit ${id}`);
      return visit;
    },
    made: async (given) => (await madeMany(1, () => given ?? {}))[0]!,
    madeMany,
  };
}
