import { TypeOrmVisitStore, visitEntities, visitMigrations } from 'nest-visit/typeorm';
import { DataSource } from 'typeorm';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { expect, onTestFinished, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';

const TABLES = ['visit', 'visit_identity', 'visit_revocation'];

describeDatabases('B79: a migration whose process was killed', (db) => {
  test.each([0, 1, 2, 3])('is completed at the next startup, after %i tables', async (made) => {
    const { options } = await db.open();
    const dataSource = new DataSource({ ...options, entities: visitEntities, migrations: visitMigrations });
    await dataSource.initialize();
    try {
      await dataSource.runMigrations();
      for (const table of TABLES.slice(made).toReversed()) await dataSource.query(`DROP TABLE ${table}`);
      await dataSource.query('DELETE FROM migrations');
      expect(await dataSource.runMigrations()).toHaveLength(1);
      await expect(new TypeOrmVisitStore(dataSource).check()).resolves.toBeUndefined();
    } finally {
      await dataSource.destroy();
    }
  });
});

describeDatabases(
  'B79: data sources of applications',
  (db) => {
    test.each(['all', 'each'] as const)(
      'all succeed if they migrate at the same time, after TypeORM has migrated before: %s',
      async (transaction) => {
        const { options } = await db.open();
        const sources = Array.from(
          { length: 4 },
          () => new DataSource({ ...options, entities: visitEntities, migrations: visitMigrations }),
        );
        await Promise.all(sources.map((one) => one.initialize()));
        onTestFinished(async () => void (await Promise.all(sources.map((one) => one.destroy()))));
        const [first] = sources;
        await first!.runMigrations();
        await first!.undoLastMigration();
        await Promise.all(sources.map((one) => one.runMigrations({ transaction })));
        await expect(new TypeOrmVisitStore(first!).check()).resolves.toBeUndefined();
        // What each has noted is undone by one.
        await first!.undoLastMigration();
        expect(await first!.query('SELECT name FROM migrations')).toEqual([]);
      },
    );
  },
  ['mariadb', 'postgres'],
);

describeDatabases(
  'B79: tables that several processes create at the same time',
  (db) => {
    test.each([
      { migrationsRun: true },
      { migrationsRun: true, migrationsTransactionMode: 'each' },
      { migrationsRun: true, migrationsTransactionMode: 'none', poolSize: 1 },
      { synchronize: true },
    ])('are created by one, and the others wait: %o', async (how) => {
      const { options } = await db.open();
      // The union of all drivers' options is lost when an object of any of them is spread.
      const opened = await Promise.allSettled(
        Array.from({ length: 5 }, () => openTypeOrmVisitStore({ ...options, ...how } as never)),
      );
      for (const one of opened) if (one.status === 'fulfilled') onTestFinished(() => one.value.close());
      expect(opened.flatMap((one) => (one.status === 'rejected' ? [String(one.reason)] : []))).toEqual([]);
      const [first] = opened as PromiseFulfilledResult<TypeOrmVisitStore>[];
      await expect(first!.value.check()).resolves.toBeUndefined();
      if (how.migrationsRun) expect(await first!.value.dataSource.query('SELECT name FROM migrations')).toHaveLength(1);
    });
  },
  ['mariadb', 'postgres'],
);
