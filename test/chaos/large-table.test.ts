import { randomBytes } from 'node:crypto';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions, type Logger } from 'typeorm';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type * as Entities from '../../lib/store/typeorm/entities.js';
import type * as Migrations from '../../lib/store/typeorm/migrations/index.js';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { newVisit, NOW, saveOf, DAY } from '../../lib/testing/samples.js';
import { describeDatabases, type DatabaseName } from '../support/databases.js';
import { buildNextVersion, NEXT_MIGRATION, type NextVersion } from '../support/next-version.js';
import { openMigrated } from '../support/open-migrated.js';
import { isSoak } from '../support/soak.js';

// The migration of the next version, and the clean-up, on a large table in use. The tests check the statements that the
// server received, whether it has rebuilt the table, and writes that began and ended while an index was created. No
// time is asserted.

const ROWS = isSoak ? 1_000_000 : 2_000;

type Server = Exclude<DatabaseName, 'sqlite'>;

/** Creates rows on the server. */
const FILL: Readonly<Record<Server, string>> = {
  mariadb:
    `SELECT MD5(seq), REPEAT(MD5(seq), 2), ${NOW}, ${NOW}, ${NOW}, ${NOW} + seq, 0, 0, REPEAT('x', 100) FROM ` +
    `seq_1_to_${ROWS}`,
  postgres:
    `SELECT md5(i::text), repeat(md5(i::text), 2), ${NOW}, ${NOW}, ${NOW}, ${NOW} + i, false, 0, ` +
    `convert_to(repeat('x', 100), 'UTF8')` +
    ` FROM generate_series(1, ${ROWS}) i`,
};
const COLUMNS = 'id, key_hash, key_changed, created, accessed, expiry, permanent, session_version, session_data';

/** The number of the table's file, which changes if the table is rebuilt. */
const FILE: Readonly<Record<Server, string>> = {
  mariadb:
    "SELECT TABLE_ID AS file FROM information_schema.INNODB_SYS_TABLES WHERE NAME = CONCAT(DATABASE(), '/visit')",
  postgres: "SELECT pg_relation_filenode('visit') AS file",
};

/** Whether an index of this database is being created. */
const BUILDING: Readonly<Record<Server, string>> = {
  mariadb:
    'SELECT COUNT(*) AS many FROM information_schema.PROCESSLIST ' +
    "WHERE DB = DATABASE() AND INFO LIKE 'ALTER TABLE % ADD INDEX %'",
  postgres: 'SELECT COUNT(*) AS many FROM pg_stat_progress_create_index WHERE datname = current_database()',
};

/** The part of the statement that makes the server do it without blocking. */
const STATEMENTS: Readonly<Record<Server, readonly RegExp[]>> = {
  mariadb: [/ADD COLUMN `nickname` .* NULL, ALGORITHM=INSTANT$/, /ADD INDEX .*, ALGORITHM=INPLACE, LOCK=NONE$/],
  postgres: [/ADD COLUMN IF NOT EXISTS "nickname" varchar\(40\) NULL$/, /^CREATE INDEX CONCURRENTLY /],
};

/** The statements that were sent, and those that failed. */
class Watch implements Partial<Logger> {
  readonly sent: string[] = [];
  readonly failed: string[] = [];

  logQuery(sql: string): void {
    this.sent.push(sql);
  }

  logQueryError(_error: string | Error, sql: string): void {
    this.failed.push(sql);
  }

  logQuerySlow(): void {}
  logSchemaBuild(): void {}
  logMigration(): void {}
  log(): void {}
}

describeDatabases(
  'A migration of a large table in use',
  (db) => {
    const server = db.name as Server;
    let next: NextVersion;
    beforeAll(() => void (next = buildNextVersion()));
    afterAll(() => next?.remove());

    const open = async (): Promise<{ options: DataSourceOptions; used: DataSource; store: TypeOrmVisitStore }> => {
      const { options } = await db.open();
      const used = await openMigrated(options);
      onTestFinished(() => used.destroy());
      return { options, used, store: new TypeOrmVisitStore(used) };
    };
    const migrating = async (options: DataSourceOptions, watch: Watch): Promise<DataSource> => {
      const { visitEntities } = await next.load<typeof Entities>('typeorm/entities.js');
      const { visitMigrations } = await next.load<typeof Migrations>('typeorm/migrations/index.js');
      const all = { ...options, entities: visitEntities, migrations: visitMigrations, logger: watch };
      const dataSource = await new DataSource(all).initialize();
      onTestFinished(() => dataSource.destroy());
      return dataSource;
    };
    const numberOf = async (dataSource: DataSource, sql: string): Promise<number> => {
      const [row] = (await dataSource.query(sql)) as Record<string, unknown>[];
      return Number(Object.values(row!)[0]);
    };

    test(`of ${ROWS} visits rebuilds nothing and does not block writes, in both directions`, async () => {
      const { options, used, store } = await open();
      await used.query(`INSERT INTO visit (${COLUMNS}) ${FILL[server]}`);
      const visit = newVisit({ expiry: NOW + DAY });
      await store.create([visit]);
      const file = await numberOf(used, FILE[server]);
      const watch = new Watch();
      const dataSource = await migrating(options, watch);

      const state = { isOver: false };
      let beside = 0;
      const traffic = (async () => {
        for (let version = 0; !state.isOver; version++) {
          const before = await numberOf(used, BUILDING[server]);
          const data = randomBytes(10);
          expect(await store.save([saveOf(visit, { version, data })])).toEqual([
            { outcome: 'saved', version: version + 1 },
          ]);
          await store.create([newVisit()]);
          if (before > 0 && (await numberOf(used, BUILDING[server])) > 0) beside++;
        }
      })();
      const began = performance.now();
      expect(await dataSource.runMigrations()).toMatchObject([{ name: NEXT_MIGRATION }]);
      const took = Math.round(performance.now() - began);
      state.isOver = true;
      await traffic;

      for (const statement of STATEMENTS[server])
        expect(watch.sent.filter((sql) => statement.test(sql))).toHaveLength(1);
      expect(await numberOf(used, FILE[server])).toBe(file);
      expect(await numberOf(used, 'SELECT COUNT(*) AS many FROM visit WHERE nickname IS NOT NULL')).toBe(0);
      if (isSoak) {
        // With so few rows, an index is created immediately.
        expect(beside).toBeGreaterThan(0);
        console.log(`${server}: ${ROWS} visits migrated in ${took} ms, with ${beside} writes while the index was made`);
      }
      await dataSource.undoLastMigration();
      expect(await store.find([visit.id])).toMatchObject([{ id: visit.id }]);
    });

    // Waits for a deadline of the library, which is one second.
    if (isSoak)
      test('does not block other statements while it waits for a long transaction', async () => {
        const { options, used, store } = await open();
        const visit = newVisit({ expiry: NOW + DAY });
        await store.create([visit]);
        const long = used.createQueryRunner();
        await long.startTransaction();
        await long.query('SELECT COUNT(*) FROM visit');
        const watch = new Watch();
        const dataSource = await migrating(options, watch);
        const migration = dataSource.runMigrations();
        await expect.poll(() => watch.failed.filter((sql) => sql.includes('ADD COLUMN')).length).toBeGreaterThan(1);
        expect(await store.save([saveOf(visit, { version: 0, data: randomBytes(10) })])).toMatchObject([
          { outcome: 'saved' },
        ]);
        await long.commitTransaction();
        await long.release();
        expect(await migration).toMatchObject([{ name: NEXT_MIGRATION }]);
      });
  },
  ['mariadb', 'postgres'],
);

describeDatabases(
  'The clean-up of a large table in use',
  (db) => {
    test(`B19: ${ROWS} stale visits are expunged in batches, and no concurrent write fails or is lost`, async () => {
      const { options } = await db.open();
      const dataSource = await openMigrated(options);
      onTestFinished(() => dataSource.destroy());
      const store = new TypeOrmVisitStore(dataSource);
      await dataSource.query(`INSERT INTO visit (${COLUMNS}) ${FILL[db.name as Server]}`);
      const visits = Array.from({ length: 20 }, () => newVisit({ expiry: NOW + DAY }));
      await store.create(visits);

      const state = { isOver: false };
      const saved = visits.map(() => 0);
      const traffic = Promise.all(
        visits.map(async (visit, index) => {
          while (!state.isOver) {
            const version = saved[index]!;
            expect(await store.save([saveOf(visit, { version, data: randomBytes(10) })])).toEqual([
              { outcome: 'saved', version: version + 1 },
            ]);
            saved[index]!++;
            await store.touch([{ id: visit.id, accessed: NOW + version, expiry: NOW + DAY + version }]);
          }
        }),
      );
      const began = performance.now();
      try {
        const batches = await expungeAll({ store }, { before: NOW + ROWS + 1, limit: 250 });
        expect(batches.reduce((sum, batch) => sum + batch.visits, 0)).toBe(ROWS);
        expect(Math.max(...batches.map((batch) => batch.visits))).toBeLessThanOrEqual(250);
      } finally {
        state.isOver = true;
      }
      const took = Math.round(performance.now() - began);
      await traffic;

      const left = await store.find(visits.map(({ id }) => id));
      expect(left.map((visit) => visit?.sessionVersion)).toEqual(saved);
      expect(await dataSource.query('SELECT COUNT(*) AS many FROM visit')).toMatchObject([
        { many: expect.toSatisfy((many) => Number(many) === visits.length) as unknown },
      ]);
      // There was traffic the whole time.
      expect(Math.min(...saved)).toBeGreaterThan(0);
      if (isSoak) {
        const sum = saved.reduce((all, one) => all + one, 0);
        console.log(`${db.name}: ${ROWS} visits expunged in ${took} ms, with ${sum} saves beside it`);
      }
    });
  },
  ['mariadb', 'postgres'],
);
