import { TypeOrmVisitStore, visitEntities } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listAll } from '../../lib/testing/many.js';
import { identityOf, newVisit, NOW, saveOf } from '../../lib/testing/samples.js';
import { describeDatabases } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';

describeDatabases(
  'A data source with a replica',
  (db) => {
    let dataSource: DataSource;
    beforeAll(async () => {
      const { options: primary } = await db.open();
      await (await openMigrated(primary)).destroy();
      // One that lags behind, by everything: it has no tables.
      const { options: replica } = await db.open();
      const urlOf = (options: DataSourceOptions) => ({ url: (options as { url: string }).url });
      const replication = { master: urlOf(primary), slaves: [urlOf(replica)] };
      dataSource = await new DataSource({
        type: primary.type,
        replication,
        entities: visitEntities,
      } as DataSourceOptions).initialize();
    });
    afterAll(() => dataSource?.destroy());

    test('R65: all reads and writes use the primary', async () => {
      const store = new TypeOrmVisitStore(dataSource);
      await store.check();
      const visit = newVisit({ identity: identityOf('ann') });
      await store.create([visit]);
      expect((await store.find([visit.id]))[0]).toMatchObject({ identity: { userId: 'ann' } });
      expect(await store.save([saveOf(visit)])).toMatchObject([{ outcome: 'saved' }]);
      expect((await listAll(store, 'ann', NOW)).map(({ id }) => id)).toEqual([visit.id]);
    });
  },
  ['mariadb', 'postgres'],
);
