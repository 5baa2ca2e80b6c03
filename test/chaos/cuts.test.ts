import { setTimeout as pause } from 'node:timers/promises';
import { Visit, VisitIdentity } from 'nest-visit/typeorm';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy, type Moment, type Proxy } from '../support/proxy.js';
import { uniquePrefix } from '../support/redis.js';
import { isSoak } from '../support/soak.js';
import { startApps, type AppProcess, type AppSetting } from './app-process.js';
import { describeServerOfToday } from './servers.js';
import { Shopper } from './shopper.js';
import { Dice, SEED } from './visitor.js';

const SHOPPERS = isSoak ? 40 : 20;
/** Redis has one connection for each process, and all running calls end with it. */
const CUTS = isSoak ? { sql: 1000, redis: 300 } : { sql: 50, redis: 10 };
/** One of this many messages closes its connection. */
const ONE_OF = { sql: 25, redis: 60 };
const MOMENTS: readonly Moment[] = ['asked', 'answered', 'amid'];

/** Where the applications store visits; `url` points there through the failing network. */
interface Place {
  readonly url: string;
  readonly through: (url: string) => Pick<AppSetting, 'dataSource' | 'redis'>;
  /** The users of visits that have not ended, by id. */
  readonly linked?: () => Promise<Map<string, string>>;
}

function describeCuts(kind: 'sql' | 'redis', open: () => Promise<Place>): void {
  const most = CUTS[kind];
  let place: Place;
  let proxy: Proxy;
  let apps: AppProcess[] = [];
  beforeAll(async () => {
    place = await open();
    proxy = await startProxy(place.url);
    apps = await startApps(
      (['express', 'fastify'] as const).map((platform) => ({
        platform,
        ...place.through(proxy.url),
        hasSlowClock: true,
        // A key is due for renewal after a few requests of its browser.
        visits: { renewAfter: 50, touch: { interval: 200, resolution: 1 } },
      })),
    );
  });
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    await proxy?.close();
  });

  test(`B81, B83: after ${most} connections have broken at any moment, no visit, cart or count is lost`, async () => {
    const dice = new Dice(SEED);
    const complaints: string[] = [];
    const shoppers = Array.from(
      { length: SHOPPERS },
      (_, index) =>
        new Shopper(
          () => dice.pick(apps).address,
          String(index),
          dice,
          (text) => complaints.push(text),
        ),
    );
    let cuts = 0;
    const isOver = (): boolean => cuts >= most || complaints.length > 0;
    proxy.cutAtTimes(() => (cuts < most && dice.below(ONE_OF[kind]) === 0 ? (cuts++, dice.pick(MOMENTS)) : undefined));
    await Promise.all(
      shoppers.map(async (shopper) => {
        while (!isOver()) {
          await shopper.act();
          // As many as two processors can handle.
          await pause(dice.below(20));
        }
      }),
    );
    await vi.waitUntil(async () => (await shoppers[0]!.visitor.get('/who')).status === 200, { timeout: PATIENCE });
    const known = await Promise.all(shoppers.map((shopper) => shopper.close()));
    expect(complaints, `VISIT_TEST_SEED=${SEED}`).toEqual([]);

    // No visit has a user without a client that is signed in to it.
    const users = new Map(known.filter(({ user }) => user !== null).map(({ id, user }) => [id!, user!]));
    const linked = await place.linked?.();
    if (linked) expect([...linked].filter(([id, user]) => users.get(id) !== user)).toEqual([]);
    const sum = (of: (shopper: Shopper) => number): number =>
      shoppers.reduce((total, shopper) => total + of(shopper), 0);
    console.log(`${cuts} cuts, ${sum((one) => one.requests)} requests, ${sum((one) => one.failures)} of them failed`);
    // Most were not affected.
    expect(sum((one) => one.failures)).toBeLessThan(sum((one) => one.requests) / 4);
  });
}

describeServerOfToday('A network that cuts connections', (db) => {
  let dataSource: DataSource;
  afterAll(() => dataSource?.destroy());
  describeCuts('sql', async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    return {
      url: (options as { url: string }).url,
      through: (url) => ({ dataSource: { ...options, url } }),
      linked: async () => {
        const live = await dataSource.getRepository(Visit).find();
        const ids = new Set(live.filter(({ endedAt }) => endedAt === null).map(({ id }) => id));
        const identities = await dataSource.getRepository(VisitIdentity).find();
        return new Map(
          identities.filter(({ visitId }) => ids.has(visitId)).map(({ visitId, userId }) => [visitId, userId]),
        );
      },
    };
  });
});

describeWith('redis', 'A network that cuts connections on redis', () => {
  describeCuts('redis', async () => {
    const prefix = uniquePrefix();
    return { url: redisUrl!, through: (connection) => ({ redis: { connection, prefix } }) };
  });
});
