import { Logger } from '@nestjs/common';
import { VisitStoreUnavailableError } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { openAccess } from '../support/open-access.js';
import { bytes, newVisit, saveOf } from '../../lib/testing/samples.js';
import { platforms, startApp } from '../support/app.js';
import { openMigrated } from '../support/open-migrated.js';
import { Counter } from './crowd.js';
import { describeFaultServer, type FaultServer } from './fault-server.js';

/** Short, because tests wait for it, but longer than calls take on a busy machine. */
const STORE_TIMEOUT = 500;

const AWAY = 'The store does not answer';
const BACK = 'The store answers again';

/** Counts its calls. */
class CountingStore extends TypeOrmVisitStore {
  calls = 0;

  override find(ids: readonly string[]) {
    this.calls++;
    return super.find(ids);
  }
}

for (const name of ['mariadb', 'postgres'] as const) {
  describeFaultServer('A database that hangs', name, (start) => {
    let db: FaultServer;
    let dataSource: DataSource;
    let store: CountingStore;
    const lines: string[] = [];
    const saying = (text: string): number => lines.filter((line) => line.includes(text)).length;

    beforeAll(async () => {
      db = await start();
      dataSource = await openMigrated(db.dataSource);
      store = new CountingStore(dataSource);
    });
    afterAll(async () => {
      await dataSource?.destroy();
      await db?.stop();
    });
    beforeEach(() => {
      lines.length = 0;
      const note = (line: string): void => void lines.push(line);
      Logger.overrideLogger({ log: note, warn: note, error: note });
    });
    afterEach(() => Logger.overrideLogger(false));

    /** Suspends it until the returned function is called, or the test ends. */
    const hang = async (): Promise<() => Promise<void>> => {
      const goOn = await db.hang();
      let going: Promise<void> | undefined;
      const once = (): Promise<void> => (going ??= goOn());
      onTestFinished(once);
      return once;
    };

    test('R28: requests no longer wait, and all continue after one of them was answered', async () => {
      const access = openAccess(store, STORE_TIMEOUT);
      const visits = Array.from({ length: 20 }, () => newVisit());
      await store.create(visits);
      const goOn = await hang();

      let timeouts = 0;
      while (saying(AWAY) === 0) {
        await expect(access.find(visits[0]!.id)).rejects.toThrow(VisitStoreUnavailableError);
        timeouts++;
      }
      // For a request, time counts from its arrival; for a call, from when it was sent. So the fourth call may still
      // have been admitted.
      expect(timeouts).toBeLessThanOrEqual(4);

      const began = performance.now();
      const before = store.calls;
      // More than the pool has connections.
      for (let round = 0; round < 15; round++) {
        const results = await Promise.allSettled([
          ...visits.map(({ id }) => access.find(id)),
          access.create(newVisit()),
          access.save(saveOf(visits[0]!)),
          access.revokedAt('x'),
          access.call((one) => one.end([visits[0]!.id], { reason: 'x', at: 0 })),
        ]);
        for (const result of results)
          expect(result).toMatchObject({ status: 'rejected', reason: expect.any(VisitStoreUnavailableError) });
      }
      // One at a time, each waiting for its timeout: there cannot be more, however fast the machine is.
      expect(store.calls - before).toBeLessThanOrEqual(1 + (performance.now() - began) / STORE_TIMEOUT);
      expect(saying(AWAY)).toBe(1);

      // There are no new calls: the ones sent earlier are answered now.
      await goOn();
      await expect.poll(() => saying(BACK)).toBe(1);
      const saves = visits.map((visit) => access.save(saveOf(visit, { data: bytes('x') })));
      expect(await Promise.all(saves)).toEqual(visits.map(() => ({ outcome: 'saved', version: 1 })));
      const found = await Promise.all(Array.from({ length: 200 }, (_, index) => access.find(visits[index % 20]!.id)));
      expect(found.filter((visit) => visit?.sessionVersion !== 1)).toEqual([]);
      expect([saying(AWAY), saying(BACK)]).toEqual([1, 1]);
    });

    describe.each(platforms)('under %s', (platform) => {
      test('B18: requests get an error, and their sessions are available when it continues', async () => {
        const options = { dataSource, expunge: { schedule: false }, wipe: { schedule: false } } as const;
        const app = await startApp(platform, { ...options, storeTimeout: STORE_TIMEOUT }, { controllers: [Counter] });
        onTestFinished(() => app.close());
        // An application with long timeouts reads the stored data at the end.
        const patient = await startApp(platform, options, { controllers: [Counter] });
        onTestFinished(() => patient.close());
        lines.length = 0;
        const note = (line: string): void => void lines.push(line);
        Logger.overrideLogger({ log: note, warn: note, error: note });
        const browsers = Array.from({ length: 10 }, () => app.browser());
        for (const browser of browsers) expect((await browser.via(patient).post('/')).text).toBe('{"n":1}');

        const goOn = await hang();
        while (saying(AWAY) === 0) expect((await browsers[0]!.get('/')).status).toBe(503);
        for (let round = 0; round < 4; round++) {
          for (const { status, headers } of await Promise.all(browsers.map((browser) => browser.get('/')))) {
            expect(status).toBe(503);
            expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
          }
        }

        await goOn();
        await expect.poll(async () => (await browsers[0]!.get('/')).status).toBe(200);
        const replies = await Promise.all(browsers.map((browser) => browser.via(patient).post('/')));
        expect(replies.map(({ text }) => text)).toEqual(browsers.map(() => '{"n":2}'));
      });
    });
  });
}
