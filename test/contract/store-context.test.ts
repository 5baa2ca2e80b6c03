import { AsyncLocalStorage } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { MemoryVisitStore, type VisitStore } from 'nest-visit';
import { TypeOrmVisitStore, visitEntities } from 'nest-visit/typeorm';
import { DataSource } from 'typeorm';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import type { StoreAccess } from '../../lib/store/store-access.js';
import { openAccess } from '../support/open-access.js';
import { newVisit, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { TouchQueue } from '../../lib/visit/touch.queue.js';
import { describeDatabases } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { listAll } from '../../lib/testing/many.js';

// Work for many requests runs in the asynchronous context of none of them: neither in ours nor in the application's.

Logger.overrideLogger(false);

const request = new AsyncLocalStorage<string>();
afterAll(() => request.disable());

const HOUR = 3_600_000;

/** A store, and the requests in whose contexts it was called, and went on. */
function watchedStore(inner: VisitStore = new MemoryVisitStore()): { store: VisitStore; seen: (string | undefined)[] } {
  const seen: (string | undefined)[] = [];
  const note = (): void => void seen.push(request.getStore());
  const store = new Proxy(inner, {
    get: (target, name, proxy) => {
      const member = Reflect.get(target, name) as unknown;
      // Its facets are the store itself.
      if (member === target) return proxy as unknown;
      if (typeof member !== 'function') return member;
      return async (...args: unknown[]) => {
        note();
        await new Promise((resolve) => setTimeout(resolve, 1));
        note();
        return Reflect.apply(member, target, args) as unknown;
      };
    },
  });
  return { store, seen };
}

/** Each piece of work as a request of its own, all at once; each must go on in its own context. */
async function asRequests(works: readonly (() => Promise<unknown>)[]): Promise<void> {
  await Promise.all(
    works.map((work, index) =>
      request.run(`request ${index}`, async () => {
        await work().catch(() => undefined);
        expect(request.getStore()).toBe(`request ${index}`);
      }),
    ),
  );
}

describe('A store runs outside of requests', () => {
  const visits = Array.from({ length: 5 }, () => newVisit());

  test.each<[string, (store: StoreAccess) => (() => Promise<unknown>)[]]>([
    [
      'in groups of finds',
      (store) =>
        visits.map(
          ({ id }) =>
            () =>
              store.find(id),
        ),
    ],
    // More than go in one group, so that some wait for others.
    ['in groups that wait', (store) => Array.from({ length: 600 }, () => () => store.find(newVisit().id))],
    ['in groups of creates', (store) => visits.map((visit) => () => store.create(visit))],
    ['when a group fails', (store) => [...visits, visits[0]!].map((visit) => () => store.create(visit))],
    ['in groups of saves', (store) => visits.map((visit) => () => store.save(saveOf(visit)))],
    ['in other calls', (store) => visits.map((visit) => () => store.call((one) => one.rekey([rekeyOf(visit)])))],
    [
      'in calls that follow each other',
      (store) =>
        visits.map(
          ({ id }) =>
            () =>
              store.call((one) => one.end([id], { reason: 'x', at: 1 })).then(() => store.find(id)),
        ),
    ],
  ])('%s', async (_, works) => {
    const { store, seen } = watchedStore();
    await asRequests(works(openAccess(store, 10_000)));
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.filter((one) => one !== undefined)).toEqual([]);
  });

  test.each<[string, (queue: TouchQueue, seen: readonly unknown[]) => Promise<unknown>]>([
    ['after the interval', async (_queue, seen) => await expect.poll(() => seen).toHaveLength(2)],
    ['at once', (queue) => asRequests([() => queue.flush()])],
    ['at the end', (queue) => asRequests([() => queue.close()])],
  ])('when expiries are written %s', async (when, write) => {
    const { store, seen } = watchedStore();
    const queue = new TouchQueue(store, when === 'after the interval' ? 5 : HOUR, 10_000);
    await asRequests(
      visits.map(
        ({ id }) =>
          async () =>
            queue.add({ id, accessed: 1, expiry: 2 }),
      ),
    );
    await write(queue, seen);
    await queue.flush();
    expect(seen).toEqual([undefined, undefined]);
  });

  test('but in the context in which the application was created', async () => {
    const { store, seen } = watchedStore();
    const access = request.run('the application', () => openAccess(store, 10_000));
    await asRequests(
      visits.map(
        ({ id }) =>
          () =>
            access.find(id),
      ),
    );
    expect(seen).toEqual(['the application', 'the application']);
  });
});

/** What pools of `mysql2` and of `pg` have in common. */
interface Pool {
  query(sql: string, done: (error: Error | null) => void): unknown;
}

describeDatabases(
  'Connections',
  (db) => {
    test.each<[string, (store: StoreAccess) => Promise<unknown>]>([
      ['a look-up', (store) => store.find(newVisit().id)],
      ['a new visit', (store) => store.create(newVisit())],
      ['another call', (store) => store.call((one) => listAll(one, 'x', 0))],
    ])('that %s opens belong to no request: callbacks of the application run in no other request', async (_, open) => {
      const { options } = await db.open();
      await (await openMigrated(options)).destroy();
      const extra = db.name === 'mariadb' ? { connectionLimit: 2 } : { max: 2 };
      const dataSource = await new DataSource({ ...options, entities: visitEntities, extra }).initialize();
      onTestFinished(() => dataSource.destroy());
      // One connection is open since the start; it is kept busy.
      const runner = dataSource.createQueryRunner();
      await runner.connect();
      onTestFinished(() => runner.release());

      const store = openAccess(new TypeOrmVisitStore(dataSource), 10_000);
      await request.run('the first', () => open(store));

      const { pool, master } = dataSource.driver as unknown as { pool?: Pool; master?: Pool };
      const seen = await request.run(
        'the second',
        () =>
          new Promise((resolve, reject) => {
            (pool ?? master)!.query('SELECT 1', (error) => (error ? reject(error) : resolve(request.getStore())));
          }),
      );
      expect(seen).not.toBe('the first');
    });
  },
  ['mariadb', 'postgres'],
);
