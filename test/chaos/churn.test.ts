import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { openMigrated } from '../support/open-migrated.js';
import { isSoak } from '../support/soak.js';
import { startApps, type AppProcess } from './app-process.js';
import { describeServerOfToday } from './servers.js';
import { Visitor } from './visitor.js';

// Visits begin, sign in, write and end, for up to ten minutes: a process must release everything that it has stored for
// them.

const SECONDS = isSoak ? Number(process.env['VISIT_TEST_CHURN_SECONDS'] ?? 600) : 4;
/** How often the heap is measured. The first time, the process is warm. */
const LOOKS = 5;
const VISITORS = 20;
/**
 * The allowed growth since the first measurement, in bytes. In ten minutes, half a kilobyte for each visit would exceed
 * it. A short run also measures the compiler.
 */
const MOST_MORE = (isSoak ? 4 : 16) * 2 ** 20;

describeServerOfToday('Visits that begin and end', (db) => {
  let apps: AppProcess[] = [];
  let dataSource: DataSource;
  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    apps = await startApps(
      platforms.map((platform) => ({
        platform,
        dataSource: options,
        visits: { touch: { interval: 100, resolution: 1 }, renewAfter: 50 },
      })),
    );
  });
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    await dataSource?.destroy();
  });

  test('B19: do not make the heap grow', async () => {
    let lives = 0;
    /** The whole life of a visit. */
    const live = async (index: number): Promise<void> => {
      const visitor = new Visitor(() => apps[lives % apps.length]!.address);
      const replies = [
        await visitor.post('/add'),
        await visitor.post('/login', { user: `user ${index}` }),
        await visitor.post('/add'),
        await visitor.get('/who'),
        await visitor.post('/logout', {}),
      ];
      expect(replies.filter(({ status }) => status >= 300)).toEqual([]);
      lives++;
    };
    const churn = async (seconds: number): Promise<void> => {
      const end = performance.now() + seconds * 1000;
      const visitors = Array.from({ length: VISITORS }, async (_, index) => {
        do await live(index);
        while (performance.now() < end);
      });
      await Promise.all(visitors);
    };
    const heaps = (): Promise<number[]> => Promise.all(apps.map((app) => app.tell<number>('/heap')));

    await churn(SECONDS / LOOKS);
    const before = await heaps();
    const more: number[][] = [];
    for (let look = 1; look < LOOKS; look++) {
      await churn(SECONDS / LOOKS);
      more.push((await heaps()).map((heap, index) => heap - before[index]!));
    }
    console.log(
      `${db.name}: ${lives} visits; the heaps in MiB: ` +
        `${JSON.stringify(more.map((all) => all.map((bytes) => (bytes / 2 ** 20).toFixed(1))))} more`,
    );
    expect(Math.max(...more.flat())).toBeLessThan(MOST_MORE);
    expect(await dataSource.getRepository(Visit).count()).toBe(lives);
  });
});
