import { VisitStoreUnavailableError, type Rekey } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import type { DataSource, DataSourceOptions, QueryRunner } from 'typeorm';
import { Logger } from '@nestjs/common';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { openAccess } from '../support/open-access.js';
import { bytes, DAY, newVisit, NOW, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { describeDatabases } from '../support/databases.js';
import { untilOneWaits } from '../support/lock-waits.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { endAllOf, listAll } from '../../lib/testing/many.js';

Logger.overrideLogger(false);

/** Short, because it is waited for. */
const SHORT = 300;

const POOL = 4;

describeDatabases(
  'Connections',
  (db) => {
    const isMariaDb = db.name === 'mariadb';
    let options: DataSourceOptions & { url?: string };
    /** Past the proxy. */
    let direct: DataSource;
    let proxy: Proxy;
    beforeAll(async () => {
      options = (await db.open()).options;
      direct = await openMigrated(options);
      proxy = await startProxy(options.url!);
    });
    afterAll(async () => {
      await direct?.destroy();
      await proxy?.close();
    });

    /** A store of its own, whose connections go through the proxy. */
    async function open({ poolSize = POOL, deadline = PATIENCE } = {}): Promise<{
      store: TypeOrmVisitStore;
      dataSource: DataSource;
    }> {
      const dataSource = await openMigrated({ ...options, url: proxy.url, poolSize } as DataSourceOptions);
      // Connections that lead nowhere never end.
      onTestFinished(() => void dataSource.destroy().catch(() => {}));
      const store = new TypeOrmVisitStore(dataSource);
      onTestFinished(() => store.close());
      store.setDeadline(deadline);
      return { store, dataSource };
    }

    /** All connections of the pool at once, as an application has them in use; each does the work. */
    async function withAll(
      dataSource: DataSource,
      work: (queryRunner: QueryRunner) => Promise<unknown>,
    ): Promise<void> {
      const queryRunners = Array.from({ length: POOL }, () => dataSource.createQueryRunner());
      await Promise.all(queryRunners.map((one) => one.connect()));
      await Promise.all(queryRunners.map(work));
      await Promise.all(queryRunners.map((one) => one.release()));
    }

    /** Holds the row of a visit, until the test is over or the function is called. */
    async function holding(id: string): Promise<() => Promise<void>> {
      const other = direct.createQueryRunner();
      await other.startTransaction();
      await other.query(`UPDATE visit SET accessed = accessed WHERE id = '${id}'`);
      let ended: Promise<void> | undefined;
      const end = (): Promise<void> => (ended ??= other.rollbackTransaction().then(() => other.release()));
      onTestFinished(end);
      return end;
    }

    /** How many statements wait for the lock of a table. */
    async function waitingForTables(): Promise<number> {
      const sql = isMariaDb
        ? `SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST
           WHERE DB = DATABASE() AND STATE = 'Waiting for table metadata lock'`
        : "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
      return Number((await direct.query<{ n: string }[]>(sql))[0]!.n);
    }

    const identity = { userId: 'a', created: NOW, authenticatedAt: NOW };

    test('B44: after all were lost in silence, the first calls detect it, and the next ones are served', async () => {
      const { store, dataSource } = await open();
      const visits = Array.from({ length: 5 }, () => newVisit({ identity }));
      await store.create(visits);
      const ids = visits.map(({ id }) => id);
      await withAll(dataSource, (queryRunner) => queryRunner.query('SELECT 1'));
      expect(proxy.open).toBe(POOL);

      proxy.goSilent();
      store.setDeadline(SHORT);
      const [visit] = visits as [(typeof visits)[0]];
      const calls: (() => Promise<unknown>)[] = [
        () => store.find(ids),
        () => store.create([newVisit()]),
        async () => expect(await store.save([saveOf(visit)])).not.toMatchObject([{ outcome: 'failed' }]),
        () => store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]),
        () => store.rekey([rekeyOf(visit)]),
        () => store.end([visit.id], { reason: 'x', at: NOW }),
        () => listAll(store, 'a', NOW),
      ];
      // Those that have a connection, those that wait for one, and attempts to open others.
      for (const result of await Promise.allSettled(calls.map((call) => call())))
        expect(result.status).toBe('rejected');

      proxy.comeBack();
      // Attempts to connect that began in the silence lead nowhere, either: they end with the deadline that they began
      // with.
      const find = () => store.find(ids).then((found) => found.map((one) => one?.id), String);
      await expect.poll(find).toEqual(ids);
      store.setDeadline(PATIENCE);
      // None of those that were in the pool is used any more.
      await Promise.all(Array.from({ length: POOL * 3 }, () => store.find(ids)));
      expect(await store.rekey([rekeyOf(visit)])).toEqual([{ outcome: 'done' }]);
    });

    test('B44: a hanging statement loses its connection when its caller no longer waits', async () => {
      const { store } = await open({ poolSize: 1, deadline: PATIENCE });
      const [held, other] = [newVisit(), newVisit()];
      await store.create([held, other]);
      await holding(held.id);
      store.setDeadline(SHORT);
      await expect(store.rekey([rekeyOf(held)])).rejects.toThrow('did not answer within');
      await expect(store.rekey([rekeyOf(held, { identity })])).rejects.toThrow('did not answer within');
      store.setDeadline(PATIENCE);
      // By the only connection there is.
      expect(await store.find([other.id])).toMatchObject([{ id: other.id }]);
    });

    test('a call that has waited in vain for a connection is not executed later', async () => {
      const { store, dataSource } = await open({ poolSize: 1 });
      const visit = newVisit();
      await store.create([visit]);
      const own = dataSource.createQueryRunner();
      await own.connect();
      store.setDeadline(SHORT);
      await expect(store.end([visit.id], { reason: 'x', at: NOW })).rejects.toThrow(
        'no connection of the pool became free within',
      );
      await own.release();
      store.setDeadline(PATIENCE);
      expect(await store.find([visit.id])).toMatchObject([{ endedAt: null }]);
    });

    test('clean-up may take longer than the deadline of calls', async () => {
      const { store } = await open({ deadline: PATIENCE });
      const stale = newVisit({ expiry: NOW - 100 * DAY });
      await store.create([stale]);
      const end = await holding(stale.id);
      store.setDeadline(SHORT);
      const expunged = store.expunge({ before: NOW - 99 * DAY, limit: 10 });
      await expect(store.end([stale.id], { reason: 'x', at: NOW })).rejects.toThrow('did not answer within');
      await end();
      expect((await expunged).visits).toBe(1);
    });

    test('B45: connections to a server that has become read-only are replaced, and nothing fails', async () => {
      const { store, dataSource } = await open();
      const [visit, other, third] = [newVisit(), newVisit(), newVisit()];
      await store.create([visit, other, third]);
      const access = openAccess(store, PATIENCE);
      await withAll(dataSource, (queryRunner) =>
        queryRunner.query(isMariaDb ? 'SET SESSION TRANSACTION READ ONLY' : 'SET default_transaction_read_only = on'),
      );
      const rekey = rekeyOf(visit, { identity });
      expect(
        await Promise.all([access.save(saveOf(other)), store.rekey([rekey]), store.create([newVisit()])]),
      ).toMatchObject([{ outcome: 'saved' }, [{ outcome: 'done' }], undefined]);
      // None is left of them.
      await withAll(dataSource, (queryRunner) =>
        queryRunner.query(`UPDATE visit SET accessed = accessed WHERE id = '${other.id}'`),
      );
      expect(await store.end([third.id], { reason: 'x', at: NOW })).toEqual([third.id]);
    });

    test('connections are kept while every server is read-only', async () => {
      const { store, dataSource } = await open({ poolSize: 1 });
      const visit = newVisit();
      await store.create([visit]);
      const opened: unknown[] = [];
      const { pool, master } = dataSource.driver as unknown as Record<'pool' | 'master', Proxy & NodeJS.EventEmitter>;
      const setReadOnly = isMariaDb ? 'SET SESSION TRANSACTION READ ONLY' : 'SET default_transaction_read_only = on';
      (pool ?? master).on(
        isMariaDb ? 'connection' : 'connect',
        (connection: { query(sql: string, done?: () => void): unknown }) => {
          opened.push(connection);
          connection.query(setReadOnly, () => {});
        },
      );
      await dataSource.query(setReadOnly);
      for (let times = 0; times < 10; times++)
        await expect(store.rekey([rekeyOf(visit)])).rejects.toThrow(/read.?only/i);
      expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
      // It takes a second or more until they are tried anew.
      expect(opened.length).toBeLessThan(10);
    });

    test.each<[string, (store: TypeOrmVisitStore, id: string) => Promise<unknown>]>([
      ['a touch', (store, id) => store.touch([{ id, accessed: NOW, expiry: NOW + DAY }])],
      ['the release of a lock', (store, id) => store.unlock(id, 'x')],
      ['a group of look-ups', (store, id) => store.find([newVisit().id, id])],
      ['one look-up', (store, id) => store.find([id])],
      ['a list', (store) => listAll(store, 'reader', NOW)],
      ['a revocation', (store) => store.revokedAt('reader')],
    ])('B83: %s is retried if its connection closes while it is used', async (_, read) => {
      const { store } = await open();
      const visit = newVisit({ identity: { ...identity, userId: 'reader' } });
      await store.create([visit]);
      const expected = await read(store, visit.id);
      for (const moment of ['asked', 'answered'] as const) {
        const cut = proxy.cut(moment);
        expect(await read(store, visit.id)).toEqual(expected);
        await cut;
      }
    });

    test('B83: the other connections of the pool are then checked, too', async () => {
      const { store, dataSource } = await open();
      const visit = newVisit();
      await store.create([visit]);
      await withAll(dataSource, (queryRunner) => queryRunner.query('SELECT 1'));
      const cut = proxy.cut('asked', () => {
        // They end, and the application does not hear of it.
        proxy.goSilent();
        proxy.comeBack();
        return true;
      });
      expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
      await cut;
      expect(await store.save([saveOf(visit, { data: bytes('x') })])).toEqual([{ outcome: 'saved', version: 1 }]);
    });

    test('B84: while the lock of a backup blocks writes, reads are served; then all writes are done', async () => {
      const { store } = await open();
      const access = openAccess(store, PATIENCE);
      const visits = Array.from({ length: POOL * 3 }, () => newVisit({ identity: { ...identity, userId: 'b' } }));
      await store.create(visits);
      const backup = direct.createQueryRunner();
      await backup.connect();
      if (isMariaDb) await backup.query('LOCK TABLES visit READ, visit_identity READ, visit_revocation READ');
      else {
        await backup.startTransaction();
        await backup.query('LOCK TABLE visit IN SHARE MODE');
      }
      const [first] = visits as [(typeof visits)[0]];
      const writes = [
        ...visits.map((visit) => access.rekey(rekeyOf(visit, { identity: null }))),
        access.create(newVisit()),
        access.create(newVisit({ identity })),
        access.save(saveOf(first, { data: bytes('x') })),
        access.call((one) =>
          one.locks!.lock({ id: first.id, keyHash: first.keyHash, now: NOW, owner: 'x', until: NOW + DAY }),
        ),
      ];
      for (const { id } of visits) expect(await access.find(id)).toMatchObject({ id, keyHash: expect.any(String) });
      expect(await access.read((one) => listAll(one, 'b', NOW))).toHaveLength(visits.length);
      await (isMariaDb ? backup.query('UNLOCK TABLES') : backup.commitTransaction());
      await backup.release();
      const results = await Promise.all(writes);
      expect(results.slice(0, visits.length)).toEqual(visits.map(() => ({ outcome: 'done' })));
    });

    test('B84: while everything waits behind an ALTER TABLE, other tables are read, and then everything is done', async () => {
      const { store } = await open();
      const access = openAccess(store, PATIENCE);
      const visits = Array.from({ length: POOL * 3 }, () => newVisit());
      await store.create(visits);
      const [reader, operator] = [direct.createQueryRunner(), direct.createQueryRunner()];
      await reader.startTransaction();
      await reader.query('SELECT 1 FROM visit');
      // It waits for the reader, and all that comes later waits for it.
      const altered = operator.query('ALTER TABLE visit ADD COLUMN extra INT NULL');
      await expect.poll(waitingForTables).toBe(1);
      const writes = visits.map((visit) => access.rekey(rekeyOf(visit)));
      await expect.poll(waitingForTables).toBeGreaterThan(1);
      const finds = visits.map(({ id }) => access.find(id));
      expect(await access.read((one) => one.users!.revokedAt('nobody'))).toBeNull();
      expect(await waitingForTables()).toBeLessThanOrEqual(POOL);
      await reader.commitTransaction();
      await altered;
      expect(await Promise.all(writes)).toEqual(visits.map(() => ({ outcome: 'done' })));
      expect(await Promise.all(finds)).toMatchObject(visits.map(({ id }) => ({ id })));
      await operator.query('ALTER TABLE visit DROP COLUMN extra');
      await Promise.all([reader.release(), operator.release()]);
    });

    test('B82: a pool that was opened for visits can be closed while its database hangs', async () => {
      const all = { ...options, url: proxy.url, poolSize: 2 } as DataSourceOptions;
      const store = await openTypeOrmVisitStore(all);
      store.setDeadline(PATIENCE);
      const visit = newVisit();
      await store.create([visit]);
      // What is asked, what waits for a connection that is being opened, what waits for its turn.
      store.setDeadline(SHORT);
      onTestFinished(() => proxy.comeBack());
      proxy.goSilent();
      const asked = Promise.allSettled(Array.from({ length: 4 }, () => store.find([visit.id])));
      await store.close();
      for (const { status } of await asked) expect(status).toBe('rejected');
    });

    // TypeORM ends the connections of `pg` at once.
    test.runIf(isMariaDb)(
      'B82: a pool that is closed while a statement waits for a lock gives its answer',
      async () => {
        const { store, dataSource } = await open();
        const visit = newVisit();
        await store.create([visit]);
        const release = await holding(visit.id);
        const ended = store.end([visit.id], { reason: 'x', at: NOW });
        await untilOneWaits(direct);
        const closed = dataSource.destroy();
        await release();
        expect(await ended).toEqual([visit.id]);
        await closed;
      },
    );

    // A sign-in is a transaction: whether it was done is decided by its end.
    const isCommit = (text: string): boolean => text.includes('COMMIT');
    const isUpdate = (text: string): boolean => text.includes('UPDATE');
    const changes: [string, (text: string) => boolean, Partial<Rekey>][] = [
      ['a renewal', isUpdate, { previousKeyUntil: NOW + DAY }],
      ['a sign-in', isCommit, { identity }],
      ['a sign-out that keeps the visit', isCommit, { identity: null }],
    ];

    test.each(changes)(
      'B81: %s is executed and acknowledged once, whenever its connection breaks',
      async (_, which, change) => {
        const { store } = await open();
        const access = openAccess(store, PATIENCE);
        for (const moment of ['asked', 'answered'] as const) {
          const visit = newVisit({ identity: { ...identity, userId: 'before' } });
          await store.create([visit]);
          const rekey = rekeyOf(visit, change);
          const cut = proxy.cut(moment, which);
          expect(await access.rekey(rekey)).toEqual({ outcome: 'done' });
          await cut;
          const [stored] = await store.find([visit.id]);
          expect(stored).toMatchObject({ keyHash: rekey.newKeyHash, previousKeyHash: visit.keyHash });
          expect(stored!.identity?.userId ?? null).toBe(
            'identity' in change ? (change.identity?.userId ?? null) : 'before',
          );
        }
      },
    );

    test('B81: an end is executed and reported once, whenever its connection breaks', async () => {
      const { store } = await open();
      const access = openAccess(store, PATIENCE);
      const ending = { reason: 'x', at: NOW };
      for (const moment of ['asked', 'answered'] as const) {
        const visits = [newVisit(), newVisit(), newVisit()];
        const ids = visits.map(({ id }) => id);
        await store.create(visits);
        await store.end([ids[2]!], { reason: 'other', at: NOW });
        const cut = proxy.cut(moment, isUpdate);
        expect(await access.end(ids, ending)).toEqual(ids.slice(0, 2));
        await cut;
        expect((await store.find(ids)).map((visit) => visit!.endReason)).toEqual(['x', 'x', 'other']);
      }
    });

    test.each([
      ['the one that is remembered', 'INSERT'],
      ['one of a visit', 'SET'],
    ])('B81: the ends of all visits of a user are reported if an answer is lost, that to %s', async (_, word) => {
      const { store } = await open();
      const visits = [1, 2, 3].map(() => newVisit({ identity: { ...identity, userId: word } }));
      await store.create(visits);
      const cut = proxy.cut('answered', (text) => text.includes(`${word} `));
      const ended = await endAllOf(store, word, { reason: 'x', at: NOW });
      await cut;
      expect(ended.toSorted()).toEqual(visits.map(({ id }) => id).toSorted());
    });

    test.each(['asked', 'answered'] as const)(
      'B81: a new visit is stored once, and a save is executed once or refused (%s)',
      async (moment) => {
        const { store } = await open();
        const access = openAccess(store, PATIENCE);
        const visit = newVisit();
        const inserted = proxy.cut(moment, (text) => text.includes('INSERT'));
        await access.create(visit);
        await inserted;
        // MySQL prepares it with the first one.
        await access.save(saveOf(visit, { data: bytes('w') }));
        const saved = proxy.cut(moment);
        const outcome = await access
          .save(saveOf(visit, { version: 1, data: bytes('x') }))
          .catch((error: unknown) => error);
        await saved;
        // Another process may have written the same bytes: what was done cannot be told from that.
        if (moment === 'asked') expect(outcome).toEqual({ outcome: 'saved', version: 2 });
        else expect(outcome).toBeInstanceOf(VisitStoreUnavailableError);
        expect(await store.find([visit.id])).toMatchObject([{ sessionVersion: 2 }]);
      },
    );

    test('B81: an unknown outcome does not count as success', async () => {
      const { store } = await open();
      const access = openAccess(store, SHORT);
      const visit = newVisit();
      await store.create([visit]);
      store.setDeadline(SHORT);
      const cut = proxy.cut('asked', () => {
        proxy.goSilent();
        return true;
      });
      const rekeyed = access.rekey(rekeyOf(visit));
      await expect(rekeyed).rejects.toThrow(VisitStoreUnavailableError);
      await cut;
      proxy.comeBack();
      store.setDeadline(PATIENCE);
      expect(await store.find([visit.id])).toMatchObject([{ keyHash: visit.keyHash }]);
    });

    // What takes prepared statements away, without a word to the driver.
    const losses: [string, (dataSource: DataSource) => Promise<unknown>][] = isMariaDb
      ? [
          [
            'the server has dropped them',
            async (dataSource) => {
              const queryRunner = dataSource.createQueryRunner();
              const { _statements } = (await queryRunner.connect()) as { _statements: Map<string, { close(): void }> };
              for (const statement of _statements.values()) statement.close();
              await queryRunner.release();
            },
          ],
        ]
      : [
          ['DEALLOCATE ALL', (dataSource) => dataSource.query('DEALLOCATE ALL')],
          ['DISCARD ALL', (dataSource) => dataSource.query('DISCARD ALL')],
          [
            'a column of another type',
            () => direct.query('ALTER TABLE visit ALTER COLUMN user_agent TYPE varchar(254)'),
          ],
        ];

    /** How many prepared statements the only connection has executed. */
    async function executed(dataSource: DataSource): Promise<number> {
      const sql = isMariaDb
        ? "SHOW SESSION STATUS LIKE 'Com_stmt_execute'"
        : 'SELECT SUM(generic_plans + custom_plans) AS n FROM pg_prepared_statements ' +
          "WHERE name LIKE 'nest-visit-find-%'";
      const [row] = await dataSource.query<Record<string, string>[]>(sql);
      return Number(row!['Value'] ?? row!['n']);
    }

    test.each(losses)('B80: look-ups are answered, and prepared again, after %s', async (_, lose) => {
      const { store, dataSource } = await open({ poolSize: 1 });
      const visit = newVisit();
      await store.create([visit]);
      const use = async (): Promise<unknown> => expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
      await use();
      await lose(dataSource);
      await use();
      const before = await executed(dataSource);
      await use();
      await use();
      expect(await executed(dataSource)).toBe(before + 2);
    });

    test('B80: if they are lost repeatedly, as behind a pooler, plain statements are used for a while', async () => {
      const { store, dataSource } = await open({ poolSize: 1 });
      const failures = vi.spyOn(dataSource.logger, 'logQueryError');
      const visit = newVisit();
      await store.create([visit]);
      for (let times = 0; times < 20; times++) {
        expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
        await losses[0]![1](dataSource);
      }
      // Twice at once, and then after a second, two, four …
      expect(failures.mock.calls.length).toBeGreaterThanOrEqual(2);
      expect(failures.mock.calls.length).toBeLessThan(10);
    });
  },
  ['mariadb', 'postgres'],
);
