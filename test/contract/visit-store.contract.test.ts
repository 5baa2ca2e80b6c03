import { randomBytes } from 'node:crypto';
import { MemoryVisitStore, type VisitRecord, type VisitStore } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { describeDatabases, openDatabase } from '../support/databases.js';
import { complaintsOf, StatementLog } from '../support/mysql-grammar.js';
import { openMigrated } from '../support/open-migrated.js';
import { endAll, listAll } from '../../lib/testing/many.js';
import { created } from '../../lib/store/visit.record.js';

const NEVER = 8_640_000_000_000_000;
const runner = { describe, test };

describeVisitStore('memory', () => ({ store: new MemoryVisitStore() }), {
  runner,
  capabilities: { shared: false, durable: false },
});
describeOwnPromises('memory', async () => ({ store: new MemoryVisitStore() }));

describeDatabases('R65: TypeORM', (db) => {
  const log = new StatementLog();
  let fixture: VisitStoreFixture;
  beforeAll(async () => {
    const { options } = await db.open();
    const store = await openTypeOrmVisitStore({
      ...options,
      migrationsRun: true,
      ...(db.name === 'mariadb' && { logger: log }),
    });
    // As another process would be that was configured otherwise.
    const second = await openTypeOrmVisitStore({
      ...options,
      ...(db.name === 'mariadb' ? { timezone: '-09:30' } : {}),
    });
    if (db.name === 'postgres')
      await second.dataSource.query(
        `ALTER ROLE CURRENT_USER IN DATABASE "${nameOf(second.dataSource)}" SET timezone = 'Pacific/Marquesas'`,
      );
    fixture = { store, second, reopen: () => openTypeOrmVisitStore(options) };
  });
  afterAll(async () => {
    await fixture?.store.close();
    await fixture?.second?.close();
  });
  const emptied = async (): Promise<VisitStoreFixture> => {
    const { store } = fixture;
    await endAll(store, { reason: 'test', at: 0 });
    await expungeAll({ store }, { before: NEVER, limit: 10_000 });
    return fixture;
  };

  const all = { atomic: true, revocable: true, shared: true, durable: true };
  describeVisitStore(db.name, emptied, { runner, capabilities: all });
  describeOwnPromises(db.name, emptied);

  // The last test: MySQL itself is not there.
  if (db.name === 'mariadb') {
    test("all statements of the store conform to MySQL's grammar", () => {
      expect(
        [...log.statements].flatMap((sql) => complaintsOf(sql).map((complaint) => `${complaint}: ${sql}`)),
      ).toEqual([]);
    });
  }
});

/** What our stores promise, and the contract does not ask for. */
function describeOwnPromises(name: string, open: () => Promise<VisitStoreFixture>): void {
  describe(`Beside the contract: ${name}`, () => {
    let store: VisitStore;
    beforeEach(async () => {
      ({ store } = await open());
    });

    test('the error for an existing id says so', async () => {
      const visit = visitOf({});
      await store.create([visit]);
      await expect(store.create([visitOf({}), { ...visitOf({}), id: visit.id }])).rejects.toThrow(
        /exists|duplicate|unique/i,
      );
    });

    test('B22: instants are the same in any time zone, even in the repeated hour in autumn', async () => {
      const zone = process.env['TZ'];
      // Berlin, 25 October 2026: 02:30 comes twice.
      const [first, again] = [Date.UTC(2026, 9, 25, 0, 30), Date.UTC(2026, 9, 25, 1, 30)];
      try {
        process.env['TZ'] = 'Europe/Berlin';
        const identity = { userId: 'x', created: first, authenticatedAt: first };
        const visit = visitOf({ created: first, accessed: first, expiry: again, absoluteExpiry: again, identity });
        await store.create([visit]);
        process.env['TZ'] = 'Pacific/Kiritimati';
        expect((await store.find([visit.id]))[0]).toMatchObject({
          created: first,
          accessed: first,
          expiry: again,
          absoluteExpiry: again,
          identity: { created: first },
        });
        expect(await listAll(store, 'x', again - 1)).toHaveLength(1);
        expect(await listAll(store, 'x', again)).toHaveLength(0);
      } finally {
        if (zone === undefined) delete process.env['TZ'];
        else process.env['TZ'] = zone;
      }
    });
  });
}

describe('MemoryVisitStore', () => {
  test('R66: holds at most maxVisits: ended ones are evicted first, then those that expire first', async () => {
    const store = new MemoryVisitStore({ maxVisits: 4 });
    const visits = [50, 20, 40, 30].map(visitWithExpiry);
    await store.create(visits);
    await store.end([visits[0]!.id], { reason: 'logout', at: 1 });
    await store.create([visitWithExpiry(60)]);
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit?.expiry)).toEqual([
      undefined,
      20,
      40,
      30,
    ]);
    await store.create([visitWithExpiry(70)]);
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit?.expiry)).toEqual([
      undefined,
      undefined,
      40,
      30,
    ]);
  });

  test('R66: evicts expired and ended visits first, then those that were used least recently', async () => {
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

  test('R66: a visit that was evicted loses its lock and its place', async () => {
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

test('R47: endAll() completes although new visits begin continuously', async () => {
  const database = await openDatabase('sqlite');
  onTestFinished(() => database.drop());
  const source = await openMigrated(database.options);
  onTestFinished(() => source.destroy());
  class BusyStore extends TypeOrmVisitStore {
    begun = 0;

    protected override async endThese(...given: Parameters<TypeOrmVisitStore['endThese']>) {
      // Behind the place where the call is.
      if (this.begun < 10) await this.create([visitOf({ id: String(++this.begun).padStart(32, '0') })]);
      return super.endThese(...given);
    }
  }
  const store = new BusyStore(source);
  await store.create([visitOf({ id: 'f'.repeat(32) })]);
  expect(await endAll(store, { reason: 'revoked', at: 50 })).toHaveLength(1);
  expect(store.begun).toBe(1);
});

function visitOf(given: Partial<VisitRecord>): VisitRecord {
  return { ...visitWithExpiry(100), ...given };
}

function visitWithExpiry(expiry: number): VisitRecord {
  return created({
    id: randomBytes(16).toString('hex'),
    keyHash: randomBytes(32).toString('hex'),
    created: 0,
    expiry,
  });
}

function nameOf(dataSource: DataSource): string {
  return new URL((dataSource.options as { url: string }).url).pathname.slice(1);
}
