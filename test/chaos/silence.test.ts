import type { VisitStore } from 'nest-visit';
import { RedisVisitStore } from 'nest-visit/redis';
import type { DataSourceOptions } from 'typeorm';
import { expect, onTestFinished, test } from 'vitest';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { platforms } from '../support/app.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { startProxy } from '../support/proxy.js';
import { uniquePrefix } from '../support/redis.js';
import { WatchedStore } from '../support/watched-store.js';
import { Crowd } from './crowd.js';
import { describeServers } from './servers.js';

/** Tests wait for it a few times; it is longer than any answered call, even on a busy machine. */
const STORE_TIMEOUT = 3000;
/** The options of each application. */
const POOL = 4;

/** The calls of a store that began after an event, and failed, in the order of their ends. */
function watchFailures(store: VisitStore) {
  let moment = 0;
  let since = Infinity;
  const failures: { began: number; ended: number }[] = [];
  const watched = new WatchedStore(store);
  watched.around = async (_, go) => {
    const began = ++moment;
    const fail = (): void => void (began > since && failures.push({ began, ended: ++moment }));
    try {
      const result = await go();
      if (Array.isArray(result) && result.some((one: { outcome?: string } | null) => one?.outcome === 'failed')) fail();
      return result;
    } catch (error) {
      fail();
      throw error;
    }
  };
  return { store: watched.store, failures, begin: () => void (since = moment) };
}

function describeSilence(target: () => Promise<string>, open: (url: string) => VisitStore | Promise<VisitStore>): void {
  test('B44: a network silently drops all packets: two deadlines after its recovery, all are served', async () => {
    const proxy = await startProxy(await target());
    onTestFinished(() => proxy.close());
    const watches: ReturnType<typeof watchFailures>[] = [];
    const crowd = await Crowd.gather(async () => {
      const watch = watchFailures(await open(proxy.url));
      watches.push(watch);
      return watch.store;
    }, STORE_TIMEOUT);
    await crowd.during(async () => {
      await crowd.reaches(({ served }) => served >= 5);
      proxy.goSilent();
      // Some have waited in vain; the others are refused immediately.
      await crowd.reaches(({ refused }) => refused >= 5);
      proxy.comeBack();
      for (const watch of watches) watch.begin();
      await crowd.reaches(({ served }) => served >= 10);
    });
    // One deadline for calls in flight, and one for those that wait for their connections; later calls are served.
    for (const { failures } of watches) {
      const first = Math.min(...failures.map(({ ended }) => ended));
      expect(failures.filter(({ began }) => began > first)).toEqual([]);
    }
    await crowd.settle();
    // All broken connections have been closed.
    await expect.poll(() => proxy.inUse).toBeLessThanOrEqual(platforms.length * POOL);
  });
}

describeServers('A network that is silent', (db) => {
  let options: DataSourceOptions;
  describeSilence(
    async () => {
      ({ options } = await db.open());
      await (await openMigrated(options)).destroy();
      return (options as { url: string }).url;
    },
    (url) => openTypeOrmVisitStore({ ...options, url, poolSize: POOL } as DataSourceOptions),
  );
});

describeWith('redis', 'A network that is silent on redis', () => {
  const prefix = uniquePrefix();
  describeSilence(
    async () => redisUrl!,
    (connection) => new RedisVisitStore({ connection, prefix }),
  );
});
