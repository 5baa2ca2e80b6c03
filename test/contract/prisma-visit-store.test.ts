import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VisitOptionError, VisitSchemaError, type VisitStore } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { PrismaVisitStore, type PrismaVisitClient } from 'nest-visit/prisma';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bytes, identityOf, newVisit, rekeyOf, saveOf } from '../../lib/testing/samples.js';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { complaintsAbout } from '../support/compiler.js';
import { databasesOfToday } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { documentedPrisma, prismaClientFile, type TestPrisma } from '../support/prisma-client.mjs';
import { describeWith } from '../support/needs.js';
import { describePrisma, PRISMA_DATABASES } from '../support/prisma.js';
import { isSoak } from '../support/soak.js';
import { endAll } from '../../lib/testing/many.js';

const NEVER = 8_640_000_000_000_000;
const root = fileURLToPath(new URL('../..', import.meta.url));
const runner = { describe, test };
/** Its races are those of the databases, which the store of TypeORM runs more often. */
const rounds = isSoak ? 15 : 3;
const capabilities = { atomic: true, revocable: true, shared: true, durable: true };

async function empty(store: VisitStore): Promise<void> {
  await endAll(store, { reason: 'test', at: 0 });
  await expungeAll({ store }, { before: NEVER, limit: 10_000 });
}

describePrisma('R65: Prisma', (db) => {
  const clients: TestPrisma[] = [];
  const connect = async (...given: Parameters<typeof db.connect>): Promise<TestPrisma> => {
    const prisma = await db.connect(...given);
    clients.push(prisma);
    return prisma;
  };
  afterAll(() => Promise.all(clients.map((prisma) => prisma.$disconnect())));

  // The whole contract twice on each database takes minutes: one of two halves each day, but for long runs.
  const isOfToday = databasesOfToday(0, PRISMA_DATABASES).includes(db.name);
  const isAlone = isSoak || (isOfToday && db.name === 'postgres');
  const isBeside = isSoak || (isOfToday && db.name === 'mariadb');

  if (isAlone)
    describe('alone, on tables that Prisma has created', () => {
      let fixture: VisitStoreFixture;
      beforeAll(async () => {
        const database = await db.open();
        const prisma = await connect(database);
        await db.createTables(prisma);
        // As another process would be that was configured otherwise.
        const other = await connect(
          database,
          db.name === 'mariadb' ? { timezone: '-09:30' } : { options: '-c timezone=Pacific/Marquesas' },
        );
        fixture = {
          store: new PrismaVisitStore(prisma),
          second: new PrismaVisitStore(other),
          reopen: async () => new PrismaVisitStore(await connect(database)),
        };
      });

      describeVisitStore(db.name, () => empty(fixture.store).then(() => fixture), { runner, rounds, capabilities });
    });

  if (isBeside)
    describe('beside TypeORM, on the tables of its migrations', () => {
      let fixture: VisitStoreFixture;
      let closeDataSource: (() => Promise<void>) | undefined;
      beforeAll(async () => {
        const database = await db.open();
        const dataSource = await openMigrated(database.options);
        closeDataSource = () => dataSource.destroy();
        const typeorm = new TypeOrmVisitStore(dataSource);
        fixture = {
          store: new PrismaVisitStore(await connect(database)),
          second: typeorm,
          reopen: () => new TypeOrmVisitStore(dataSource),
        };
      });
      afterAll(() => closeDataSource?.());

      describeVisitStore(`${db.name}, with TypeORM as the second`, () => empty(fixture.store).then(() => fixture), {
        runner,
        rounds,
        capabilities,
      });
    });

  describe('by itself', () => {
    let prisma: TestPrisma;
    let store: PrismaVisitStore;
    beforeAll(async () => {
      prisma = await connect(await db.open());
      await db.createTables(prisma);
      store = new PrismaVisitStore(prisma);
    });

    /** The same client, but for something that comes before each `updateMany` of visits. */
    const beforeUpdates = (first: () => void): PrismaVisitClient => {
      const { visit, visitIdentity, visitRevocation } = prisma;
      const updateMany = async (query: never): Promise<unknown> => {
        first();
        return visit.updateMany(query);
      };
      return {
        visit: { ...visit, updateMany },
        visitIdentity,
        visitRevocation,
        $transaction: prisma.$transaction.bind(prisma),
      };
    };

    test('B3: a look-up during a change of the user returns a key and a user that belong together', async () => {
      for (let round = 0; round < 20; round++) {
        const visit = newVisit({ identity: identityOf('alice') });
        await store.create([visit]);
        const change = rekeyOf(visit, { identity: identityOf('bob') });
        const [done, ...found] = await Promise.all([
          store.rekey([change]),
          ...Array.from({ length: 6 }, () => store.find([visit.id])),
        ]);
        expect(done).toEqual([{ outcome: 'done' }]);
        for (const [one] of found) expect(one!.identity!.userId).toBe(one!.keyHash === visit.keyHash ? 'alice' : 'bob');
        expect((await store.find([visit.id]))[0]).toMatchObject({
          keyHash: change.newKeyHash,
          identity: { userId: 'bob' },
        });
      }
    });

    test('writes a visit by one statement with all conditions', async () => {
      const visit = newVisit();
      await store.create([visit]);
      const { id, keyHash, expiry } = visit;
      const seen: string[] = [];
      prisma.$on(
        'query',
        ({ query }) => void (query.includes('UPDATE') || query.includes('SELECT') ? seen.push(query) : undefined),
      );
      const lock = { id, keyHash, owner: 'me', now: 1, until: 2 };
      const writes: [RegExp, () => Promise<unknown>][] = [
        [
          /session_version.* = .*key_hash.* = .*previous_key_until.* > /,
          () => store.save([saveOf(visit, { data: bytes('x') })]),
        ],
        [/accessed.* <= .*expiry.* <= /, () => store.touch([{ id, accessed: expiry, expiry: expiry + 1 }])],
        [/key_hash.* = .*lock_owner.* IS NULL .*locked_until.* <= /, () => store.lock(lock)],
        [/key_hash.* = .*lock_owner.* IS NULL .*locked_until.* <= /, () => store.lock(lock)],
        [/lock_owner.* = /, () => store.unlock(id, 'me')],
        [/key_hash.* = /, () => store.rekey([rekeyOf(visit, { previousKeyUntil: null })])],
        [/ended_at/, () => store.end([id], { reason: 'logout', at: 3 })],
      ];
      for (const [, write] of writes) await write();
      await expect.poll(() => seen.length).toBe(writes.length);
      for (const [index, [condition]] of writes.entries()) {
        const [, where = ''] = seen[index]!.split('WHERE');
        expect(where).toMatch(/id. = .* AND .*ended_at. IS NULL/);
        expect(where).toMatch(condition);
      }
    });

    test.each([
      ['a deadlock', { code: 'P2034' }],
      [
        'a lock that took too long',
        { code: 'P2039', meta: { driverAdapterError: { cause: { kind: 'mysql', code: 1205 } } } },
      ],
      ['a conflict at the end of a transaction', { cause: { kind: 'TransactionWriteConflict' } }],
    ])('retries after %s', async (_, given) => {
      const visit = newVisit();
      await store.create([visit]);
      let calls = 0;
      const disturbed = beforeUpdates(() => {
        if (++calls === 1) throw Object.assign(new Error('in the way'), given);
      });
      expect(await new PrismaVisitStore(disturbed).save([saveOf(visit, { data: bytes('x') })])).toEqual([
        { outcome: 'saved', version: 1 },
      ]);
      expect(calls).toBe(2);
    });

    test('B15: a save that fails is not retried, and fails alone', async () => {
      const [broken, whole] = [newVisit(), newVisit()];
      await store.create([broken, whole]);
      const lost = Object.assign(new Error('the connection is gone'), { code: 'P1017' });
      let calls = 0;
      const updateMany = async ({ where }: { where: { id: string } }) => {
        if (where.id !== broken.id) return { count: 1 };
        calls++;
        throw lost;
      };
      const { visitIdentity, visitRevocation } = prisma;
      const client = {
        visit: { updateMany, findMany: () => [] },
        visitIdentity,
        visitRevocation,
        $transaction: async () => [],
      };
      const results = await new PrismaVisitStore(client as never).save([saveOf(broken), saveOf(whole)]);
      expect(results).toEqual([
        { outcome: 'failed', error: lost },
        { outcome: 'saved', version: 1 },
      ]);
      expect(calls).toBe(1);
    });

    test('names the model that the client lacks', () => {
      expect(() => new PrismaVisitStore({ visit: prisma.visit } as never)).toThrow(VisitOptionError);
      expect(() => new PrismaVisitStore({ visit: prisma.visit } as never)).toThrow(
        /`visitIdentity`, `visitRevocation`.*prisma generate/,
      );
    });

    test('names the missing column or table', async () => {
      const bare = await connect(await db.open());
      const checked = async (): Promise<unknown> => new PrismaVisitStore(bare).check().catch((error: unknown) => error);
      expect(await checked()).toBeInstanceOf(VisitSchemaError);
      expect(String(await checked())).toMatch(/model "Visit".*prisma migrate/);
      await db.createTables(bare);
      expect(await checked()).toBeUndefined();
      await bare.$executeRawUnsafe('ALTER TABLE visit DROP COLUMN lock_owner');
      expect(String(await checked())).toMatch(/model "Visit".*lock_owner.*prisma migrate/);
    });
  });
});

// It needs no server; but to generate the client and to compile with it takes longer than most that does.
describeWith('postgres', 'PrismaVisitStore', () => {
  test('R65: the documented module compiles with the generated client, and accepts an extended one', async () => {
    const generated = dirname(await prismaClientFile('postgresql'));
    const folder = await mkdtemp(join(dirname(generated), 'module-'));
    try {
      const { module } = await documentedPrisma();
      await writeFile(
        join(folder, 'app.module.ts'),
        module.replace('./generated/prisma/client', '../client/client.ts'),
      );
      await writeFile(
        join(folder, 'extended.ts'),
        `import { PrismaVisitStore } from 'nest-visit/prisma';\nimport type { PrismaClient } from ` +
          `'../client/client.ts';\n` +
          'export const storeOf = (prisma: PrismaClient) => new PrismaVisitStore(prisma.$extends({ name: "own" }));\n',
      );
      // As in an application, the types of the package are those of its build.
      const compilerOptions = { noEmit: true, rewriteRelativeImportExtensions: true, paths: {} };
      const config = { extends: relative(folder, join(root, 'tsconfig.json')), compilerOptions, include: ['.'] };
      await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
      expect(await complaintsAbout(folder)).toBe('');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
