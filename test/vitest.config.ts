import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

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
    testTimeout: 20_000,
    hookTimeout: 60_000,
  },
});
