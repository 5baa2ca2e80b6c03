import type { DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { openMigrated } from '../support/open-migrated.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { isSoak } from '../support/soak.js';
import { startApps, type AppProcess } from './app-process.js';
import { Load } from './load.js';
import { describeServerPairs, type ServerPair } from './server-pair.js';

/** How long a request waits for a server that is gone. */
const STORE_TIMEOUT = 2000;
const EVENTS = isSoak ? (['swap', 'swap', 'swap', 'failOver'] as const) : (['swap', 'failOver'] as const);

describeServerPairs('A pair of servers', (start) => {
  let pair: ServerPair;
  /** What the name of the database leads to. */
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

  test('B44, B45: they swap roles, then one is killed: service continues without intervention, and nothing is lost', async () => {
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
        // That of MariaDB keeps its connections when it can only be read: whoever stays with it never writes again.
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
