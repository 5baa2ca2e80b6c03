import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Keyv } from 'keyv';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type * as DrizzleStore from '../../lib/store/drizzle/index.js';
import type * as KeyvStore from '../../lib/store/keyv/keyv-visit.store.js';
import type * as KyselyStore from '../../lib/store/kysely/index.js';
import type * as MemoryStore from '../../lib/store/memory/memory-visit.store.js';
import type * as PrismaRows from '../../lib/store/prisma/visit.rows.js';
import type * as RedisHash from '../../lib/store/redis/visit.hash.js';
import type * as Seal from '../../lib/store/sealed-cookie/visit.seal.js';
import type * as Entities from '../../lib/store/typeorm/entities.js';
import type * as Migrations from '../../lib/store/typeorm/migrations/index.js';
import type * as TypeOrmStore from '../../lib/store/typeorm/typeorm-visit.store.js';
import type { VisitRecord, VisitStore } from '../../lib/store/visit.store.js';
import { complaintsAbout } from '../support/compiler.js';
import { openDatabase } from '../support/databases.js';
import { createDrizzleTables, openDrizzle } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { buildNextVersion, changedFiles, storeFile, type NextVersion, type Place } from '../support/next-version.js';

// A visit gets another column.

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What the compiler says of versions of the list, each in a folder of its own, with what is said in these places. */
async function complaints(versions: Record<string, readonly Place[]>): Promise<readonly string[]> {
  await mkdir(join(root, 'artifacts'), { recursive: true });
  const folder = await mkdtemp(join(root, 'artifacts/added-column-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  for (const [name, places] of Object.entries(versions)) {
    const texts = changedFiles(places);
    await mkdir(join(folder, name));
    // The list, and what it imports.
    for (const file of ['visit.columns.ts', 'visit.store.ts', 'visit.facets.ts'])
      await writeFile(
        join(folder, name, file),
        texts.get(storeFile(file)) ?? (await readFile(storeFile(file), 'utf8')),
      );
  }
  const compilerOptions = {
    strict: true,
    noEmit: true,
    types: [],
    lib: ['es2022'],
    target: 'es2022',
    module: 'nodenext',
  };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['.'] }));
  // A complaint begins at the beginning of a line.
  return (await complaintsAbout(folder)).trim().split(/\n(?=\S)/);
}

describe('A new column of a visit', () => {
  let next: NextVersion;
  beforeAll(() => void (next = buildNextVersion()));
  afterAll(() => next?.remove());

  const NOW = Date.UTC(2026, 5, 1);
  const visit = {
    previousKeyHash: null,
    previousKeyUntil: null,
    keyChanged: NOW,
    endedAt: null,
    endReason: null,
    sessionVersion: 0,
    id: 'a'.repeat(32),
    keyHash: 'b'.repeat(64),
    created: NOW,
    accessed: NOW,
    expiry: NOW + 60_000,
    absoluteExpiry: null,
    permanent: false,
    remoteAddress: null,
    userAgent: null,
    sessionData: new TextEncoder().encode('data'),
    identity: null,
    nickname: 'Zoë',
  };
  async function expectKept(store: VisitStore): Promise<void> {
    await store.create([visit]);
    await store.touch([{ id: visit.id, accessed: NOW + 1, expiry: NOW + 90_000 }]);
    const guard = { id: visit.id, keyHash: visit.keyHash, now: NOW };
    expect(await store.save([{ ...guard, version: 0, data: null }])).toMatchObject([{ outcome: 'saved' }]);
    expect(await store.rekey([{ ...guard, newKeyHash: 'c'.repeat(64), previousKeyUntil: null }])).toMatchObject([
      { outcome: 'done' },
    ]);
    expect(await store.find([visit.id])).toMatchObject([{ nickname: 'Zoë', keyHash: 'c'.repeat(64) }]);
    await store.close();
  }

  test('is required by the compiler in the record and in the list', async () => {
    const places = ['record', 'list'] as const;
    const found = await complaints({ both: places, record: ['record'], list: ['list'] });
    const of = (name: string) => found.filter((complaint) => complaint.includes(`/${name}/`));
    expect(of('both')).toEqual([]);
    for (const place of places) {
      const complaint = expect.stringMatching(/visit\.columns\.ts\([^]*nickname/) as string;
      expect(of(place), place).toEqual(expect.arrayContaining([complaint]));
    }
    expect(found).toHaveLength(of('record').length + of('list').length);
  });

  test('is stored in memory and in a Keyv', async () => {
    const { MemoryVisitStore } = await next.load<typeof MemoryStore>('memory/memory-visit.store.js');
    await expectKept(new MemoryVisitStore());
    const { KeyvVisitStore } = await next.load<typeof KeyvStore>('keyv/keyv-visit.store.js');
    await expectKept(
      new KeyvVisitStore({ keyv: new Keyv({ throwOnErrors: true }), shared: false, durable: false, evicts: false }),
    );
  });

  test('is stored by TypeORM, in a migrated database', async () => {
    const { visitEntities } = await next.load<typeof Entities>('typeorm/entities.js');
    const { visitMigrations } = await next.load<typeof Migrations>('typeorm/migrations/index.js');
    const { TypeOrmVisitStore } = await next.load<typeof TypeOrmStore>('typeorm/typeorm-visit.store.js');
    const database = await openDatabase('sqlite');
    const all = { ...database.options, entities: visitEntities, migrations: visitMigrations, migrationsRun: true };
    const dataSource = await new DataSource(all).initialize();
    await expectKept(new TypeOrmVisitStore(dataSource, { owned: true }));
    await database.drop();
  });

  test('is stored with its index by Drizzle, in its own tables, and by Kysely, in the same ones', async () => {
    const { DrizzleVisitStore, sqliteVisitTables } = await next.load<typeof DrizzleStore>('drizzle/index.js');
    const { KyselyVisitStore } = await next.load<typeof KyselyStore>('kysely/index.js');
    const database = await openDatabase('sqlite');
    const drizzle = openDrizzle('sqlite', database);
    await createDrizzleTables('sqlite', drizzle, sqliteVisitTables());
    const one = new DrizzleVisitStore(drizzle.db);
    await one.check();
    expect(await one.missingIndexes()).toEqual([]);
    await drizzle.execute('DROP INDEX visit_nickname_index');
    expect(await one.missingIndexes()).toEqual(['visit.nickname']);
    await expectKept(one);
    await drizzle.execute('DELETE FROM visit');
    const kysely = openKysely('sqlite', database);
    await expectKept(new KyselyVisitStore({ db: kysely }));
    await kysely.destroy();
    await drizzle.close();
    await database.drop();
  });

  test('is stored in the hash of Redis, the rows of Prisma and the seal; earlier visits lack it', async () => {
    const { FIELDS, fieldsOf, recordOf } = await next.load<typeof RedisHash>('redis/visit.hash.js');
    const flat = fieldsOf(visit);
    const hash = new Map(
      flat.flatMap((field, index) => (index % 2 ? [] : [[String(field), Buffer.from(flat[index + 1]!)] as const])),
    );
    const read = () =>
      recordOf(
        visit.id,
        FIELDS.map((field) => hash.get(field) ?? null),
      );
    expect(read()).toEqual({ ...visit, sessionData: Buffer.from('data') });
    hash.delete('nickname');
    expect(read()).toMatchObject({ id: visit.id, nickname: null });

    const prisma = await next.load<typeof PrismaRows>('prisma/visit.rows.js');
    expect(prisma.VISIT_FIELDS).toHaveProperty('nickname', true);
    const row = prisma.visitData(visit);
    // The compiled type of a row does not have the column that this test adds.
    expect(prisma.recordOf(row as never)).toEqual(visit);

    const { VisitSeal, encodeVisit } = await next.load<typeof Seal>('sealed-cookie/visit.seal.js');
    const { createSecretKey } = await import('node:crypto');
    const seal = new VisitSeal([createSecretKey(Buffer.alloc(32, 7))]);
    const opened = async (record: object) =>
      seal.open(await seal.seal(encodeVisit({ record: record as VisitRecord, revision: 3 })));
    expect(await opened(visit)).toEqual({ record: visit, revision: 3 });
    const ours = await import('../../lib/store/sealed-cookie/visit.seal.js');
    const before = await seal.seal(ours.encodeVisit({ record: visit, revision: 3 }));
    expect(await seal.open(before)).toEqual({ record: { ...visit, nickname: null }, revision: 3 });
  });
});
