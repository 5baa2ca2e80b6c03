import { inspect } from 'node:util';
import { createConnection } from 'mysql2/promise';
import { VisitOptionError, VisitSchemaError, type VisitStore } from 'nest-visit';
import { DrizzleVisitStore, type DrizzleVisitDatabase } from 'nest-visit/drizzle';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { is } from 'drizzle-orm';
import { BaseSQLiteDatabase } from 'drizzle-orm/sqlite-core';
import { createClient } from '@libsql/client';
import { drizzle as drizzleLibsql } from 'drizzle-orm/libsql';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { endAll } from '../../lib/testing/many.js';
import { bytes, identityOf, newVisit, saveOf } from '../../lib/testing/samples.js';
import { ALL_DATABASES, databasesOfToday, describeDatabases, type DatabaseName } from '../support/databases.js';
import { createDrizzleTables, openDrizzle, visitTables, type TestDrizzle } from '../support/drizzle.js';
import { complaintsOf, StatementLog } from '../support/mysql-grammar.js';
import { openMigrated } from '../support/open-migrated.js';
import { isSoak } from '../support/soak.js';

const NEVER = 8_640_000_000_000_000;
const runner = { describe, test };
/** Its races are those of the databases, which the store of TypeORM runs more often. */
const rounds = isSoak ? 15 : 5;
const capabilities = { atomic: true, revocable: true, shared: true, durable: true };
/** As another process would be that was configured otherwise. */
const OTHERWISE = {
  mariadb: { timezone: '-09:30', supportBigNumbers: true, bigNumberStrings: true },
  postgres: { options: '-c timezone=Pacific/Marquesas -c default_transaction_isolation=serializable' },
  sqlite: {},
};

async function empty(store: VisitStore): Promise<void> {
  await endAll(store, { reason: 'test', at: 0 });
  await expungeAll({ store }, { before: NEVER, limit: 10_000 });
}

/** In SQLite one that lets others in between. */
async function singleConnection(
  name: DatabaseName,
  { url, database }: { url?: string; database?: string },
): Promise<[DrizzleVisitDatabase, () => Promise<void>]> {
  if (name === 'sqlite') {
    const client = createClient({ url: `file:${database!}` });
    return [drizzleLibsql(client) as never, async () => client.close()];
  }
  if (name === 'mariadb') {
    const connection = await createConnection(url!);
    return [drizzleMysql(connection), () => connection.end()];
  }
  const client = new Client(url);
  await client.connect();
  return [drizzlePg(client), () => client.end()];
}

/** What is thrown there; at once, where a transaction takes no promise. */
async function inTransaction(
  db: DrizzleVisitDatabase,
  work: (within: DrizzleVisitDatabase) => unknown,
): Promise<unknown> {
  const isSync = is(db, BaseSQLiteDatabase);
  const run = (within: DrizzleVisitDatabase): unknown => {
    work(within);
    return isSync ? undefined : Promise.resolve();
  };
  try {
    await (db as unknown as { transaction(work: typeof run): unknown }).transaction(
      isSync ? run : async (within) => run(within),
    );
    return undefined;
  } catch (error) {
    return error;
  }
}

describeDatabases('R65: Drizzle', (db) => {
  const { name } = db;
  const opened: TestDrizzle[] = [];
  const connect = (...given: Parameters<typeof openDrizzle>): TestDrizzle => {
    const one = openDrizzle(...given);
    opened.push(one);
    return one;
  };
  afterAll(() => Promise.all(opened.map((one) => one.close())));

  // TypeORM sends the same statements to all databases.
  if (databasesOfToday(0, ALL_DATABASES).includes(db.name))
    describe('alone, on its own tables', () => {
      const log = new StatementLog();
      let fixture: VisitStoreFixture;
      beforeAll(async () => {
        const database = await db.open();
        const own = connect(name, database, {}, name === 'mariadb' ? log : undefined);
        await createDrizzleTables(name, own, visitTables[name]());
        const reopen = () => new DrizzleVisitStore(connect(name, database, OTHERWISE[name]).db);
        fixture = { store: new DrizzleVisitStore(own.db), second: reopen(), reopen };
      });

      describeVisitStore(name, () => empty(fixture.store).then(() => fixture), { runner, rounds, capabilities });

      if (name === 'mariadb') {
        test("all statements of the store, including the check of the server, conform to MySQL's grammar", async () => {
          await fixture.store.check();
          // What makes the tables is Drizzle's.
          const sent = [...log.statements].filter((sql) => !/^CREATE (TABLE|INDEX)/.test(sql));
          expect(sent.length).toBeGreaterThan(30);
          expect(sent.flatMap((sql) => complaintsOf(sql).map((complaint) => `${complaint}: ${sql}`))).toEqual([]);
        });
      }
    });

  test('uses the tables of TypeORM, and TypeORM uses those that it defines', async () => {
    for (const isOurs of [true, false]) {
      const database = await db.open();
      const own = connect(name, database);
      if (isOurs) await createDrizzleTables(name, own, visitTables[name]());
      const dataSource = await openMigrated(database.options);
      onTestFinished(() => dataSource.destroy());
      const [one, other] = [new DrizzleVisitStore(own.db), new TypeOrmVisitStore(dataSource)];
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

  test('names the missing table or column', async () => {
    const own = connect(name, await db.open());
    const store = new DrizzleVisitStore(own.db);
    const checked = (): Promise<unknown> => store.check().catch((error: unknown) => error);
    expect(await checked()).toBeInstanceOf(VisitSchemaError);
    expect(String(await checked())).toMatch(/visit.*VisitTables\(\).*drizzle-kit migrate/);
    await createDrizzleTables(name, own, visitTables[name]());
    expect(await checked()).toBeUndefined();
    await own.execute('ALTER TABLE visit DROP COLUMN lock_owner');
    expect(String(await checked())).toMatch(/lock_owner.*drizzle-kit migrate/);
    const { visit, visitIdentity } = visitTables[name]();
    expect(() => new DrizzleVisitStore(own.db, { visit, visitIdentity, visitRevocation: visitIdentity })).toThrow(
      'visitRevocation.userHash',
    );
  });

  test('passes on errors of the driver, without the values of the statement', async () => {
    const own = connect(name, await db.open());
    const visit = newVisit();
    const error = await new DrizzleVisitStore(own.db).create([visit]).catch((caught: unknown) => caught);
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(visit.keyHash);
    expect(String(error)).toContain('visit');
  });

  test('refuses a single connection, a transaction, and anything that is not a Drizzle database', async () => {
    const database = await db.open();
    const [single, end] = await singleConnection(name, database.options as { url?: string; database?: string });
    onTestFinished(end);
    expect(() => new DrizzleVisitStore(single)).toThrow(VisitOptionError);
    expect(() => new DrizzleVisitStore(single)).toThrow(
      name === 'sqlite' ? 'a synchronous driver' : 'pass a pool to `drizzle()`',
    );
    const refusal = await inTransaction(connect(name, database).db, (within) => new DrizzleVisitStore(within));
    expect(refusal).toBeInstanceOf(VisitOptionError);
    expect(String(refusal)).toContain('not a transaction');
    if (name === 'sqlite') {
      const old = Object.assign(Object.create(connect(name, database).db as object) as DrizzleVisitDatabase, {
        $client: undefined,
      });
      expect(() => new DrizzleVisitStore(old)).toThrow('drizzle-orm is older than');
    }
    expect(() => new DrizzleVisitStore({} as never)).toThrow('that `drizzle()` returns');
  });
});
