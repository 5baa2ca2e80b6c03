import { describe, test } from 'vitest';

/**
 * The servers that a machine may not have. `npm test` (test/run.mjs) finds or starts them, and passes their addresses
 * in the environment.
 */
export type Need = 'mysql' | 'postgres' | 'redis' | 'redisCluster' | 'memcached' | 'chromium';

/** An account that may create databases, or undefined. */
export const mysqlUrl = process.env['VISIT_TEST_MYSQL_URL'] || undefined;
/** An account that may create databases, or undefined. */
export const postgresUrl = process.env['VISIT_TEST_POSTGRES_URL'] || undefined;
/** A Redis or Valkey, or undefined. */
export const redisUrl = process.env['VISIT_TEST_REDIS_URL'] || undefined;
/** Nodes of a cluster of Redis or Valkey, or undefined. */
export const redisClusterUrls = process.env['VISIT_TEST_REDIS_CLUSTER_URLS']?.split(',').filter(Boolean);
/** A memcached, or undefined. */
export const memcachedUrl = process.env['VISIT_TEST_MEMCACHED_URL'] || undefined;
/** The path of a browser for playwright-core, or undefined. */
export const chromium = process.env['VISIT_TEST_CHROMIUM'] || undefined;

const needs: Record<Need, { there: boolean; name: string }> = {
  mysql: { there: mysqlUrl !== undefined, name: 'MariaDB or MySQL (VISIT_TEST_MYSQL_URL)' },
  postgres: { there: postgresUrl !== undefined, name: 'PostgreSQL (VISIT_TEST_POSTGRES_URL)' },
  redis: { there: redisUrl !== undefined, name: 'Redis or Valkey (VISIT_TEST_REDIS_URL)' },
  redisCluster: {
    there: Boolean(redisClusterUrls?.length),
    name: 'a cluster of Redis or Valkey (VISIT_TEST_REDIS_CLUSTER_URLS)',
  },
  memcached: { there: memcachedUrl !== undefined, name: 'memcached (VISIT_TEST_MEMCACHED_URL)' },
  chromium: { there: chromium !== undefined, name: 'Chromium (VISIT_TEST_CHROMIUM)' },
};

const isCi = ['true', '1'].includes(process.env['CI'] ?? '');
/** Whether servers are omitted intentionally, as in `npm run test:quick`. */
export const isWithoutServers = process.env['VISIT_TEST_WITHOUT_SERVERS'] === '1';

/** Whether the machine has this server. */
export function has(need: Need): boolean {
  return needs[need].there;
}

/**
 * `describe`, for a suite that needs one or more servers. If one is missing, the suite is replaced by one test that
 * reports this: skipped on a developer's machine, failed if CI=true.
 */
export function describeWith(need: Need | readonly Need[], title: string, suite: () => void): void {
  describeUnlessMissing(
    [need].flat().flatMap((one) => (has(one) ? [] : needs[one].name)),
    title,
    suite,
  );
}

/** The same for anything that may be missing, by name. */
export function describeUnlessMissing(missing: readonly string[], title: string, suite: () => void): void {
  if (missing.length === 0) {
    describe(title, suite);
    return;
  }
  // test/run.mjs lists the tests whose titles begin with this.
  const reason = `${isWithoutServers ? '' : 'could not run: '}needs ${missing.join(' and ')}`;
  describe(title, () => {
    if (isCi && !isWithoutServers) {
      test(reason, () => {
        throw new Error(reason);
      });
    } else {
      test.skip(reason, () => {});
    }
  });
}
