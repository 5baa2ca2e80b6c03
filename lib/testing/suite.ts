import { supports, type Facet, type Feature } from '../options/store-needs.js';
import type { VisitRecord, VisitStore, VisitStoreCapabilities } from '../store/visit.store.js';
import { refusals } from './refusals.js';
import { newVisit } from './samples.js';

/** A store without visits, and what shows that it is more than one object. */
export interface VisitStoreFixture {
  readonly store: VisitStore;
  /** Another object on the same visits, as another process would have it. Needed for a store that is `shared`. */
  readonly second?: VisitStore;
  /** Makes one more, as after a restart; the suite closes it. Needed for a store that is `durable`. */
  readonly reopen?: () => VisitStore | Promise<VisitStore>;
  /** Called once, after the test. */
  readonly close?: () => unknown;
}

/** What a store has or has not. */
export const FACETS = ['users', 'pages', 'locks', 'cleanup', 'clients'] as const satisfies readonly Facet[];

/** Gives a store without visits, for one test. */
export type VisitStoreFactory = () => VisitStoreFixture | Promise<VisitStoreFixture>;

/** The functions that a test runner has. `import * as runner from 'node:test'` is one, and so is that of vitest. */
export interface TestRunner {
  /** Defines a group of tests. */
  describe(title: string, define: () => void): unknown;
  /** Defines a test, which fails when its promise rejects. */
  test(title: string, run: () => Promise<void>): unknown;
}

/** Options of `describeVisitStore()`. */
export interface VisitStoreSuiteOptions {
  /** What the store must say that it can or cannot give. @default what it says */
  readonly capabilities?: Partial<VisitStoreCapabilities>;
  /** What the store must have: `['users', 'cleanup']`, for example. @default what it has */
  readonly facets?: readonly Facet[];
  /** @default the global `describe` and `test` */
  readonly runner?: TestRunner;
  /** How often a race is run: enough for both orders to come up. @default 15 */
  readonly rounds?: number;
}

/** What a test of the suite works with. */
export interface Bench {
  readonly fixture: VisitStoreFixture;
  readonly capabilities: VisitStoreCapabilities;
  readonly facets: readonly Facet[] | undefined;
  readonly store: VisitStore;
  /** Whoever writes at the same time: another machine, if the store keeps its word between machines. */
  readonly second: VisitStore;
  readonly rounds: number;
  /** The visit with this id, which must be there. */
  readonly read: (id: string) => Promise<VisitRecord>;
  readonly made: (given?: Partial<VisitRecord>) => Promise<VisitRecord>;
  readonly madeMany: (count: number, given?: (index: number) => Partial<VisitRecord>) => Promise<VisitRecord[]>;
}

type Check = (title: string, body: (bench: Bench) => Promise<void>) => void;

/** What the sections of the suite are written with. */
export interface Suite {
  readonly check: Check;
  /** For what only stores can do that have this. What others must refuse instead is checked. */
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
