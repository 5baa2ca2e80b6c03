import type { DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { openMigrated } from '../support/open-migrated.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { isSoak } from '../support/soak.js';
import { startApps, type AppProcess } from './app-process.js';
import { Load } from './load.js';
import { describeServerPairOfToday, type ServerPair } from './server-pair.js';

/** How long a request waits for a lost server. */
const STORE_TIMEOUT = 2000;
const EVENTS = isSoak ? (['swap', 'swap', 'swap', 'failOver'] as const) : (['swap', 'failOver'] as const);

describeServerPairOfToday('A pair of servers', (start) => {
  let pair: ServerPair;
  /** The server that the name of the database points to. */
  let proxy: Proxy;
  let apps: AppProcess[] = [];
  beforeAll(async () => {
    pair = await start();
    const dataSource = await openMigrated({ type: pair.type, url: pair.url } as DataSourceOptions);
    await dataSource.destroy();
    proxy = await startProxy(pair.url);
  });
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    await proxy?.close();
    await pair?.stop();
  });

  test('B44, B45: they swap roles, then one is killed: service continues, and nothing is lost', async () => {
    apps = await startApps(
      platforms.map((platform) => ({
        platform,
        dataSource: { type: pair.type, url: proxy.url },
        visits: { storeTimeout: STORE_TIMEOUT, touch: { interval: 100, resolution: 1 } },
      })),
    );
    const load = await new Load(apps).begin();
    try {
      await load.thrives(2);
      for (const event of EVENTS) {
        await pair[event]();
        // A MariaDB server keeps its connections when it becomes read-only: a client that stays with it never writes
        // again.
        proxy.lead(pair.url);
        await load.thrives();
      }
    } finally {
      await load.finish();
    }
    await load.settle();
    expect(load.failures).toBeGreaterThan(0);
  });
});
