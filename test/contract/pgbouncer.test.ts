import { VisitServerSettingError } from 'nest-visit';
import { TypeOrmVisitStore, visitEntities } from 'nest-visit/typeorm';
import { describeVisitStore, type VisitStoreFixture } from 'nest-visit/testing';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { newVisit } from '../../lib/testing/samples.js';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { describeUnlessMissing, postgresUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { findPgBouncer, startPgBouncer, type TestServer } from '../support/servers.mjs';
import { endAll } from '../../lib/testing/many.js';

const NEVER = 8_640_000_000_000_000;
const all = { atomic: true, revocable: true, shared: true, durable: true };

const missing = [
  ...(postgresUrl === undefined ? ['PostgreSQL (VISIT_TEST_POSTGRES_URL)'] : []),
  ...(findPgBouncer() ? [] : ['PgBouncer, installed']),
];

describeUnlessMissing(missing, 'PgBouncer', () => {
  let database: OpenDatabase;
  const poolers: TestServer[] = [];
  beforeAll(async () => {
    database = await openDatabase('postgres');
    // Past the pooler.
    await (await openMigrated(database.options)).destroy();
  });
  afterAll(async () => {
    await Promise.all(poolers.map((one) => one.stop()));
    await database?.drop();
  });

  /** The options of a data source that goes through a pooler. */
  async function pooled(mode: Parameters<typeof startPgBouncer>[1]): Promise<DataSourceOptions> {
    const { url } = database.options as { url: string };
    const pooler = await startPgBouncer(url, mode);
    poolers.push(pooler);
    return { ...database.options, url: pooler.url } as DataSourceOptions;
  }

  // By session it is transparent, and the same suite runs without it.
  describe('in transaction mode', () => {
    let fixture: VisitStoreFixture;
    beforeAll(async () => {
      const options = await pooled('transaction');
      const store = await openTypeOrmVisitStore(options);
      await store.check();
      fixture = { store, second: await openTypeOrmVisitStore(options), reopen: () => openTypeOrmVisitStore(options) };
    });
    afterAll(async () => {
      await fixture?.store.close();
      await fixture?.second?.close();
    });
    const emptied = async (): Promise<VisitStoreFixture> => {
      await endAll(fixture.store, { reason: 'test', at: 0 });
      await expungeAll(fixture, { before: NEVER, limit: 10_000 });
      return fixture;
    };
    describeVisitStore('PgBouncer in transaction mode', emptied, { runner: { describe, test }, capabilities: all });

    test('B80: many concurrent calls are served, even on connections where statements are not prepared', async () => {
      const { store, second } = fixture as { store: TypeOrmVisitStore; second: TypeOrmVisitStore };
      const visits = Array.from({ length: 30 }, () => newVisit());
      await store.create(visits);
      const rounds = Array.from({ length: 10 }, () =>
        visits.flatMap(({ id }) => [store, second].map((one) => one.find([id]))),
      );
      for (const round of rounds) for (const [found] of await Promise.all(round)) expect(found).not.toBeNull();
    });
  });

  test('B74: in statement mode, there are no transactions, and startup is refused, naming the setting', async () => {
    const dataSource = new DataSource({ ...(await pooled('statement')), entities: visitEntities });
    await dataSource.initialize();
    onTestFinished(() => dataSource.destroy());
    const error = await new TypeOrmVisitStore(dataSource).check().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(VisitServerSettingError);
    const { settings } = error as VisitServerSettingError;
    expect(settings).toMatchObject([{ name: 'pool_mode', value: 'statement' }]);
  });
});
