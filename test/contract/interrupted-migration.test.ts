import { TypeOrmVisitStore, visitEntities, visitMigrations } from 'nest-visit';
import { DataSource } from 'typeorm';
import { expect, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';

const TABLES = ['visit', 'visit_identity', 'visit_revocation'];

describeDatabases('B79: a migration whose process died in between', (db) => {
  test.each([0, 1, 2, 3])('is finished by the next start, after %i tables', async (made) => {
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
