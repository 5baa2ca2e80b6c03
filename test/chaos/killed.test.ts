import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { openMigrated } from '../support/open-migrated.js';
import { temporaryFolder } from '../support/servers.mjs';
import { startApps, type AppProcess, type AppSetting } from './app-process.js';
import { describeServerOfToday } from './servers.js';
import { idOf, Visitor } from './visitor.js';

const MINUTE = 60_000;
/** The default. A quarter of it may wait in the memory of a process, and may be lost. */
const TIMEOUT = 20 * MINUTE;
const QUARTER = TIMEOUT / 4;

describeServerOfToday('A process that is killed with queued expiry updates', (db) => {
  let dataSource: DataSource;
  let setting: Omit<AppSetting, 'platform'>;
  let moveTo: (milliseconds: number) => void;
  let survivor: AppProcess;
  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    const folder = temporaryFolder('killed');
    const clockFile = join(folder.path, 'clock');
    moveTo = (milliseconds) => writeFileSync(clockFile, String(milliseconds));
    moveTo(0);
    setting = { dataSource: options, clockFile, visits: { timeout: TIMEOUT, touch: { interval: '5m' } } };
    [survivor] = (await startApps([{ platform: 'fastify', ...setting }])) as [AppProcess];
    return async () => {
      await survivor.end('SIGKILL');
      await folder.remove();
    };
  });
  afterAll(() => dataSource?.destroy());

  test('B62: shortens no visit by more than a quarter of the timeout after the last request', async () => {
    const [doomed] = (await startApps([{ platform: 'express', ...setting }])) as [AppProcess];
    onTestFinished(async () => void (await doomed.end('SIGKILL')));
    const arrive = async (): Promise<Visitor> => {
      const visitor = new Visitor(() => doomed.address);
      expect((await visitor.post('/login', { user: 'somebody' })).status).toBe(201);
      return visitor;
    };
    const expiryOf = async ({ key }: Visitor): Promise<number> =>
      (await dataSource.getRepository(Visit).findOneByOrFail({ id: idOf(key!) })).expiry.getTime();

    // More than a quarter is gained, so it is written immediately.
    const slow = await arrive();
    const first = await expiryOf(slow);
    const later = QUARTER + MINUTE;
    moveTo(later);
    expect((await slow.get('/who')).body).toMatchObject({ user: 'somebody' });
    expect(await expiryOf(slow)).toBeGreaterThanOrEqual(first + later);
    // Less is gained, so it waits.
    const [brisk, late] = [await arrive(), await arrive()];
    const began = await Promise.all([brisk, late].map(expiryOf));
    const last = later + QUARTER - MINUTE;
    moveTo(last);
    for (const visitor of [brisk, late]) expect((await visitor.get('/who')).body).toMatchObject({ user: 'somebody' });
    await doomed.end('SIGKILL');
    expect(await Promise.all([brisk, late].map(expiryOf))).toEqual(began);

    const userAt = async (milliseconds: number, { key }: Visitor): Promise<unknown> => {
      moveTo(milliseconds);
      const visitor = new Visitor(() => survivor.address);
      visitor.key = key;
      return (await visitor.get('/who')).body!['user'];
    };
    // This one has lost nothing.
    expect(await userAt(later + TIMEOUT - MINUTE, slow)).toBe('somebody');
    expect(await userAt(last + TIMEOUT - QUARTER, brisk)).toBe('somebody');
    expect(await userAt(later + TIMEOUT + MINUTE, late)).toBeNull();
  });
});
