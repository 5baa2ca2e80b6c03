import { createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { sql } from 'kysely';
import { Keyv } from 'keyv';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { KeyvVisitStore } from 'nest-visit/keyv';
import { createVisitTables, KyselyVisitStore } from 'nest-visit/kysely';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type * as DrizzleStore from '../../lib/store/drizzle/index.js';
import type * as KeyvStore from '../../lib/store/keyv/keyv-visit.store.js';
import type * as KyselyStore from '../../lib/store/kysely/index.js';
import type * as PrismaStore from '../../lib/store/prisma/prisma-visit.store.js';
import type * as RedisStore from '../../lib/store/redis/redis-visit.store.js';
import { encodeVisit, VisitSeal } from '../../lib/store/sealed-cookie/visit.seal.js';
import type * as Seal from '../../lib/store/sealed-cookie/visit.seal.js';
import type * as Entities from '../../lib/store/typeorm/entities.js';
import { visitEntities } from '../../lib/store/typeorm/entities.js';
import type * as Migrations from '../../lib/store/typeorm/migrations/index.js';
import { visitMigrations } from '../../lib/store/typeorm/migrations/index.js';
import type * as TypeOrmStore from '../../lib/store/typeorm/typeorm-visit.store.js';
import { TypeOrmVisitStore } from '../../lib/store/typeorm/typeorm-visit.store.js';
import type * as Columns from '../../lib/store/visit.columns.js';
import { SCHEMA_VERSION } from '../../lib/store/visit.columns.js';
import type { VisitStore } from '../../lib/store/visit.store.js';
import { DAY, identityOf, newVisit, NOW, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { describeDatabases } from '../support/databases.js';
import { createDrizzleTables, openDrizzle, visitTables } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { buildNextVersion, NEXT_MIGRATION, type NextVersion } from '../support/next-version.js';
import { openMigrated } from '../support/open-migrated.js';
import { createPrismaTables } from '../support/prisma-client.mjs';
import { describePrisma } from '../support/prisma.js';
import { describeRedis, uniquePrefix } from '../support/redis.js';

// Two versions at work on the same visits, as in a rolling deployment: that of today, and the next one, which has
// another column.

let build: NextVersion;
beforeAll(() => void (build = buildNextVersion()));
afterAll(() => build?.remove());

interface Versions {
  readonly old: VisitStore;
  readonly next: VisitStore;
}

interface Kind {
  /** What the old version does not know stays when it writes the visit. Where a visit is stored as a whole, it goes. */
  readonly keepsUnknown: boolean;
}

/** Each writes what the other one has made, and reads what it has written. */
async function expectSideBySide({ old, next }: Versions, { keepsUnknown }: Kind): Promise<void> {
  const nicknamed = { ...newVisit({ expiry: NOW + DAY, identity: identityOf('ann') }), nickname: 'Zoë' };
  const plain = newVisit({ expiry: NOW + DAY, identity: identityOf('ann') });
  await next.create([nicknamed]);
  await old.create([plain]);
  expect(await next.find([plain.id, nicknamed.id])).toMatchObject([
    { id: plain.id, nickname: null },
    { nickname: 'Zoë' },
  ]);
  const [read] = await old.find([nicknamed.id]);
  expect(read).toMatchObject({ keyHash: nicknamed.keyHash, identity: { userId: 'ann' } });
  expect(read).not.toHaveProperty('nickname');

  for (const [writer, reader] of [
    [old, next],
    [next, old],
  ] as const) {
    for (const visit of [nicknamed, plain]) {
      const [before] = await reader.find([visit.id]);
      const current = { ...visit, keyHash: before!.keyHash };
      const data = new TextEncoder().encode(`by ${writer === old ? 'old' : 'next'}`);
      const version = before!.sessionVersion;
      expect(await writer.save([saveOf(current, { version, data })])).toEqual([
        { outcome: 'saved', version: version + 1 },
      ]);
      const expiry = before!.expiry + DAY;
      await writer.touch([{ id: visit.id, accessed: NOW + 1, expiry }]);
      const change = rekeyOf(current, { identity: identityOf('bob'), previousKeyUntil: null });
      expect(await writer.rekey([change])).toEqual([{ outcome: 'done' }]);
      const [after] = await reader.find([visit.id]);
      expect(after).toMatchObject({
        keyHash: change.newKeyHash,
        expiry,
        sessionVersion: version + 1,
        identity: { userId: 'bob' },
      });
      expect(Buffer.from(after!.sessionData!)).toEqual(Buffer.from(data));
    }
  }
  expect(await next.find([nicknamed.id])).toMatchObject([{ nickname: keepsUnknown ? 'Zoë' : null }]);

  await old.end([nicknamed.id], { reason: 'logout', at: NOW + 2 });
  const [ended] = await next.find([nicknamed.id]);
  expect(ended?.endedAt ?? NOW + 2).toBe(NOW + 2);
  await next.end([plain.id], { reason: 'logout', at: NOW + 2 });
  const [other] = await old.find([plain.id]);
  expect(other?.endedAt ?? NOW + 2).toBe(NOW + 2);
}

describeDatabases('A rolling deployment', (db) => {
  test('names the missing migration; then both versions work side by side, and each works alone', async () => {
    const { visitEntities: nextEntities } = await build.load<typeof Entities>('typeorm/entities.js');
    const { visitMigrations: nextMigrations } = await build.load<typeof Migrations>('typeorm/migrations/index.js');
    const { TypeOrmVisitStore: NextStore } = await build.load<typeof TypeOrmStore>('typeorm/typeorm-visit.store.js');
    const { options } = await db.open();
    const open = async (entities: typeof visitEntities, migrations: typeof visitMigrations): Promise<DataSource> => {
      const dataSource = await new DataSource({ ...options, entities, migrations }).initialize();
      onTestFinished(() => dataSource.destroy());
      return dataSource;
    };
    const today = await open(visitEntities, visitMigrations);
    await today.runMigrations();
    const old = new TypeOrmVisitStore(today);
    const tomorrow = await open(nextEntities, nextMigrations);
    const next: VisitStore = new NextStore(tomorrow);

    // It does not start on the tables of today, and says which migration it waits for.
    const refused = await next.check().catch((error: unknown) => error as Error);
    expect(refused).toMatchObject({ code: 'VISIT_SCHEMA' });
    expect(String(refused)).toMatch(
      new RegExp(`lacks a column .*run the migration ${NEXT_MIGRATION}: .*npx typeorm migration:run -d`),
    );
    expect(String(refused)).not.toContain('CreateVisit');

    expect(await tomorrow.runMigrations()).toMatchObject([{ name: NEXT_MIGRATION }]);
    const { upQueries } = await tomorrow.driver.createSchemaBuilder().log();
    expect(upQueries).toEqual([]);
    await old.check();
    await next.check();
    await expectSideBySide({ old, next }, { keepsUnknown: true });

    // Back: the old version goes on, on the tables of the next one, and on its own.
    await old.check();
    await tomorrow.undoLastMigration();
    await old.check();
    const visit = newVisit();
    await old.create([visit]);
    expect(await old.find([visit.id])).toMatchObject([{ id: visit.id }]);
  });

  test('creates all tables at once in an empty database', async () => {
    const { visitEntities: entities } = await build.load<typeof Entities>('typeorm/entities.js');
    const { visitMigrations: migrations } = await build.load<typeof Migrations>('typeorm/migrations/index.js');
    const { TypeOrmVisitStore: NextStore } = await build.load<typeof TypeOrmStore>('typeorm/typeorm-visit.store.js');
    const { options } = await db.open();
    for (const transaction of ['all', 'each', 'none'] as const) {
      const dataSource = await new DataSource({ ...options, entities, migrations }).initialize();
      onTestFinished(async () => void (dataSource.isInitialized && (await dataSource.destroy())));
      const error = await new NextStore(dataSource).check().catch((reason: unknown) => String(reason));
      expect(error).toMatch(new RegExp(`run the migrations CreateVisit1790000000000, ${NEXT_MIGRATION}`));
      expect(await dataSource.runMigrations({ transaction })).toHaveLength(2);
      await expect(new NextStore(dataSource).check()).resolves.toBeUndefined();
      const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
      expect(upQueries).toEqual([]);
      for (const _ of migrations) await dataSource.undoLastMigration({ transaction });
    }
  });

  test('reports tables that were changed after a migration', async () => {
    const { options } = await db.open();
    const dataSource = await new DataSource({
      ...options,
      entities: visitEntities,
      migrations: visitMigrations,
    }).initialize();
    onTestFinished(() => dataSource.destroy());
    await dataSource.runMigrations();
    await dataSource.query('ALTER TABLE visit DROP COLUMN session_version');
    await expect(new TypeOrmVisitStore(dataSource).check()).rejects.toThrow(
      /lacks a column .*session_version.*; the migration CreateVisit1790000000000 was run .* changed since/,
    );
  });
});

describeDatabases(
  'A rolling deployment of several processes',
  (db) => {
    test.each(['all', 'each', 'none'] as const)(
      'that migrate concurrently change the tables once, in transactions of the mode "%s"',
      async (transaction) => {
        const { visitEntities: entities } = await build.load<typeof Entities>('typeorm/entities.js');
        const { visitMigrations: migrations } = await build.load<typeof Migrations>('typeorm/migrations/index.js');
        const { options } = await db.open();
        const today = await openMigrated(options);
        onTestFinished(() => today.destroy());
        const sources = Array.from({ length: 3 }, () => new DataSource({ ...options, entities, migrations }));
        await Promise.all(sources.map((one) => one.initialize()));
        onTestFinished(async () => void (await Promise.all(sources.map((one) => one.destroy()))));
        await Promise.all(sources.map((one) => one.runMigrations({ transaction })));
        const { upQueries } = await sources[0]!.driver.createSchemaBuilder().log();
        expect(upQueries).toEqual([]);
      },
    );

    if (db.name === 'postgres')
      test('creates an index again that was left incomplete', async () => {
        const { visitEntities: entities } = await build.load<typeof Entities>('typeorm/entities.js');
        const { visitMigrations: migrations } = await build.load<typeof Migrations>('typeorm/migrations/index.js');
        const { options } = await db.open();
        const today = await openMigrated(options);
        onTestFinished(() => today.destroy());
        const tomorrow = await new DataSource({ ...options, entities, migrations }).initialize();
        onTestFinished(() => tomorrow.destroy());
        const name = tomorrow.namingStrategy.indexName('visit', ['nickname']);
        await today.query('ALTER TABLE visit ADD COLUMN nickname varchar(40)');
        // As a process leaves it that ends meanwhile: two rows of one name, which no unique index takes.
        await new TypeOrmVisitStore(today).create([newVisit(), newVisit()]);
        await today.query("UPDATE visit SET nickname = 'twin'");
        await expect(today.query(`CREATE UNIQUE INDEX CONCURRENTLY "${name}" ON visit (nickname)`)).rejects.toThrow(
          /unique/,
        );
        await tomorrow.runMigrations();
        expect(
          await today.query(
            'SELECT indisvalid AS valid, indisunique AS "unique" FROM pg_index WHERE indexrelid = to_regclass($1)',
            [`"${name}"`],
          ),
        ).toEqual([{ valid: true, unique: false }]);
      });
  },
  ['mariadb', 'postgres'],
);

test('each version of the schema has one migration, and the page about upgrading lists all of them', async () => {
  expect(visitMigrations).toHaveLength(SCHEMA_VERSION);
  const { visitMigrations: next } = await build.load<typeof Migrations>('typeorm/migrations/index.js');
  const { SCHEMA_VERSION: version } = await build.load<typeof Columns>('visit.columns.js');
  expect(next).toHaveLength(version);
  const page = readFileSync(new URL('../../docs/upgrading.md', import.meta.url), 'utf8');
  for (const Migration of visitMigrations) expect(page).toContain(`| \`${new Migration().name}\` |`);
});

describePrisma('A rolling deployment with Prisma', (db) => {
  test('runs the old version on the tables and models of the next one', async () => {
    const { PrismaVisitStore: NextStore } = await build.load<typeof PrismaStore>('prisma/prisma-visit.store.js');
    const prisma = await db.connect(await db.open());
    onTestFinished(() => prisma.$disconnect());
    await createPrismaTables(db.name, prisma);
    await prisma.$executeRawUnsafe('ALTER TABLE visit ADD COLUMN nickname VARCHAR(40) NULL');
    const old = new PrismaVisitStore(prisma);
    await old.check();
    // The client of today's models knows no such field, and the next version says so.
    await expect(new NextStore(prisma).check()).rejects.toMatchObject({ code: 'VISIT_SCHEMA' });
    const visit = newVisit();
    await old.create([visit]);
    expect(await old.save([saveOf(visit, { data: null })])).toMatchObject([{ outcome: 'saved' }]);
  });
});

describeDatabases('A rolling deployment with Kysely or Drizzle', (db) => {
  test.each(['Kysely', 'Drizzle'] as const)(
    '%s: waits for the column, then runs both versions side by side',
    async (by) => {
      const database = await db.open();
      const kysely = openKysely(db.name, database);
      const drizzle = openDrizzle(db.name, database);
      onTestFinished(() => Promise.all([kysely.destroy(), drizzle.close()]).then(() => {}));
      const nextKysely = await build.load<typeof KyselyStore>('kysely/index.js');
      const nextDrizzle = await build.load<typeof DrizzleStore>('drizzle/index.js');
      const [old, next]: VisitStore[] =
        by === 'Kysely'
          ? [new KyselyVisitStore({ db: kysely }), new nextKysely.KyselyVisitStore({ db: kysely })]
          : [new DrizzleVisitStore(drizzle.db), new nextDrizzle.DrizzleVisitStore(drizzle.db)];
      if (by === 'Kysely') await createVisitTables(kysely);
      else await createDrizzleTables(db.name, drizzle, visitTables[db.name]());
      await old!.check();
      await expect(next!.check()).rejects.toMatchObject({
        code: 'VISIT_SCHEMA',
        message: expect.stringContaining('nickname') as string,
      });
      await sql`ALTER TABLE visit ADD COLUMN nickname varchar(40) NULL`.execute(kysely);
      await old!.check();
      await next!.check();
      await expectSideBySide({ old: old!, next: next! }, { keepsUnknown: true });
    },
  );
});

describeRedis('A rolling deployment', (redis) => {
  test('runs both versions side by side', async () => {
    const { RedisVisitStore: NextStore } = await build.load<typeof RedisStore>('redis/redis-visit.store.js');
    const prefix = uniquePrefix();
    const old = await redis.open({ prefix });
    const next: VisitStore = new NextStore({ client: await redis.connect(), prefix });
    await expectSideBySide({ old, next }, { keepsUnknown: true });
  });
});

describe('A rolling deployment of stores that store a visit as a whole', () => {
  test('Keyv: runs both versions side by side; the old one writes without the new column', async () => {
    const { KeyvVisitStore: NextStore } = await build.load<typeof KeyvStore>('keyv/keyv-visit.store.js');
    const options = { keyv: new Keyv({ throwOnErrors: true }), shared: false, durable: false, evicts: false };
    await expectSideBySide({ old: new KeyvVisitStore(options), next: new NextStore(options) }, { keepsUnknown: false });
  });

  test('sealed cookies: each version reads those of the other', async () => {
    const next = await build.load<typeof Seal>('sealed-cookie/visit.seal.js');
    const secret = createSecretKey(Buffer.alloc(32, 7));
    const [oldSeal, nextSeal] = [new VisitSeal([secret]), new next.VisitSeal([secret])];
    const record = {
      ...newVisit({ sessionData: Buffer.from('data') }),
      previousKeyHash: null,
      previousKeyUntil: null,
      keyChanged: NOW,
      endedAt: null,
      endReason: null,
      sessionVersion: 0,
    };
    const ofNext = await nextSeal.seal(
      next.encodeVisit({ record: { ...record, nickname: 'Zoë' } as typeof record, revision: 3 }),
    );
    const opened = await oldSeal.open(ofNext);
    expect(opened).toMatchObject({ record: { id: record.id, sessionVersion: 0 }, revision: 3 });
    expect(Buffer.from(opened!.record.sessionData!).toString()).toBe('data');
    const ofOld = await oldSeal.seal(encodeVisit({ record, revision: 3 }));
    expect(await nextSeal.open(ofOld)).toMatchObject({ record: { id: record.id, nickname: null }, revision: 3 });
  });
});
