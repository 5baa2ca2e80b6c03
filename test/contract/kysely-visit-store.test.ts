import { inspect } from 'node:util';
import { sql } from 'kysely';
import { VisitOptionError, VisitSchemaError, type VisitStore } from 'nest-visit';
import { createVisitTables, dropVisitTables, KyselyVisitStore } from 'nest-visit/kysely';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { endAll } from '../../lib/testing/many.js';
import { bytes, identityOf, newVisit, saveOf } from '../../lib/testing/samples.js';
import { ALL_DATABASES, databasesOfToday, describeDatabases } from '../support/databases.js';
import { openKysely, type TestKysely } from '../support/kysely.js';
import { complaintsOf, StatementLog } from '../support/mysql-grammar.js';
import { openMigrated } from '../support/open-migrated.js';
import { isSoak } from '../support/soak.js';

const NEVER = 8_640_000_000_000_000;
const runner = { describe, test };
/** Its races are those of the databases, which the store of TypeORM runs more often. */
const rounds = isSoak ? 15 : 5;
const capabilities = { atomic: true, revocable: true, shared: true, durable: true };

async function empty(store: VisitStore): Promise<void> {
  await endAll(store, { reason: 'test', at: 0 });
  await expungeAll({ store }, { before: NEVER, limit: 10_000 });
}

describeDatabases('R65: Kysely', (db) => {
  const instances: TestKysely[] = [];
  const open = (...given: Parameters<typeof openKysely>): TestKysely => {
    const kysely = openKysely(...given);
    instances.push(kysely);
    return kysely;
  };
  afterAll(() => Promise.all(instances.map((kysely) => kysely.destroy())));

  // TypeORM sends the same statements to all databases.
  if (databasesOfToday(1, ALL_DATABASES).includes(db.name))
    describe('on tables that its migration has created', () => {
      const log = new StatementLog();
      let fixture: VisitStoreFixture;
      beforeAll(async () => {
        const database = await db.open();
        const kysely = open(db.name, database, {}, (text) => log.logQuery(text));
        await createVisitTables(kysely);
        // As another process would be that was configured otherwise.
        const others = {
          mariadb: { timezone: '-09:30' },
          postgres: { options: '-c timezone=Pacific/Marquesas' },
          sqlite: {},
        };
        const second = open(db.name, database, others[db.name]);
        fixture = {
          store: new KyselyVisitStore({ db: kysely }),
          second: new KyselyVisitStore({ db: second }),
          reopen: () => new KyselyVisitStore({ db: open(db.name, database) }),
        };
      });

      describeVisitStore(db.name, () => empty(fixture.store).then(() => fixture), { runner, rounds, capabilities });

      if (db.name === 'mariadb') {
        test("all its statements, including tables and check of the server, conform to MySQL's grammar", async () => {
          await fixture.store.check();
          expect(log.statements.size).toBeGreaterThan(30);
          expect(
            [...log.statements].flatMap((text) => complaintsOf(text).map((complaint) => `${complaint}: ${text}`)),
          ).toEqual([]);
        });
      }
    });

  test('passes on errors of the driver, without the values of the statement', async () => {
    const kysely = open(db.name, await db.open());
    const store = new KyselyVisitStore({ db: kysely });
    const visit = newVisit({ identity: identityOf('zoe'), userAgent: 'telling', sessionData: bytes('secret') });
    const expectSilent = async (work: Promise<unknown>, said: RegExp): Promise<void> => {
      const error = await work.then(
        () => undefined,
        (caught: unknown) => caught,
      );
      expect(String(error)).toMatch(said);
      const shown = inspect(error, { depth: 9, showHidden: true });
      for (const value of [visit.keyHash, 'telling', Buffer.from('secret').toString('hex')])
        expect(shown).not.toContain(value);
    };
    // A statement by itself, a transaction, and a row that a constraint refuses: PostgreSQL shows it.
    await expectSilent(store.create([{ ...visit, identity: null }]), /visit/);
    await expectSilent(store.create([visit]), /visit/);
    if (db.name !== 'postgres') return;
    await createVisitTables(kysely);
    await sql`ALTER TABLE visit ADD CONSTRAINT calm CHECK (user_agent <> 'telling')`.execute(kysely);
    await expectSilent(store.create([visit]), /calm/);
  });

  test('uses the tables of TypeORM, and TypeORM uses those of its migration', async () => {
    for (const isOurs of [true, false]) {
      const database = await db.open();
      const kysely = open(db.name, database);
      if (isOurs) await createVisitTables(kysely);
      const dataSource = await openMigrated(database.options);
      onTestFinished(() => dataSource.destroy());
      const [one, other] = [new KyselyVisitStore({ db: kysely }), new TypeOrmVisitStore(dataSource)];
      await one.check();
      await other.check();
      const visits = [
        newVisit({ identity: identityOf('Zoë'), userAgent: `it's \\ "quoted" 🦊`, permanent: true }),
        newVisit(),
      ];
      await one.create([visits[0]!]);
      await other.create([visits[1]!]);
      expect(await other.save([saveOf(visits[0]!, { data: bytes('x') })])).toEqual([{ outcome: 'saved', version: 1 }]);
      const ids = visits.map(({ id }) => id);
      expect(await one.find(ids)).toEqual(await other.find(ids));
      expect(await one.find(ids)).toMatchObject([
        { ...visits[0], sessionData: Buffer.from('x'), sessionVersion: 1 },
        visits[1],
      ]);
    }
  });

  test('names the missing table or column; its migration runs twice, and can be reverted', async () => {
    const kysely = open(db.name, await db.open());
    const checked = (): Promise<unknown> =>
      new KyselyVisitStore({ db: kysely }).check().catch((error: unknown) => error);
    expect(await checked()).toBeInstanceOf(VisitSchemaError);
    expect(String(await checked())).toMatch(/visit.*createVisitTables/);
    await createVisitTables(kysely);
    await createVisitTables(kysely);
    expect(await checked()).toBeUndefined();
    await kysely.schema.alterTable('visit').dropColumn('lock_owner').execute();
    expect(String(await checked())).toMatch(/lock_owner.*createVisitTables/);
    await dropVisitTables(kysely);
    expect(await kysely.introspection.getTables()).toEqual([]);
  });

  test('refuses anything that is not an instance, and a transaction', async () => {
    const kysely = open(db.name, await db.open());
    expect(() => new KyselyVisitStore({ db: {} as never })).toThrow(VisitOptionError);
    const old = new Proxy(kysely, {
      get: (target, name) => (name === 'executeQuery' ? undefined : (Reflect.get(target, name) as unknown)),
    });
    expect(() => new KyselyVisitStore({ db: old })).toThrow(/kysely is too old.*executeQuery/);
    expect(() => new KyselyVisitStore({ db: kysely, connections: 0 })).toThrow('option "connections"');
    expect(() => new KyselyVisitStore({ db: kysely, dialect: 'oracle' as never })).toThrow('option "dialect"');
    await kysely.transaction().execute(async (transaction) => {
      expect(() => new KyselyVisitStore({ db: transaction })).toThrow('not a transaction');
    });
  });
});
