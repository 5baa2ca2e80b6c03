import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { PATIENCE } from './support/patience.js';
import { isSoak } from './support/soak.js';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

/** Not how long a test may take, but after how long nobody believes any more that it ends. */
const timeout = (isSoak ? 60 : 5) * PATIENCE;

export default defineConfig({
  root: path('..'),
  resolve: {
    alias: [
      { find: /^nest-visit$/, replacement: path('../lib/index.ts') },
      { find: /^nest-visit\/keyv$/, replacement: path('../lib/store/keyv/index.ts') },
      { find: /^nest-visit\/prisma$/, replacement: path('../lib/store/prisma/index.ts') },
      { find: /^nest-visit\/testing$/, replacement: path('../lib/testing/index.ts') },
      { find: /^nest-visit\/redis$/, replacement: path('../lib/store/redis/index.ts') },
      { find: /^nest-visit\/sealed-cookie$/, replacement: path('../lib/store/sealed-cookie/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: [path('support/setup.ts')],
    // Test files share no process and no database, so they may run side by side; more of them than processors only
    // makes waiting times uneven.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: timeout,
    hookTimeout: timeout,
    expect: { poll: { timeout: PATIENCE } },
  },
});
