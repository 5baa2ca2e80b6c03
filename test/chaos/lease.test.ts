import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { uniquePrefix } from '../support/redis.js';
import { temporaryFolder } from '../support/servers.mjs';
import { startApps, type AppProcess, type AppSetting } from './app-process.js';
import { describeServers } from './servers.js';
import { Visitor } from './visitor.js';

/** Longer than a lease. */
const LATER = 31_000;

type Place = Pick<AppSetting, 'dataSource' | 'redis'>;

/** Two processes with one store and one clock, which the test moves on. */
function suite(place: () => Promise<Place>): void {
  let apps: AppProcess[] = [];
  afterEach(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    apps = [];
  });

  /** A request has exclusive access in the first process, which then stands still. */
  async function standStill() {
    const folder = temporaryFolder('lease');
    onTestFinished(() => folder.remove());
    const clockFile = join(folder.path, 'clock');
    writeFileSync(clockFile, '0');
    const where = await place();
    apps = await startApps((['express', 'fastify'] as const).map((platform) => ({ platform, clockFile, ...where })));
    const [first, second] = apps as [AppProcess, AppProcess];
    const at = ({ address }: AppProcess): Visitor => {
      const visitor = new Visitor(() => address);
      visitor.key = browser.key;
      return visitor;
    };
    const browser = new Visitor(() => first.address);
    await browser.post('/set', { key: 'by', value: 'nobody' });
    const write = at(first).post('/hold-alone', { by: 'first' });
    await first.printed('a request is alone');
    // As long as its lease lasts, nobody else gets in.
    expect(await at(second).post('/write-alone', { by: 'second' })).toMatchObject({ status: 423 });
    first.signal('SIGSTOP');
    writeFileSync(clockFile, String(LATER));
    const goOn = async () => {
      first.signal('SIGCONT');
      expect((await new Visitor(() => first.address).post('/go-on')).status).toBe(201);
      return write;
    };
    const stored = async () => (await at(second).get('/data')).body!['data'];
    return { second: at(second), goOn, stored };
  }

  test('B78, R52: what it writes when it goes on is refused, and what another process has written meanwhile stays', async () => {
    const { second, goOn, stored } = await standStill();
    expect(await second.post('/write-alone', { by: 'second' })).toMatchObject({ status: 201 });
    expect(await goOn()).toMatchObject({ status: 409, body: { code: 'VISIT_LOCK_LOST' } });
    expect(await stored()).toEqual({ by: 'second' });
  });

  test('B78, R52: it is refused, too, where nobody else has been there: it cannot know', async () => {
    const { goOn, stored } = await standStill();
    expect(await goOn()).toMatchObject({ status: 409, body: { code: 'VISIT_LOCK_LOST' } });
    expect(await stored()).toEqual({ by: 'nobody' });
  });
}

describe('A process that stands still beyond its lease', () => {
  describeServers('with visits', (db) => {
    suite(async () => {
      const { options } = await db.open();
      await (await openMigrated(options)).destroy();
      return { dataSource: options };
    });
  });
  describeWith('redis', 'with visits in redis', () => {
    suite(async () => ({ redis: { connection: redisUrl!, prefix: uniquePrefix() } }));
  });
});
