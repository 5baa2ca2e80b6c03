import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { PATIENCE } from './support/patience.js';
import { isSoak } from './support/soak.js';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

/** Transformed sources, by their content; a folder for each tsconfig.json, which tells how decorators are transformed. */
const transformed = path(
  `../node_modules/.cache/vitest/${createHash('sha1')
    .update(readFileSync(path('../tsconfig.json')))
    .digest('hex')}`,
);

/** Not how long a test may take, but after how long nobody believes any more that it ends. */
const timeout = (isSoak ? 60 : 5) * PATIENCE;

/**
 * Files that take longest, so that none of them is still running when all else has ended. Those that have a process
 * each come before all others: whoever follows one of them needs a fresh process.
 */
const LONG = [
  'consumer/',
  'browser/',
  'fuzz/',
  // They start processes, which takes longer the more a process has loaded.
  'e2e/cli',
  'e2e/process',
  'unit/release',
  'interleaving/sqlite',
  'interleaving/',
  'contract/prisma',
  'contract/',
  'model/',
  'chaos/faults',
  // What computes, and what waits, in turn.
  'chaos/starting',
  'chaos/silence',
  'chaos/pair',
  'chaos/hanging',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const placeOf = ({ moduleId }: TestSpecification): number => {
      const place = LONG.findIndex((part) => moduleId.includes(`/test/${part}`));
      return place < 0 ? LONG.length : place;
    };
    return (await super.sort(files)).sort((one, other) => placeOf(one) - placeOf(other));
  }
}

/**
 * Files of a kind run side by side, as many as there are processors; one group after the other. They share no database.
 */
function kind(
  name: string,
  groupOrder: number,
  folders: readonly string[],
  more: { isolate?: boolean; maxWorkers?: number; globalSetup?: string } = {},
) {
  const include = folders.map((folder) => `test/${folder}/**/*.test.ts`);
  return {
    extends: true as const,
    test: { name, include, sequence: { groupOrder, sequencer: LongestFirst }, ...more },
  };
}

export default defineConfig({
  root: path('..'),
  resolve: {
    alias: [
      { find: /^nest-visit$/, replacement: path('../lib/index.ts') },
      { find: /^nest-visit\/kysely$/, replacement: path('../lib/store/kysely/index.ts') },
      { find: /^nest-visit\/express-session$/, replacement: path('../lib/express-session.ts') },
      { find: /^nest-visit\/fastify$/, replacement: path('../lib/fastify.ts') },
      { find: /^nest-visit\/opentelemetry$/, replacement: path('../lib/observe/opentelemetry.ts') },
      { find: /^nest-visit\/keyv$/, replacement: path('../lib/store/keyv/index.ts') },
      { find: /^nest-visit\/prisma$/, replacement: path('../lib/store/prisma/index.ts') },
      { find: /^nest-visit\/drizzle$/, replacement: path('../lib/store/drizzle/index.ts') },
      { find: /^nest-visit\/store-kit$/, replacement: path('../lib/store/kit/index.ts') },
      { find: /^nest-visit\/typeorm$/, replacement: path('../lib/store/typeorm/index.ts') },
      { find: /^nest-visit\/testing$/, replacement: path('../lib/testing/index.ts') },
      { find: /^nest-visit\/redis$/, replacement: path('../lib/store/redis/index.ts') },
      { find: /^nest-visit\/sealed-cookie$/, replacement: path('../lib/store/sealed-cookie/index.ts') },
    ],
  },
  test: {
    projects: [
      kind('separate', 0, ['consumer', 'fuzz', 'browser']),
      // Files share processes: to load Nest and the databases' drivers again for each of them takes longer than most of
      // them do.
      kind('shared', 0, ['interleaving', 'unit', 'contract', 'e2e', 'attack', 'model'], { isolate: false }),
      // Servers and several processes, for each test file. Most of the time they wait for what those do.
      kind('chaos', 1, ['chaos'], {
        isolate: false,
        maxWorkers: 2 * availableParallelism(),
        globalSetup: path('chaos/bundle-app.ts'),
      }),
    ],
    sequence: { sequencer: LongestFirst },
    setupFiles: [path('support/setup.ts')],
    pool: 'forks',
    experimental: { fsModuleCache: true, fsModuleCachePath: transformed },
    maxWorkers: availableParallelism(),
    testTimeout: timeout,
    hookTimeout: timeout,
    // What is polled for has mostly happened after a few milliseconds; the default interval would be most of the time.
    expect: { poll: { timeout: PATIENCE, interval: 5 } },
  },
});
