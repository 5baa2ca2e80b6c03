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
});

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
