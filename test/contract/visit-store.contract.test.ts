import { randomBytes } from 'node:crypto';
import { DataSource } from 'typeorm';
import { describe, expect, test } from 'vitest';
import { MemoryVisitStore } from '../../lib/store/memory/memory-visit.store.js';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import type { NewVisitRecord } from '../../lib/store/visit.store.js';
import { describeDatabases } from '../support/databases.js';
import { describeVisitStoreContract } from './visit-store.contract.js';

describeVisitStoreContract('memory', async () => {
  const store = new MemoryVisitStore();
  return { store, second: store, close: () => store.close() };
});

describeDatabases('R65: TypeORM', (db) => {
  describeVisitStoreContract(db.name, async () => {
    const { options } = await db.open();
    const store = await openTypeOrmVisitStore({ ...options, migrationsRun: true });
    // As another process would be that was configured otherwise.
    const second = await openTypeOrmVisitStore({ ...options, ...(db.name === 'mariadb' ? { timezone: '-09:30' } : {}) });
    if (db.name === 'postgres')
      await second.dataSource.query(
        `ALTER ROLE CURRENT_USER IN DATABASE "${nameOf(second.dataSource)}" SET timezone = 'Pacific/Marquesas'`,
      );
    return {
      store,
      second,
      close: async () => {
        await store.close();
        await second.close();
      },
    };
  });
});

describe('MemoryVisitStore', () => {
  test('R66: holds at most maxVisits: the ended go first, then those that expire first', async () => {
    const store = new MemoryVisitStore({ maxVisits: 4 });
    const visits = [50, 20, 40, 30].map(visitWithExpiry);
    await store.create(visits);
    await store.end([visits[0]!.id], { reason: 'logout', at: 1 });
    await store.create([visitWithExpiry(60)]);
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit?.expiry)).toEqual([undefined, 20, 40, 30]);
    await store.create([visitWithExpiry(70)]);
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit?.expiry)).toEqual([undefined, undefined, 40, 30]);
  });

  test('R66: the expired go with the ended, then those that were used least recently, whenever they expire', async () => {
    const store = new MemoryVisitStore({ maxVisits: 4 });
    const [old, touched, expired, ended] = [
      visitOf({ accessed: 1, expiry: 900 }),
      visitOf({ accessed: 0, expiry: 200 }),
      visitOf({ accessed: 40, expiry: 50 }),
      visitOf({ accessed: 45, expiry: 800 }),
    ] as const;
    const all = [old, touched, expired, ended];
    const left = async () => (await store.find(all.map(({ id }) => id))).map((visit) => visit !== null);
    await store.create(all);
    await store.touch([{ id: touched.id, accessed: 30, expiry: 230 }]);
    await store.end([ended.id], { reason: 'logout', at: 46 });
    await store.create([visitOf({ created: 49, accessed: 49 }), visitOf({ created: 50, accessed: 50 })]);
    expect(await left()).toEqual([true, true, false, false]);
    await store.create([visitOf({ created: 51, accessed: 51 })]);
    expect(await left()).toEqual([false, true, false, false]);
    await store.create([visitOf({ created: 52, accessed: 52 })]);
    expect(await left()).toEqual([false, false, false, false]);
  });

  test('R66: a visit that made room takes its lock and its place with it', async () => {
    const store = new MemoryVisitStore({ maxVisits: 1 });
    const visit = visitOf({ accessed: 1 });
    const lock = { id: visit.id, keyHash: visit.keyHash, now: 1, until: 90 };
    await store.create([visit]);
    expect(await store.lock({ ...lock, owner: 'one' })).toEqual({ outcome: 'locked' });
    await store.create([visitOf({ accessed: 2 })]);
    expect(await store.lock({ ...lock, owner: 'two' })).toEqual({ outcome: 'refused', reason: 'unknown' });
    await store.create([{ ...visit, accessed: 3 }]);
    expect(await store.lock({ ...lock, owner: 'two' })).toEqual({ outcome: 'locked' });
  });

  test.each([0, -1, Number.NaN])('R66: maxVisits cannot be %d', (maxVisits) => {
    expect(() => new MemoryVisitStore({ maxVisits })).toThrow('option "maxVisits" must be a number of at least 1');
  });
});

function visitOf(given: Partial<NewVisitRecord>): NewVisitRecord {
  return { ...visitWithExpiry(100), ...given };
}

function visitWithExpiry(expiry: number): NewVisitRecord {
  return {
    id: randomBytes(16).toString('hex'),
    keyHash: randomBytes(32).toString('hex'),
    created: 0,
    accessed: 0,
    expiry,
    absoluteExpiry: null,
    permanent: false,
    remoteAddress: null,
    userAgent: null,
    sessionData: null,
    identity: null,
  };
}

function nameOf(dataSource: DataSource): string {
  return new URL((dataSource.options as { url: string }).url).pathname.slice(1);
}
