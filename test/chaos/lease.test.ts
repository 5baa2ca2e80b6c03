import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { uniquePrefix } from '../support/redis.js';
import { temporaryFolder } from '../support/servers.mjs';
import { startApps, type AppProcess, type AppSetting } from './app-process.js';
import { describeServerOfToday } from './servers.js';
import { idOf, Visitor, type Reply } from './visitor.js';

/** Longer than a lease. */
const LATER = 31_000;

type Place = Pick<AppSetting, 'dataSource' | 'redis'>;

interface Browser {
  /** The same browser at the second process. */
  readonly elsewhere: Visitor;
  /** The response of the first process. */
  readonly write: Promise<Reply>;
}

/**
 * Two processes with one store and one clock. Requests of two browsers have exclusive access in the first process,
 * which is suspended until their leases have expired. In the meantime, one of the browsers uses the second process.
 */
function suite(place: () => Promise<Place>): void {
  let apps: AppProcess[] = [];
  const folder = temporaryFolder('lease');
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    await folder.remove();
  });

  let busy: Browser;
  let waiting: Browser;
  beforeAll(async () => {
    const clockFile = join(folder.path, 'clock');
    writeFileSync(clockFile, '0');
    const where = await place();
    apps = await startApps((['express', 'fastify'] as const).map((platform) => ({ platform, clockFile, ...where })));
    const [first, second] = apps as [AppProcess, AppProcess];
    const arrive = async (): Promise<Browser> => {
      const visitor = new Visitor(() => first.address);
      await visitor.post('/set', { key: 'by', value: 'nobody' });
      const elsewhere = new Visitor(() => second.address);
      elsewhere.key = visitor.key;
      const write = visitor.post('/hold-alone', { by: 'first' });
      await first.printed(`${idOf(visitor.key!)} is alone`);
      // While its lease lasts, no other request gets access.
      expect(await elsewhere.post('/write-alone', { by: 'second' })).toMatchObject({ status: 423 });
      return { elsewhere, write };
    };
    busy = await arrive();
    waiting = await arrive();
    first.signal('SIGSTOP');
    writeFileSync(clockFile, String(LATER));
    expect(await busy.elsewhere.post('/write-alone', { by: 'second' })).toMatchObject({ status: 201 });
    first.signal('SIGCONT');
    expect((await new Visitor(() => first.address).post('/go-on')).status).toBe(201);
    await Promise.all([busy.write, waiting.write]);
  });

  const stored = async ({ elsewhere }: Browser): Promise<unknown> => (await elsewhere.get('/data')).body!['data'];

  test('B78, R52: its later writes are refused, and those of another process are kept', async () => {
    expect(await busy.write).toMatchObject({ status: 409, body: { code: 'VISIT_LOCK_LOST' } });
    expect(await stored(busy)).toEqual({ by: 'second' });
  });

  test('B78, R52: it is refused even if no other owner has had the lock since', async () => {
    expect(await waiting.write).toMatchObject({ status: 409, body: { code: 'VISIT_LOCK_LOST' } });
    expect(await stored(waiting)).toEqual({ by: 'nobody' });
  });
}

describe('A process that is suspended beyond its lease', () => {
  describeServerOfToday('with visits', (db) => {
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
