import { Logger } from '@nestjs/common';
import { sql } from 'kysely';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { createVisitTables, KyselyVisitStore } from 'nest-visit/kysely';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { Column, DataSource, Entity, JoinColumn, ManyToOne, PrimaryGeneratedColumn } from 'typeorm';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { ExpungeService } from '../../lib/expunge/expunge.service.js';
import { visitEntities } from '../../lib/store/typeorm/entities.js';
import { visitMigrations } from '../../lib/store/typeorm/migrations/index.js';
import { TypeOrmVisitStore } from '../../lib/store/typeorm/typeorm-visit.store.js';
import { VisitIdentity } from '../../lib/store/typeorm/visit-identity.entity.js';
import { VisitRevocation } from '../../lib/store/typeorm/visit-revocation.entity.js';
import { Visit } from '../../lib/store/typeorm/visit.entity.js';
import type { KeptVisits } from '../../lib/store/visit.facets.js';
import type { VisitRecord, VisitStore } from '../../lib/store/visit.store.js';
import { DAY, identityOf, newVisit, NOW } from '../../lib/testing/samples.js';
import { describeDatabases, type DatabaseName } from '../support/databases.js';
import { openDrizzle } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { describePrisma } from '../support/prisma.js';
import { endAll, endAllOf } from '../../lib/testing/many.js';

// Tables of applications that refer to visits.

@Entity('draft')
class Draft {
  @PrimaryGeneratedColumn()
  id!: number;

  @ManyToOne(() => Visit, { onDelete: 'CASCADE' })
  @JoinColumn({ name: 'visit_id' })
  visit!: Visit;
}

/** With the column of the relation as a property, as the recipe has it. */
@Entity('receipt')
class Receipt {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column({ name: 'visit_id', type: 'varchar', length: 32 })
  visitId!: string;

  @ManyToOne(() => Visit, { onDelete: 'RESTRICT' })
  @JoinColumn({ name: 'visit_id' })
  visit!: Visit;
}

@Entity('my_visit')
class MyVisit extends Visit {}

@Entity('note')
class Note {
  @PrimaryGeneratedColumn()
  id!: number;

  @ManyToOne(() => MyVisit)
  visit!: MyVisit;
}

/** The type of `visit.id`, as docs/stores.md says it. */
const ID_TYPES: Readonly<Record<DatabaseName, string>> = {
  mariadb: 'VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin',
  postgres: 'VARCHAR(32)',
  sqlite: 'VARCHAR(32)',
};

/** How a foreign key can restrict. */
const RESTRICTING: Readonly<Record<DatabaseName, readonly string[]>> = {
  mariadb: ['ON DELETE RESTRICT', ''],
  postgres: ['ON DELETE RESTRICT', '', 'DEFERRABLE INITIALLY DEFERRED'],
  sqlite: ['ON DELETE RESTRICT', '', 'DEFERRABLE INITIALLY DEFERRED'],
};

afterEach(() => void vi.restoreAllMocks());

/** Looks up few visits at once, so that the place where it goes on is asked for again and again. */
class HastyStore extends TypeOrmVisitStore {
  protected override readonly staleIdsAtOnce = 4;
}

const table = (idType: string, how: string): string =>
  `CREATE TABLE basket (visit_id ${idType} NOT NULL PRIMARY KEY, CONSTRAINT basket_visit FOREIGN KEY (visit_id) ` +
  `REFERENCES visit (id) ${how})`;

interface Expunged {
  visits: number;
  identities: number;
  kept: number;
  readonly constraints: Set<string>;
}

async function expunge(store: VisitStore, limit: number): Promise<Expunged> {
  const all: Expunged = { visits: 0, identities: 0, kept: 0, constraints: new Set() };
  for (let after: unknown, batches = 0; after !== null; batches++) {
    expect(batches, 'it comes to an end').toBeLessThan(100);
    const { visits, identities, kept, next } = await store.cleanup!.expunge({ before: NOW, limit, after });
    all.visits += visits;
    all.identities += identities;
    all.kept += kept?.visits ?? 0;
    for (const name of kept?.constraints ?? []) all.constraints.add(name);
    after = next;
  }
  return all;
}

/** Visits that have expired, some of them at one instant, and visits that have ended and not expired. */
async function makeStale(store: VisitStore): Promise<VisitRecord[]> {
  const expired = Array.from({ length: 14 }, (_, index) =>
    newVisit({ expiry: NOW - 1 - (index % 3), identity: identityOf('ann') }),
  );
  const ended = Array.from({ length: 9 }, () => newVisit({ identity: identityOf('bob') }));
  const living = newVisit({ identity: identityOf('bob') });
  await store.create([...expired, ...ended, living]);
  await store.end(
    ended.map(({ id }) => id),
    { reason: 'logout', at: NOW - 1 },
  );
  // Both: it is looked at once.
  await store.end([expired[0]!.id], { reason: 'logout', at: NOW - 1 });
  return [...expired, ...ended];
}

const isEven = (_: unknown, index: number): boolean => index % 2 === 0;

describeDatabases('A table of an application that refers to visits', (db) => {
  const open = async (more: object): Promise<DataSource> => {
    const { options } = await db.open();
    const dataSource = await new DataSource({ ...options, migrations: visitMigrations, ...more }).initialize();
    onTestFinished(() => dataSource.destroy());
    return dataSource;
  };

  test('is created from entities, with any collation of the database, and TypeORM finds no difference', async () => {
    const entities = [MyVisit, Visit, VisitIdentity, VisitRevocation, Draft, Receipt, Note];
    for (const more of [{ synchronize: true }, { migrationsRun: true }]) {
      const dataSource = await open({
        entities: entities.filter((one) => more.synchronize || (one !== MyVisit && one !== Note)),
        ...more,
      });
      await dataSource.synchronize();
      const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
      expect(upQueries).toEqual([]);
    }
  });

  test('has rows that are deleted with the visit', async () => {
    const dataSource = await open({ entities: [...visitEntities, Draft], synchronize: true });
    const store = new TypeOrmVisitStore(dataSource);
    const [stale, living] = [newVisit({ expiry: NOW - 1 }), newVisit({ expiry: NOW + DAY })];
    await store.create([stale, living]);
    const drafts = dataSource.getRepository(Draft);
    await drafts.save([{ visit: { id: stale.id } }, { visit: { id: living.id } }]);
    expect(await expunge(store, 10)).toMatchObject({ visits: 1, kept: 0 });
    expect(await drafts.find({ relations: { visit: true } })).toMatchObject([{ visit: { id: living.id } }]);
  });

  test.each(RESTRICTING[db.name])(
    'and restricts deletion (%s) keeps its visits, and clean-up continues with the others',
    async (how) => {
      const dataSource = await open({ entities: visitEntities, migrationsRun: true });
      const store = new HastyStore(dataSource);
      await dataSource.query(table(ID_TYPES[db.name], how));
      const stale = await makeStale(store);
      const kept = stale.filter(isEven);
      for (const { id } of kept) await dataSource.query(`INSERT INTO basket (visit_id) VALUES ('${id}')`);

      const names = db.name === 'sqlite' ? [] : ['basket_visit'];
      for (const limit of [5, 100]) {
        const gone = limit === 5 ? stale.length - kept.length : 0;
        expect(await expunge(store, limit)).toEqual({
          visits: gone,
          identities: gone,
          kept: kept.length,
          constraints: new Set(names),
        });
      }
      const found = await store.find(stale.map(({ id }) => id));
      expect(found.map((visit) => visit?.identity ?? null)).toEqual(
        stale.map(({ identity }, index) => (isEven(0, index) ? identity : null)),
      );

      await dataSource.query('DELETE FROM basket');
      expect(await expunge(store, 100)).toMatchObject({ visits: kept.length, identities: kept.length, kept: 0 });
    },
  );

  test('and restricts deletion does not prevent visits from ending or being wiped', async () => {
    const dataSource = await open({ entities: visitEntities, migrationsRun: true });
    const store = new TypeOrmVisitStore(dataSource);
    await dataSource.query(table(ID_TYPES[db.name], ''));
    const [stale, living] = [
      newVisit({ expiry: NOW - 1, sessionData: Buffer.from('x') }),
      newVisit({ expiry: NOW + DAY, identity: identityOf('ann') }),
    ];
    await store.create([stale, living]);
    for (const { id } of [stale, living]) await dataSource.query(`INSERT INTO basket (visit_id) VALUES ('${id}')`);
    expect(await store.wipe({ before: NOW, limit: 10 })).toMatchObject({ visits: 1 });
    expect(await endAllOf(store, 'ann', { reason: 'admin', at: NOW })).toEqual([living.id]);
    expect(await endAll(store, { reason: 'admin', at: NOW })).toHaveLength(1);
  });
});

describe('Clean-up that must keep visits', () => {
  const serviceOf = (batches: readonly (KeptVisits | undefined)[]): ExpungeService => {
    const expungeBatch = async ({ after = 0 }: { after?: unknown }) => {
      const next = Number(after) + 1;
      const kept = batches[next - 1];
      return { visits: 0, identities: 0, ...(kept && { kept }), next: next === batches.length ? null : next };
    };
    const options = {
      expunge: { schedule: false as const, keepDays: 7, batchSize: 2 },
      touch: { interval: 1 },
      clock: Date,
    };
    // Only what a clean-up asks for.
    return new ExpungeService(options as never, { cleanup: { expunge: expungeBatch } } as never, {
      emit: async () => {},
    });
  };

  test('logs this once, with the count and the names of the constraints', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    const constraints = ['basket_visit'];
    await serviceOf([
      { visits: 2, constraints },
      undefined,
      { visits: 1, constraints },
      { visits: 0, constraints: [] },
    ]).run();
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(
          /^3 expired or ended visits stay, because rows .* restricts \(basket_visit\): .*ON DELETE CASCADE/,
        ),
      ],
    ]);
    await serviceOf([{ visits: 1, constraints: [] }]).run();
    expect(warn.mock.lastCall).toEqual([
      expect.stringMatching(/^1 expired or ended visit stays, because rows .* restricts: /),
    ]);
    expect(warn).toHaveBeenCalledTimes(2);
  });

  test('is silent if no visits were kept, and lets the caller report them', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    const onKept = vi.fn<(kept: KeptVisits) => void>();
    await serviceOf([undefined, { visits: 0, constraints: [] }]).run({ onKept });
    expect(onKept).not.toHaveBeenCalled();
    await serviceOf([{ visits: 4, constraints: [] }]).run({ onKept });
    expect(onKept.mock.calls).toEqual([[{ visits: 4, constraints: [] }]]);
    expect(warn).not.toHaveBeenCalled();
  });
});

describeDatabases('A table that refers to visits of Kysely or Drizzle', (db) => {
  test.each(['Kysely', 'Drizzle'] as const)(
    'and restricts deletion keeps its visits, and clean-up of %s continues with the others',
    async (by) => {
      const database = await db.open();
      const [kysely, drizzle] = [openKysely(db.name, database), openDrizzle(db.name, database)];
      onTestFinished(() => Promise.all([kysely.destroy(), drizzle.close()]).then(() => {}));
      if (db.name === 'sqlite') {
        await sql`PRAGMA foreign_keys = ON`.execute(kysely);
        await drizzle.execute('PRAGMA foreign_keys = ON');
      }
      await createVisitTables(kysely);
      await sql.raw(table(ID_TYPES[db.name], 'ON DELETE RESTRICT')).execute(kysely);
      const made = by === 'Kysely' ? new KyselyVisitStore({ db: kysely }) : new DrizzleVisitStore(drizzle.db);
      // As HastyStore.
      const store = Object.assign(made, { staleIdsAtOnce: 4 });
      const stale = await makeStale(store);
      const kept = stale.filter(isEven);
      for (const { id } of kept) await sql`INSERT INTO basket (visit_id) VALUES (${id})`.execute(kysely);
      const gone = stale.length - kept.length;
      const constraints = new Set(db.name === 'sqlite' ? [] : ['basket_visit']);
      expect(await expunge(store, 5)).toEqual({ visits: gone, identities: gone, kept: kept.length, constraints });
      await sql`DELETE FROM basket`.execute(kysely);
      expect(await expunge(store, 100)).toMatchObject({ visits: kept.length, kept: 0 });
    },
  );
});

describePrisma('A table that refers to visits of Prisma', (db) => {
  test('and restricts deletion keeps its visits, and clean-up continues with the others', async () => {
    const prisma = await db.connect(await db.open());
    onTestFinished(() => prisma.$disconnect());
    await db.createTables(prisma);
    const idType =
      db.name === 'mariadb' ? 'VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci' : 'VARCHAR(32)';
    await prisma.$executeRawUnsafe(table(idType, 'ON DELETE RESTRICT'));
    // As HastyStore.
    const store = Object.assign(new PrismaVisitStore(prisma), { staleIdsAtOnce: 4 });
    const stale = await makeStale(store);
    const kept = stale.filter(isEven);
    for (const { id } of kept) await prisma.$executeRawUnsafe(`INSERT INTO basket (visit_id) VALUES ('${id}')`);
    const gone = stale.length - kept.length;
    const constraints = new Set(['basket_visit']);
    expect(await expunge(store, 5)).toEqual({ visits: gone, identities: gone, kept: kept.length, constraints });
    const found = await store.find(kept.map(({ id }) => id));
    expect(found.map((visit) => visit?.identity)).toEqual(kept.map(({ identity }) => identity));
    await prisma.$executeRawUnsafe('DELETE FROM basket');
    expect(await expunge(store, 100)).toMatchObject({ visits: kept.length, kept: 0 });
  });
});
