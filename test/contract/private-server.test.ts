import { SessionDataError, VisitServerSettingError, type VisitStore } from 'nest-visit';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { KyselyVisitStore } from 'nest-visit/kysely';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource, DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type { StoreAccess } from '../../lib/store/store-access.js';
import { openAccess } from '../support/open-access.js';
import { newVisit, NOW, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { openMigrated } from '../support/open-migrated.js';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { openDrizzle } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { openPrisma } from '../support/prisma-client.mjs';
import { findMariaDb, startMariaDb, type TestServer } from '../support/servers.mjs';
import { endAllOf } from '../../lib/testing/many.js';
import { useAll } from '../support/use-all.js';

const PACKET = 1_048_576;

// Settings that only a server of one's own can have.
describeUnlessMissing(
  findMariaDb() ? [] : ['MariaDB, installed'],
  'MariaDB with a binary log and small packets',
  () => {
    let server: TestServer;
    let dataSource: DataSource;
    let store: TypeOrmVisitStore;
    const open = (): Promise<DataSource> => openMigrated({ type: 'mariadb', url: server.url } as DataSourceOptions);
    beforeAll(async () => {
      server = await startMariaDb({
        args: ['--log-bin=log', '--server-id=1', '--binlog-format=MIXED', `--max-allowed-packet=${PACKET}`],
      });
      dataSource = await open();
      store = new TypeOrmVisitStore(dataSource);
      await store.check();
    });
    afterAll(async () => {
      await dataSource?.destroy();
      await server?.stop();
    });

    const identity = { userId: 'ann', created: NOW, authenticatedAt: NOW };
    const dataOf = (size: number): Uint8Array => Buffer.alloc(size, 0xff);
    const access = (): StoreAccess => openAccess(store, PATIENCE);

    test.each(['MIXED', 'ROW'])('a binary log by %s accepts all writes', async (format) => {
      await dataSource.query(`SET GLOBAL binlog_format = '${format}'`);
      const fresh = await open();
      onTestFinished(() => fresh.destroy());
      const own = new TypeOrmVisitStore(fresh);
      await own.check();
      const [visit, stale] = [newVisit(), newVisit({ expiry: 1 })];
      await own.create([visit, stale]);
      expect(await own.save([saveOf(visit, { data: dataOf(10) })])).toMatchObject([{ outcome: 'saved' }]);
      expect(await own.rekey([rekeyOf(visit, { identity })])).toEqual([{ outcome: 'done' }]);
      expect(await endAllOf(own, 'ann', { reason: 'x', at: NOW })).toEqual([visit.id]);
      expect(await own.expunge({ before: 2, limit: 10 })).toMatchObject({ visits: 1 });
    });

    test('B80: while the server has no room for prepared statements, plain ones are used', async () => {
      const fresh = await openMigrated({ type: 'mariadb', url: server.url, poolSize: 1 } as DataSourceOptions);
      onTestFinished(() => fresh.destroy());
      const own = new TypeOrmVisitStore(fresh);
      const visit = newVisit();
      await own.create([visit]);
      const executed = async (): Promise<number> => {
        const [row] = await fresh.query<{ Value: string }[]>("SHOW SESSION STATUS LIKE 'Com_stmt_execute'");
        return Number(row!.Value);
      };
      const before = await executed();
      const look = async (): Promise<number> => {
        expect(await own.find([visit.id])).toMatchObject([{ id: visit.id }]);
        return (await executed()) - before;
      };
      await dataSource.query('SET GLOBAL max_prepared_stmt_count = 0');
      onTestFinished(async () => void (await dataSource.query('SET GLOBAL max_prepared_stmt_count = DEFAULT')));
      expect(await look()).toBe(0);
      await dataSource.query('SET GLOBAL max_prepared_stmt_count = DEFAULT');
      expect(await look()).toBe(1);
    });

    test('B80: everything works while the server has no room for prepared statements, and rare ones do not stay prepared', async () => {
      const prepared = async (): Promise<number> => {
        const [row] = await dataSource.query<{ Value: string }[]>("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'");
        return Number(row!.Value);
      };
      const fresh = await openMigrated({ type: 'mariadb', url: server.url, poolSize: 1 } as DataSourceOptions);
      onTestFinished(() => fresh.destroy());
      const own = new TypeOrmVisitStore(fresh);
      for (const table of ['visit_identity', 'visit', 'visit_revocation']) await fresh.query(`DELETE FROM ${table}`);
      const before = await prepared();
      for (let times = 0; times < 3; times++) await useAll(own, store);
      // Look-ups, saves and touches of one visit, and of a few.
      expect((await prepared()) - before).toBeLessThanOrEqual(12);
      await dataSource.query('SET GLOBAL max_prepared_stmt_count = 0');
      onTestFinished(async () => void (await dataSource.query('SET GLOBAL max_prepared_stmt_count = DEFAULT')));
      const full = await openMigrated({ type: 'mariadb', url: server.url, poolSize: 1 } as DataSourceOptions);
      onTestFinished(() => full.destroy());
      await useAll(new TypeOrmVisitStore(full), store);
      expect((await prepared()) - before).toBeLessThanOrEqual(12);
    });

    test('one by STATEMENT is refused at startup, because a sign-in would fail', async () => {
      await dataSource.query("SET GLOBAL binlog_format = 'STATEMENT'");
      onTestFinished(async () => void (await dataSource.query("SET GLOBAL binlog_format = 'MIXED'")));
      const fresh = await open();
      onTestFinished(() => fresh.destroy());
      const own = new TypeOrmVisitStore(fresh);
      const error = await own.check().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(VisitServerSettingError);
      expect((error as VisitServerSettingError).settings.map(({ name }) => name)).toEqual(['binlog_format']);
      const visit = newVisit();
      await store.create([visit]);
      await expect(own.rekey([rekeyOf(visit, { identity })])).rejects.toThrow(/BINLOG_FORMAT = STATEMENT/);
    });

    test('B15: saves that exceed a packet only together are written in several packets', async () => {
      const visits = Array.from({ length: 12 }, (_, index) => newVisit({ sessionData: dataOf(30_000 * (index + 1)) }));
      const own = access();
      await Promise.all(visits.map((visit) => own.create(visit)));
      const ids = visits.map(({ id }) => id);
      expect((await store.find(ids)).map((visit) => visit?.sessionData?.length)).toEqual(
        visits.map(({ sessionData }) => sessionData?.length),
      );

      const saves = visits.map((visit, index) => saveOf(visit, { data: dataOf(30_000 * (12 - index)) }));
      const results = await Promise.all(saves.map((save) => own.save(save)));
      expect(results).toEqual(visits.map(() => ({ outcome: 'saved', version: 1 })));
      expect((await store.find(ids)).map((visit) => visit?.sessionData?.length)).toEqual(
        saves.map(({ data }) => data?.length),
      );
    });

    test('B15: a save that exceeds a packet alone has its own error, and does not fail others', async () => {
      const [large, one, other] = [
        newVisit({ sessionData: dataOf(PACKET) }),
        newVisit({ sessionData: dataOf(400_000) }),
        newVisit(),
      ];
      const own = access();
      const created = await Promise.allSettled([large, one, other].map((visit) => own.create(visit)));
      expect(created.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
      expect((created[0] as PromiseRejectedResult).reason).toBeInstanceOf(SessionDataError);
      expect((created[0] as PromiseRejectedResult).reason).toMatchObject({ code: 'SESSION_TOO_LARGE' });

      const saves = [saveOf(one, { data: dataOf(PACKET) }), saveOf(other, { data: dataOf(400_000) })];
      const saved = await Promise.allSettled(saves.map((save) => own.save(save)));
      expect(saved).toMatchObject([
        { status: 'rejected', reason: { code: 'SESSION_TOO_LARGE' } },
        { status: 'fulfilled' },
      ]);
      expect((await store.find([large, one, other].map(({ id }) => id))).map((visit) => visit?.sessionVersion)).toEqual(
        [undefined, 0, 1],
      );
    });

    test('B15: if packets are smaller than the server claims, a group that is too long is halved', async () => {
      await dataSource.query('SET GLOBAL max_allowed_packet = 524288');
      onTestFinished(async () => void (await dataSource.query(`SET GLOBAL max_allowed_packet = ${PACKET}`)));
      const fresh = await open();
      onTestFinished(() => fresh.destroy());
      // Nobody has asked that server.
      const unaware = new TypeOrmVisitStore(fresh);
      const visits = Array.from({ length: 8 }, () => newVisit());
      await unaware.create(visits);
      const results = await unaware.save(visits.map((visit) => saveOf(visit, { data: dataOf(100_000) })));
      expect(results).toEqual(visits.map(() => ({ outcome: 'saved', version: 1 })));
    });

    const others: Record<string, () => Promise<[VisitStore, () => Promise<void>]>> = {
      Prisma: async () => {
        const prisma = await openPrisma('mariadb', server.url);
        return [new PrismaVisitStore(prisma), () => prisma.$disconnect()];
      },
      Kysely: async () => {
        const db = openKysely('mariadb', { options: { url: server.url } as DataSourceOptions });
        return [new KyselyVisitStore({ db }), () => db.destroy()];
      },
      Drizzle: async () => {
        const { db, close } = openDrizzle('mariadb', { options: { url: server.url } as DataSourceOptions });
        return [new DrizzleVisitStore(db), close];
      },
    };
    test.each(Object.entries(others))('B15: so is a group of %s', async (_name, openOther) => {
      const [own, close] = await openOther();
      onTestFinished(close);
      await own.check();
      const visits = Array.from({ length: 12 }, (_, index) => newVisit({ sessionData: dataOf(30_000 * (index + 1)) }));
      // The store itself: no others halve what it sends.
      await own.create(visits);
      const found = await store.find(visits.map(({ id }) => id));
      expect(found.map((visit) => visit?.sessionData?.length)).toEqual(
        visits.map(({ sessionData }) => sessionData?.length),
      );

      const tooLarge = { code: 'SESSION_TOO_LARGE' };
      await expect(own.create([newVisit({ sessionData: dataOf(PACKET) })])).rejects.toMatchObject(tooLarge);
      const saves = [dataOf(PACKET), dataOf(400_000)].map((data, index) => saveOf(visits[index]!, { data }));
      expect(await own.save(saves)).toMatchObject([{ outcome: 'failed', error: tooLarge }, { outcome: 'saved' }]);
    });
  },
);
