import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource, DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bytes, identityOf, newVisit, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { describeUnlessMissing } from '../support/needs.js';
import { openAccess } from '../support/open-access.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { findPostgres, startPostgres, type TestServer } from '../support/servers.mjs';

const POOL = 4;

describeUnlessMissing(
  findPostgres() ? [] : ['PostgreSQL, installed'],
  'A synchronous standby that is unavailable',
  () => {
    let server: TestServer;
    let dataSource: DataSource;
    /** Outside of the pool of visits. */
    let operator: DataSource;
    beforeAll(async () => {
      server = await startPostgres();
      const options = { type: 'postgres', url: server.url, poolSize: POOL } as DataSourceOptions;
      [dataSource, operator] = [await openMigrated(options), await openMigrated(options)];
    });
    afterAll(async () => {
      await Promise.all([dataSource?.destroy(), operator?.destroy()]);
      await server?.stop();
    });

    /** From now on, each commit waits for this standby. */
    async function waitFor(standby: string): Promise<void> {
      await operator.query(`ALTER SYSTEM SET synchronous_standby_names = '${standby}'`);
      await operator.query('SELECT pg_reload_conf()');
    }

    const waiting = async (): Promise<number> => {
      const sql = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
      return Number((await operator.query<{ n: string }[]>(sql))[0]!.n);
    };

    test('B84: writes wait for it without using all connections, so reads are served', async () => {
      const store = new TypeOrmVisitStore(dataSource);
      store.setDeadline(PATIENCE);
      const access = openAccess(store, PATIENCE);
      const visits = Array.from({ length: POOL * 3 }, () => newVisit());
      await store.create(visits);
      await waitFor('nobody');
      // The processes of the server are notified one by one.
      const probes: Promise<unknown>[] = [];
      await expect.poll(async () => (probes.push(access.create(newVisit())), waiting())).toBeGreaterThan(0);
      const [first] = visits as [(typeof visits)[0]];
      const writes = [
        ...visits.map((visit) => access.rekey(rekeyOf(visit, { identity: identityOf('a') }))),
        access.save(saveOf(first, { data: bytes('x') })),
        access.call((one) => one.end([newVisit().id], { reason: 'x', at: 1 })),
      ];
      for (const { id } of visits) expect(await access.find(id)).toMatchObject({ id });
      expect(await waiting()).toBeGreaterThan(0);
      expect(await waiting()).toBeLessThan(POOL);
      await waitFor('');
      const results = await Promise.all(writes);
      expect(results.slice(0, visits.length)).toEqual(visits.map(() => ({ outcome: 'done' })));
      await Promise.all(probes);
    });
  },
);
