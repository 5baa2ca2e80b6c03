import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres';
import { Kysely, MysqlDialect, PostgresDialect, SqliteDialect } from 'kysely';
import { createPool, type Pool as Mysql2Pool, type PoolConnection } from 'mysql2';
import { createPool as createPromisePool } from 'mysql2/promise';
import type { VisitStore } from 'nest-visit';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { KyselyVisitStore } from 'nest-visit/kysely';
import { Pool, type PoolClient } from 'pg';
import type { DataSource } from 'typeorm';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { listAll } from '../../lib/testing/many.js';
import { bytes, DAY, newVisit, NOW, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { describeDatabases } from '../support/databases.js';
import { openAccess } from '../support/open-access.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// Pools of drivers, which the application has made, and which a library of SQL and the store share. What is said of the
// connections of TypeORM in `connections.test.ts` holds for them, too.

/** Short, because it is waited for. */
const SHORT = 300;
const POOL = 3;

type Store = VisitStore & { setDeadline(milliseconds: number): void };

interface Opened {
  readonly store: Store;
  /** Sends this by every connection of the pool. */
  readonly onAll: (sql: string) => Promise<Record<string, unknown>[]>;
  readonly statements: string[];
}

describeDatabases(
  "Connections of the application's own pool",
  ({ name, open: openDatabase }) => {
    const isMariaDb = name === 'mariadb';
    const setReadOnly = isMariaDb ? 'SET SESSION TRANSACTION READ ONLY' : 'SET default_transaction_read_only = on';
    let url: string;
    let direct: DataSource;
    let proxy: Proxy;
    beforeAll(async () => {
      const { options } = await openDatabase();
      direct = await openMigrated(options);
      ({ url } = options as { url: string });
      proxy = await startProxy(url);
    });
    afterAll(async () => {
      await direct?.destroy();
      await proxy?.close();
    });

    describe.each(['Kysely', 'Drizzle'] as const)('by %s', (by) => {
      /** A store of its own, whose connections go through the proxy. */
      const open = ({ size = POOL, more = {} }: { size?: number; more?: object } = {}): Opened => {
        const statements: string[] = [];
        const logger = { logQuery: (sql: string) => void statements.push(sql) };
        let store: Store;
        let onOne: (sql: string) => Promise<[Record<string, unknown>[], () => void]>;
        if (isMariaDb) {
          const pool: Mysql2Pool = createPool({ uri: proxy.url, connectionLimit: size, ...more });
          onTestFinished(() => pool.end(() => {}));
          const db = new Kysely<object>({ dialect: new MysqlDialect({ pool }) });
          store =
            by === 'Kysely'
              ? new KyselyVisitStore({ db, pool })
              : new DrizzleVisitStore(drizzleMysql(pool, { logger }));
          onOne = async (sql) => {
            const connection = await new Promise<PoolConnection>((resolve, reject) => {
              pool.getConnection((error, one) => (error ? reject(error) : resolve(one)));
            });
            const [rows] = await connection.promise().query({ sql, rowsAsArray: false });
            return [rows as Record<string, unknown>[], () => connection.release()];
          };
        } else {
          const pool = new Pool({ connectionString: proxy.url, max: size, ...more });
          pool.on('error', () => {});
          onTestFinished(() => void pool.end().catch(() => {}));
          const db = new Kysely<object>({ dialect: new PostgresDialect({ pool }) });
          store =
            by === 'Kysely' ? new KyselyVisitStore({ db, pool }) : new DrizzleVisitStore(drizzlePg(pool, { logger }));
          onOne = async (sql) => {
            const client: PoolClient = await pool.connect();
            return [(await client.query<Record<string, unknown>>(sql)).rows, () => client.release()];
          };
        }
        store.setDeadline(PATIENCE);
        const onAll = async (sql: string): Promise<Record<string, unknown>[]> => {
          const all = await Promise.all(Array.from({ length: size }, () => onOne(sql)));
          for (const [, release] of all) release();
          return all.flatMap(([rows]) => rows);
        };
        return { store, onAll, statements };
      };

      test('B44: after all were lost in silence, the first calls detect it, and the next ones are served', async () => {
        const { store, onAll } = open();
        const visits = Array.from({ length: 3 }, () => newVisit());
        await store.create(visits);
        const ids = visits.map(({ id }) => id);
        await onAll('SELECT 1');
        proxy.goSilent();
        store.setDeadline(SHORT);
        const [visit] = visits as [(typeof visits)[0]];
        const calls = [
          store.find(ids),
          store.create([newVisit()]),
          store.touch([{ id: visit.id, accessed: NOW, expiry: NOW + DAY }]),
          store.rekey([rekeyOf(visit)]),
          listAll(store, 'a', NOW),
        ];
        for (const { status } of await Promise.allSettled(calls)) expect(status).toBe('rejected');
        proxy.comeBack();
        const find = () => store.find(ids).then((found) => found.map((one) => one?.id), String);
        await expect.poll(find).toEqual(ids);
        store.setDeadline(PATIENCE);
        await Promise.all(Array.from({ length: POOL * 3 }, () => store.find(ids)));
        expect(await store.rekey([rekeyOf(visit)])).toEqual([{ outcome: 'done' }]);
      });

      test('B44: a hanging statement, alone or in a transaction, loses its connection', async () => {
        const { store } = open({ size: 1 });
        const [held, other] = [newVisit(), newVisit()];
        await store.create([held, other]);
        const holder = direct.createQueryRunner();
        await holder.startTransaction();
        onTestFinished(() => holder.rollbackTransaction().then(() => holder.release()));
        await holder.query(`UPDATE visit SET accessed = accessed WHERE id = '${held.id}'`);
        store.setDeadline(SHORT);
        const identity = { userId: 'a', created: NOW, authenticatedAt: NOW };
        await expect(store.rekey([rekeyOf(held)])).rejects.toThrow('did not answer within');
        await expect(store.rekey([rekeyOf(held, { identity })])).rejects.toThrow('did not answer within');
        store.setDeadline(PATIENCE);
        // By the only connection there is.
        expect(await store.find([other.id])).toMatchObject([{ id: other.id }]);
      });

      test('B45: connections to a server that has become read-only are replaced, and nothing fails', async () => {
        const { store, onAll } = open();
        const [visit, other, third] = [newVisit(), newVisit(), newVisit()];
        await store.create([visit, other, third]);
        await onAll(setReadOnly);
        const access = openAccess(store, PATIENCE);
        const rekey = rekeyOf(visit, { identity: { userId: 'a', created: NOW, authenticatedAt: NOW } });
        expect(
          await Promise.all([access.save(saveOf(other)), store.rekey([rekey]), store.create([newVisit()])]),
        ).toMatchObject([{ outcome: 'saved' }, [{ outcome: 'done' }], undefined]);
        // None is left of them.
        await onAll(`UPDATE visit SET accessed = accessed WHERE id = '${third.id}'`);
      });

      test('B83: a look-up is retried if its connection closes while it is used', async () => {
        const { store } = open();
        const visit = newVisit();
        await store.create([visit]);
        for (const moment of ['asked', 'answered'] as const) {
          const cut = proxy.cut(moment);
          expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
          await cut;
        }
      });

      test('look-ups and saves are prepared, and prepared again if that is lost', async () => {
        const { store, onAll, statements } = open({ size: 1 });
        const visit = newVisit();
        await store.create([visit]);
        const prepared = async (): Promise<number> => {
          const [row] = await onAll(
            isMariaDb
              ? "SHOW SESSION STATUS LIKE 'Com_stmt_execute'"
              : 'SELECT SUM(generic_plans + custom_plans) AS n FROM pg_prepared_statements',
          );
          return Number(row!['Value'] ?? row!['n']);
        };
        const use = async (version: number): Promise<void> => {
          expect(await store.find([visit.id])).toMatchObject([{ id: visit.id, sessionVersion: version }]);
          expect(await store.save([saveOf(visit, { version, data: bytes('x') })])).toMatchObject([
            { outcome: 'saved' },
          ]);
        };
        await use(0);
        const before = await prepared();
        await use(1);
        expect(await prepared()).toBe(before + 2);
        if (!isMariaDb) await onAll('DEALLOCATE ALL');
        await use(2);
        await use(3);
        expect(await prepared()).toBeGreaterThan(isMariaDb ? before + 4 : 1);
        // What the application has set up for its statements is told of ours.
        if (by === 'Drizzle') expect(statements.filter((sql) => sql.startsWith('SELECT')).length).toBeGreaterThan(3);
      });

      test('errors contain no values, of prepared or plain statements or transactions', async () => {
        const { store } = open();
        const visit = newVisit({
          sessionData: bytes('secret'),
          identity: { userId: 'zoe', created: NOW, authenticatedAt: NOW },
        });
        const taken = newVisit();
        await store.create([taken]);
        const broken = { ...visit, id: taken.id };
        const tooLong = { ...saveOf(taken), keyHash: visit.keyHash, now: 1e30 };
        for (const work of [
          () => store.create([broken]),
          () => store.create([{ ...broken, identity: null }]),
          () => store.save([tooLong]),
        ]) {
          const said: unknown = await work().catch((error: unknown) => error);
          const shown = inspect(said, { depth: 9, showHidden: true });
          expect(shown).not.toContain(visit.keyHash);
          expect(shown).not.toContain(Buffer.from('secret').toString('hex'));
        }
      });

      test.runIf(isMariaDb)('rows have the needed types, whatever the options of the pool', async () => {
        const { store } = open({
          more: { rowsAsArray: true, namedPlaceholders: true, supportBigNumbers: true, bigNumberStrings: true },
        });
        const visit = newVisit({ permanent: true });
        await store.create([visit]);
        await store.server!.serverTime!();
        expect(await store.find([visit.id])).toMatchObject([visit]);
        expect(await store.pages!.liveVisits({ after: '', limit: 1, now: 0 })).toMatchObject({ visits: [{}] });
      });
    });

    test('a promise-based pool is accepted, and its size is known', async () => {
      if (isMariaDb) {
        const pool = createPromisePool({ uri: url, connectionLimit: 7 });
        onTestFinished(() => pool.end());
        const store = new DrizzleVisitStore(drizzleMysql(pool));
        expect(store.connections).toBe(7);
        expect(await store.find([newVisit().id])).toEqual([null]);
      } else {
        const pool = new Pool({ connectionString: url, max: 7 });
        onTestFinished(() => pool.end());
        const db = new Kysely<object>({ dialect: new PostgresDialect({ pool }) });
        expect(new KyselyVisitStore({ db, pool }).connections).toBe(7);
        expect(new KyselyVisitStore({ db, pool, connections: 5 }).connections).toBe(5);
      }
    });

    test('anything that is not a pool of the driver is refused', async () => {
      const dialect = isMariaDb
        ? new MysqlDialect({ pool: createPool({ uri: url }) })
        : new PostgresDialect({ pool: new Pool({ connectionString: url }) });
      const kysely = new Kysely<object>({ dialect });
      onTestFinished(() => kysely.destroy());
      const lite = new Kysely<object>({ dialect: new SqliteDialect({ database: {} as never }) });
      const [own, other] = [createPool({ uri: url }), new Pool({ connectionString: url })];
      onTestFinished(() => own.end(() => {}));
      for (const [db, pool] of [
        [kysely, {}],
        [kysely, isMariaDb ? other : own],
        [lite, isMariaDb ? own : other],
      ] as const)
        expect(() => new KyselyVisitStore({ db, pool })).toThrow('option "pool" must be the pool of `pg` or `mysql2`');
    });
  },
  ['mariadb', 'postgres'],
);
