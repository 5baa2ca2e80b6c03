import { createHash, randomBytes } from 'node:crypto';
import {
  Column,
  DataSource,
  DefaultNamingStrategy,
  Entity,
  LessThan,
  MoreThan,
  type DataSourceOptions,
  type Logger,
} from 'typeorm';
import { afterEach, describe, expect, test } from 'vitest';
import { VisitOptionError, VisitSchemaError } from '../../lib/errors/visit.error.js';
import { visitEntities } from '../../lib/store/typeorm/entities.js';
import { visitMigrations } from '../../lib/store/typeorm/migrations/index.js';
import { openTypeOrmVisitStore } from '../../lib/store/typeorm/open-typeorm-visit-store.js';
import { TypeOrmVisitStore } from '../../lib/store/typeorm/typeorm-visit.store.js';
import { VisitIdentity } from '../../lib/store/typeorm/visit-identity.entity.js';
import { VisitRevocation } from '../../lib/store/typeorm/visit-revocation.entity.js';
import { Visit } from '../../lib/store/typeorm/visit.entity.js';
import type { VisitRecord, Rekey } from '../../lib/store/visit.store.js';
import { countStale, countUnwiped, expungeAll } from '../../lib/testing/cleanup.js';
import { describeDatabases } from '../support/databases.js';
import { untilOneWaits } from '../support/lock-waits.js';
import { endAll, endAllOf, listAll } from '../../lib/testing/many.js';
import { created } from '../../lib/store/visit.record.js';

const NOW = Date.UTC(2026, 5, 1);
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

@Entity('guest_visit')
class GuestVisit extends Visit {
  @Column({ type: 'varchar', length: 40, nullable: true })
  tenant!: string | null;

  @Column({ type: 'int', default: 7 })
  luck!: number;
}

@Entity('guest_identity')
class GuestIdentity extends VisitIdentity {
  @Column({ type: 'varchar', length: 40, nullable: true })
  device!: string | null;
}

class LoudNames extends DefaultNamingStrategy {
  override tableName(targetName: string, given: string | undefined): string {
    return `T_${(given ?? targetName).toUpperCase()}`;
  }

  override columnName(propertyName: string, given: string | undefined): string {
    return `C_${(given ?? propertyName).toUpperCase()}`;
  }
}

const opened: DataSource[] = [];
afterEach(async () => {
  for (const dataSource of opened.splice(0)) if (dataSource.isInitialized) await dataSource.destroy();
});

async function connect(options: DataSourceOptions, more: Partial<DataSourceOptions> = {}): Promise<DataSource> {
  const dataSource = new DataSource({
    entities: visitEntities,
    migrations: visitMigrations,
    ...options,
    ...more,
  } as DataSourceOptions);
  opened.push(dataSource);
  return dataSource.initialize();
}

/** What TypeORM would change to make the tables what the entities say. */
async function differences(dataSource: DataSource): Promise<string[]> {
  const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
  return upQueries.map(({ query }) => query);
}

/** What the database refused. */
function collectFailures(): { failures: string[]; logger: Logger } {
  const failures: string[] = [];
  const ignore = (): void => {};
  const logQueryError = (error: string | Error): void => void failures.push(String(error));
  return {
    failures,
    logger: {
      log: ignore,
      logMigration: ignore,
      logQuery: ignore,
      logQuerySlow: ignore,
      logSchemaBuild: ignore,
      logQueryError,
    },
  };
}

async function tablesOf(dataSource: DataSource): Promise<string[]> {
  const sql = {
    mariadb: 'SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()',
    postgres:
      'SELECT table_name AS name FROM information_schema.tables ' +
      "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
    'better-sqlite3': "SELECT name FROM sqlite_master WHERE type = 'table'",
  }[dataSource.options.type as 'mariadb'];
  const rows: { name: string }[] = await dataSource.query(sql);
  return rows.map(({ name }) => name).toSorted();
}

/** Every kind of statement once, so that each name is used. */
async function walkThrough(store: TypeOrmVisitStore): Promise<void> {
  await store.check();
  const visit = newVisit({ identity: { userId: 'a', created: NOW, authenticatedAt: NOW } });
  const other = newVisit({ expiry: NOW - 1, sessionData: Buffer.from('x') });
  await store.create([visit, other]);
  const { id, keyHash } = visit;
  expect(await store.save([{ id, keyHash, now: NOW, version: 0, data: Buffer.from('data') }])).toEqual([
    { outcome: 'saved', version: 1 },
  ]);
  await store.touch([{ id, accessed: NOW + 1, expiry: NOW + 2 * DAY }]);
  const login: Rekey = {
    id,
    keyHash,
    now: NOW,
    newKeyHash: newHash(),
    previousKeyUntil: null,
    permanent: true,
    expiry: NOW + 3 * DAY,
    identity: { userId: 'b', created: NOW, authenticatedAt: NOW },
  };
  expect(await store.rekey([login])).toEqual([{ outcome: 'done' }]);
  expect(await store.find([id])).toMatchObject([
    { keyHash: login.newKeyHash, expiry: NOW + 3 * DAY, identity: { userId: 'b' } },
  ]);
  expect(await listAll(store, 'b', NOW)).toHaveLength(1);
  expect(await countUnwiped({ store }, NOW)).toBe(1);
  expect(await store.wipe({ before: NOW, limit: 10 })).toMatchObject({ visits: 1 });
  expect(await endAllOf(store, 'b', { reason: 'admin', at: NOW })).toEqual([id]);
  expect(await endAll(store, { reason: 'admin', at: NOW })).toHaveLength(1);
  expect(await countStale({ store }, NOW + 1)).toEqual({ visits: 2, identities: 1 });
  expect(await store.expunge({ before: NOW + 1, limit: 10 })).toMatchObject({ visits: 2, identities: 1 });
}

describeDatabases('Entities and migrations', (db) => {
  test('R71: synchronize changes nothing when it runs again', async () => {
    const { options } = await db.open();
    const first = await connect(options, { synchronize: true });
    expect(await differences(first)).toEqual([]);
    await walkThrough(new TypeOrmVisitStore(first));
    await first.destroy();
    const second = await connect(options);
    expect(await differences(second)).toEqual([]);
  });

  test('R71: migrations create what the entities describe, and revert it', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options);
    expect(await differences(dataSource)).not.toEqual([]);
    await dataSource.runMigrations();
    expect(await differences(dataSource)).toEqual([]);
    expect(await dataSource.runMigrations()).toEqual([]);
    await walkThrough(new TypeOrmVisitStore(dataSource));
    await dataSource.undoLastMigration();
    expect((await tablesOf(dataSource)).filter((name) => name.startsWith('visit'))).toEqual([]);
  });

  test('R71: entities can be extended, with own columns and own table names', async () => {
    const { options } = await db.open();
    const entities = [GuestVisit, GuestIdentity, VisitRevocation];
    const dataSource = await connect(options, { entities, migrationsRun: true });
    // The migration brings the columns of the library; those of the application are its own to add.
    expect((await differences(dataSource)).join('\n')).toMatch(/tenant/);
    await dataSource.synchronize();
    expect(await differences(dataSource)).toEqual([]);
    expect((await tablesOf(dataSource)).filter((name) => /visit|identity/.test(name))).toEqual([
      'guest_identity',
      'guest_visit',
      'visit_revocation',
    ]);
    const store = new TypeOrmVisitStore(dataSource);
    await walkThrough(store);

    const visit = newVisit({
      sessionData: Buffer.from('data'),
      identity: { userId: 'a', created: NOW, authenticatedAt: NOW },
    });
    await store.create([visit]);
    const visits = dataSource.getRepository(GuestVisit);
    await visits.update(visit.id, { tenant: 'acme' });
    await dataSource.getRepository(GuestIdentity).update(visit.id, { device: 'phone' });
    await store.rekey([{ ...rekeyOf(visit), identity: { userId: 'b', created: NOW, authenticatedAt: NOW } }]);
    expect(await visits.findOneByOrFail({ tenant: 'acme' })).toMatchObject({
      id: visit.id,
      luck: 7,
      sessionData: Buffer.from('data'),
    });
    expect(await dataSource.getRepository(GuestIdentity).findOneByOrFail({ userId: 'b' })).toMatchObject({
      device: 'phone',
    });
    await visits.delete(visit.id);
    expect(await dataSource.getRepository(GuestIdentity).count()).toBe(0);
  });

  test('R71: one entity can be extended alone; of an entity and its subclass, the subclass is used', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options, {
      entities: [Visit, GuestVisit, VisitIdentity, VisitRevocation],
      synchronize: true,
    });
    expect(await differences(dataSource)).toEqual([]);
    const store = new TypeOrmVisitStore(dataSource);
    await walkThrough(store);
    const { id } = newVisit();
    await store.create([newVisit({ id, identity: { userId: 'a', created: NOW, authenticatedAt: NOW } })]);
    expect(await dataSource.getRepository(GuestVisit).countBy({ id })).toBe(1);
    expect(await dataSource.getRepository(Visit).count()).toBe(0);
  });

  test('R71: a naming strategy and a prefix are respected', async () => {
    const { options } = await db.open();
    const more = { namingStrategy: new LoudNames(), entityPrefix: 'app_', migrationsRun: true };
    const dataSource = await connect(options, more);
    expect(await tablesOf(dataSource)).toEqual(expect.arrayContaining(['app_T_VISIT', 'app_T_VISIT_IDENTITY']));
    expect(await differences(dataSource)).toEqual([]);
    await walkThrough(new TypeOrmVisitStore(dataSource));
  });

  test('R71: migrations that run without the entities, as from the command line, use the default names', async () => {
    const { options } = await db.open();
    const migrating = await connect(options, { entities: [], migrationsRun: true, entityPrefix: 'app_' });
    expect(await tablesOf(migrating)).toEqual(expect.arrayContaining(['app_visit', 'app_visit_identity']));
    await migrating.destroy();
    const dataSource = await connect(options, { entityPrefix: 'app_' });
    expect(await differences(dataSource)).toEqual([]);
    await walkThrough(new TypeOrmVisitStore(dataSource));
  });

  test('repositories read and query dates, bytes and booleans', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options, { migrationsRun: true });
    const visit = newVisit({
      permanent: true,
      sessionData: Uint8Array.of(0, 255, 128),
      identity: { userId: '🦊', created: NOW, authenticatedAt: NOW },
    });
    await new TypeOrmVisitStore(dataSource).create([visit, newVisit({ expiry: NOW - DAY })]);
    const found = await dataSource.getRepository(Visit).findBy({ expiry: MoreThan(new Date(NOW)) });
    expect(found).toEqual([
      Object.assign(new Visit(), {
        id: visit.id,
        keyHash: visit.keyHash,
        previousKeyHash: null,
        previousKeyUntil: null,
        keyChanged: new Date(visit.created),
        created: new Date(visit.created),
        accessed: new Date(visit.accessed),
        expiry: new Date(visit.expiry),
        absoluteExpiry: null,
        endedAt: null,
        endReason: null,
        permanent: true,
        remoteAddress: null,
        userAgent: null,
        sessionData: Buffer.of(0, 255, 128),
        sessionVersion: 0,
        lockOwner: null,
        lockedUntil: null,
      }),
    ]);
    expect(Buffer.isBuffer(found[0]!.sessionData)).toBe(true);
    expect(await dataSource.getRepository(Visit).countBy({ expiry: LessThan(new Date(NOW)) })).toBe(1);
    expect(await dataSource.getRepository(VisitIdentity).findOneByOrFail({ userId: '🦊' })).toMatchObject({
      authenticatedAt: new Date(NOW),
    });
  });

  test('user ids are compared byte by byte, with any collation of the column', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options, { migrationsRun: true });
    if (db.name === 'mariadb') {
      await dataSource.query(
        'ALTER TABLE visit_identity MODIFY user_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci ' +
          'NOT NULL',
      );
    } else if (db.name === 'postgres') {
      await dataSource.query(
        "CREATE COLLATION lax (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
      );
      await dataSource.query('ALTER TABLE visit_identity ALTER user_id TYPE varchar(255) COLLATE lax');
    } else {
      await dataSource.query('DROP TABLE visit_identity');
      await dataSource.query(
        'CREATE TABLE visit_identity (visit_id TEXT PRIMARY KEY, user_id TEXT COLLATE NOCASE, created BIGINT, ' +
          'authenticated_at BIGINT)',
      );
    }
    const store = new TypeOrmVisitStore(dataSource);
    const visits = ['a', 'A', 'á'].map((userId) =>
      newVisit({ identity: { userId, created: NOW, authenticatedAt: NOW } }),
    );
    await store.create(visits);
    for (const { id, identity } of visits) {
      expect((await listAll(store, identity!.userId, NOW)).map((visit) => visit.id)).toEqual([id]);
    }
    expect(await endAllOf(store, 'A', { reason: 'admin', at: NOW })).toEqual([visits[1]!.id]);
  });

  test('B28: the tables contain nothing that a browser has', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options, { migrationsRun: true });
    const store = new TypeOrmVisitStore(dataSource);
    const [secret, renewed] = [randomBytes(32), randomBytes(32)];
    const visit = newVisit({ keyHash: sha256(secret), identity: { userId: 'a', created: NOW, authenticatedAt: NOW } });
    await store.create([visit]);
    await store.rekey([{ ...rekeyOf(visit), newKeyHash: sha256(renewed) }]);
    const rows = JSON.stringify([
      await dataSource.query('SELECT * FROM visit'),
      await dataSource.query('SELECT * FROM visit_identity'),
    ]);
    for (const key of [secret, renewed]) {
      expect(rows).toContain(sha256(key));
      for (const encoding of ['hex', 'base64', 'base64url'] as const)
        expect(rows).not.toContain(key.toString(encoding));
    }
  });

  describe('what is missing is named, with the remedy', () => {
    test('no tables', async () => {
      const { options } = await db.open();
      const store = await openTypeOrmVisitStore(options);
      opened.push(store.dataSource);
      const error = await store.check().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(VisitSchemaError);
      expect((error as Error).message).toMatch(
        /"visit" is missing.*visitMigrations.*runMigrations\(\).*migrationsRun: true/,
      );
      // No DDL by surprise.
      expect(await tablesOf(store.dataSource)).toEqual([]);
    });

    test('a table or a column', async () => {
      const { options } = await db.open();
      const dataSource = await connect(options, { migrationsRun: true });
      const store = new TypeOrmVisitStore(dataSource);
      await expect(store.check()).resolves.toBeUndefined();
      await dataSource.query('ALTER TABLE visit DROP COLUMN session_version');
      await expect(store.check()).rejects.toThrow(/"visit" is missing or lacks a column .*session_version/);
      await dataSource.query('DROP TABLE visit_identity');
      await dataSource.query('ALTER TABLE visit ADD session_version INT');
      await expect(store.check()).rejects.toThrow(/"visit_identity" is missing/);
      await expect(store.check()).rejects.toMatchObject({ code: 'VISIT_SCHEMA' });
    });

    test('an entity', async () => {
      const { options } = await db.open();
      const dataSource = await connect(options, { entities: [Visit] });
      await expect(new TypeOrmVisitStore(dataSource).check()).rejects.toThrow(
        /entity VisitIdentity: add `\.\.\.visitEntities` to its `entities`/,
      );
      const none = await connect(options, { entities: [] });
      await expect(new TypeOrmVisitStore(none).find(['x'])).rejects.toThrow(VisitOptionError);
    });

    test('the connection', async () => {
      const { options } = await db.open();
      const store = new TypeOrmVisitStore(new DataSource({ ...options, entities: visitEntities }));
      await expect(store.check()).rejects.toThrow(/not initialized: await `dataSource.initialize\(\)`/);
      await expect(store.check()).rejects.toThrow(VisitOptionError);
    });
  });

  describe('openTypeOrmVisitStore', () => {
    test('leaves a given data source open, and closes its own', async () => {
      const { options } = await db.open();
      const dataSource = await connect(options);
      const store = await openTypeOrmVisitStore(dataSource);
      expect(store.dataSource).toBe(dataSource);
      await store.close();
      expect(dataSource.isInitialized).toBe(true);
      const own = await openTypeOrmVisitStore(options);
      await own.close();
      expect(own.dataSource.isInitialized).toBe(false);
      await own.close();
    });

    test('adds entities and migrations to those of the options, but not beside a subclass', async () => {
      const { options } = await db.open();
      const entities = { GuestVisit };
      const store = await openTypeOrmVisitStore({
        ...options,
        entities,
        migrations: visitMigrations,
        migrationsRun: true,
      });
      opened.push(store.dataSource);
      expect(new Set(store.dataSource.entityMetadatas.map(({ target }) => target))).toEqual(
        new Set([GuestVisit, VisitIdentity, VisitRevocation]),
      );
      expect(store.dataSource.migrations).toHaveLength(1);
      expect(options).not.toHaveProperty('entities');
    });
  });

  test('B67: waits for conflicting transactions and retries, without blocking SQLite', async () => {
    const { options } = await db.open();
    const { failures, logger } = collectFailures();
    const dataSource = await connect(options, {
      migrationsRun: true,
      logger,
      ...(db.name === 'sqlite' ? { timeout: HOUR } : {}),
    });
    const store = new TypeOrmVisitStore(dataSource);
    const visits = Array.from({ length: 40 }, () => newVisit()).sort((a, b) => (a.id < b.id ? -1 : 1));
    await store.create(visits);
    const [first, last] = [visits[0]!, visits.at(-1)!];
    const later = NOW + 9 * DAY;
    const touches = [first, last].map(({ id }) => ({ id, accessed: later, expiry: later }));

    const others = await connect(options, { logger });
    const other = others.createQueryRunner();
    for (let ended = false; !ended;) {
      await other.query(db.name === 'sqlite' ? 'BEGIN IMMEDIATE' : 'BEGIN');
      // Much is at stake for the other one, so MariaDB lets it live. PostgreSQL ends the one that has waited for a
      // second, which is the store's if the rest comes in time. If not, once more.
      await other.query(`UPDATE visit SET accessed = accessed + 1 WHERE id > '${first.id}'`);
      // If this waited within SQLite, the other one could not go on before the hour is over.
      const touched = store.touch(touches);
      await untilOneWaits(others);
      const crossing = `UPDATE visit SET accessed = accessed + 1 WHERE id = '${first.id}'`;
      const crossed = db.name === 'sqlite' ? undefined : await other.query(crossing).catch((error: Error) => error);
      ended = !(crossed instanceof Error);
      await other.query(ended ? 'COMMIT' : 'ROLLBACK');
      await touched;
      if (crossed instanceof Error) expect(crossed.message).toMatch(/deadlock/);
    }
    await other.release();
    expect((await store.find([first.id, last.id])).map((visit) => visit?.expiry)).toEqual([later, later]);
    expect(failures.join()).toMatch(/deadlock|locked/i);
  });
});

describeDatabases('SQL of the store', (db) => {
  if (db.name === 'sqlite') {
    test('an open transaction of the application on the only connection is not ended', async () => {
      const { options } = await db.open();
      const dataSource = await connect(options, { migrationsRun: true });
      await dataSource.query('CREATE TABLE note (text TEXT)');
      const store = new TypeOrmVisitStore(dataSource);
      const visit = newVisit();
      await store.create([visit]);
      const notes = () => dataSource.query('SELECT text FROM note');
      await dataSource.transaction(async ({ queryRunner }) => {
        await queryRunner!.query("INSERT INTO note VALUES ('kept')");
        const identity = { userId: 'a', created: NOW, authenticatedAt: NOW };
        expect(await store.rekey([{ ...rekeyOf(visit), identity }])).toEqual([{ outcome: 'done' }]);
        expect(await store.rekey([{ ...rekeyOf(visit), identity: null }])).toEqual([
          { outcome: 'refused', reason: 'retired' },
        ]);
        await expect(store.create([visit, { ...visit, identity }])).rejects.toThrow('UNIQUE');
        expect(queryRunner!.isTransactionActive).toBe(true);
      });
      expect(await notes()).toEqual([{ text: 'kept' }]);
      await expect(
        dataSource.transaction(async ({ queryRunner }) => {
          await queryRunner!.query("INSERT INTO note VALUES ('undone')");
          await store.expunge({ before: NOW + 2 * DAY, limit: 10 });
          throw new Error('no');
        }),
      ).rejects.toThrow('no');
      expect(await notes()).toEqual([{ text: 'kept' }]);
    });
  }

  if (db.name !== 'sqlite') {
    test('B37: a visit that is extended while expunge waits for it is kept, and expunge continues', async () => {
      const { options } = await db.open();
      const store = new TypeOrmVisitStore(await connect(options, { migrationsRun: true }));
      const identity = { userId: 'a', created: NOW, authenticatedAt: NOW };
      // They go by the order of their ids.
      const revived = newVisit({ id: `0${newVisit({}).id.slice(1)}`, expiry: NOW - 2, identity });
      const stale = newVisit({ id: `f${newVisit({}).id.slice(1)}`, expiry: NOW - 1, identity });
      await store.create([revived, stale]);
      const others = await connect(options);
      const other = others.createQueryRunner();
      await other.startTransaction();
      await other.query(`UPDATE visit SET expiry = ${NOW + DAY} WHERE id = '${revived.id}'`);
      // It sees what is stored, so it chooses the visit that the other one is about to prolong.
      const expunged = expungeAll({ store }, { before: NOW, limit: 1 });
      await untilOneWaits(others);
      await other.commitTransaction();
      await other.release();
      expect(await expunged).toEqual([{ visits: 1, identities: 1 }]);
      const [kept, gone] = await store.find([revived.id, stale.id]);
      expect(kept).toMatchObject({ expiry: NOW + DAY, identity });
      expect(gone).toBeNull();
      expect(await expungeAll({ store }, { before: NOW, limit: 1 })).toEqual([]);
    });

    test('B36: expunge on several machines and concurrent traffic do not cause deadlocks', async () => {
      const { options } = await db.open();
      const { failures, logger } = collectFailures();
      const sources = [
        await connect(options, { migrationsRun: true }),
        await connect(options, { logger }),
        await connect(options, { logger }),
      ];
      const [maker, ...stores] = sources.map((dataSource) => new TypeOrmVisitStore(dataSource)) as [
        TypeOrmVisitStore,
        ...TypeOrmVisitStore[],
      ];
      const identity = { userId: 'a', created: NOW, authenticatedAt: NOW };
      const stale = Array.from({ length: 1_500 }, (_, index) =>
        newVisit({ expiry: NOW - 1 - (index % 7), ...(index % 2 ? { identity } : {}) }),
      );
      const living = Array.from({ length: 60 }, () => newVisit({ identity }));
      await maker.create([...stale, ...living]);
      const machines = { atWork: 4 };
      const traffic = async (store: TypeOrmVisitStore): Promise<void> => {
        for (let step = 1; machines.atWork > 0; step++) {
          await store.touch(living.map(({ id }) => ({ id, accessed: NOW + step, expiry: NOW + 2 * DAY + step })));
          const guests = [newVisit(), newVisit({ identity })];
          await store.create(guests);
          await store.rekey([{ ...rekeyOf(guests[0]!), identity }]);
          await store.end([guests[0]!.id], { reason: 'logout', at: NOW - 1 });
        }
      };
      const clean = async (store: TypeOrmVisitStore): Promise<void> => {
        await expungeAll({ store }, { before: NOW, limit: 60 });
        machines.atWork--;
      };
      await Promise.all([...stores, ...stores].flatMap((store) => [clean(store), traffic(store)]));
      // Statements that find their rows by another index than the primary one, or by none, or lock gaps, meet again and
      // again.
      expect(failures).toEqual([]);
      expect((await maker.find(living.map(({ id }) => id))).map((visit) => visit?.identity)).toEqual(
        living.map(() => identity),
      );
    });
  }

  if (db.name === 'postgres') {
    test('R71: a schema is respected', async () => {
      const { options } = await db.open();
      const plain = await connect(options);
      await plain.query('CREATE SCHEMA app');
      const dataSource = await connect(options, { schema: 'app', migrationsRun: true });
      expect(await differences(dataSource)).toEqual([]);
      expect(
        await plain.query(
          "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'app' ORDER BY 1",
        ),
      ).toEqual([{ name: 'migrations' }, { name: 'visit' }, { name: 'visit_identity' }, { name: 'visit_revocation' }]);
      await walkThrough(new TypeOrmVisitStore(dataSource));
      await dataSource.undoLastMigration();
      await expect(new TypeOrmVisitStore(dataSource).check()).rejects.toThrow(/"app.visit" is missing/);
    });
  }

  if (db.name === 'mariadb') {
    test('ids and hashes have a binary collation, and texts allow emoji, whatever the default', async () => {
      const { options } = await db.open();
      const dataSource = await connect(options);
      await dataSource.query(`ALTER DATABASE CHARACTER SET latin1`);
      for (const bring of [() => dataSource.runMigrations(), () => dataSource.synchronize(true)]) {
        await bring();
        const collations = async (table: string): Promise<Record<string, string>> => {
          const columns = (await dataSource.query(`SHOW FULL COLUMNS FROM ${table}`)) as {
            Field: string;
            Type: string;
            Collation: string;
          }[];
          return Object.fromEntries(
            columns.filter(({ Collation }) => Collation).map(({ Field, Collation }) => [Field, Collation]),
          );
        };
        expect(await collations('visit')).toEqual({
          id: 'ascii_bin',
          key_hash: 'ascii_bin',
          previous_key_hash: 'ascii_bin',
          lock_owner: 'ascii_bin',
          end_reason: expect.stringMatching(/^utf8mb4/),
          remote_address: expect.stringMatching(/^utf8mb4/),
          user_agent: expect.stringMatching(/^utf8mb4/),
        });
        expect(await collations('visit_identity')).toEqual({ visit_id: 'ascii_bin', user_id: 'utf8mb4_bin' });
        expect(await collations('visit_revocation')).toEqual({ user_hash: 'ascii_bin' });
      }
    });
  }

  test('R64: queries by expiry, end and user use an index', async () => {
    const { options } = await db.open();
    const dataSource = await connect(options, { migrationsRun: true });
    const runner = dataSource.createQueryRunner();
    const indexed = async (name: string) =>
      (await runner.getTable(name))!.indices.map(({ columnNames }) => columnNames.join()).toSorted();
    expect(await indexed('visit')).toEqual(['ended_at', 'expiry']);
    expect(await indexed('visit_identity')).toEqual(['user_id']);
    await runner.release();
  });
});

describe('openTypeOrmVisitStore', () => {
  test('names the supported types of data source', async () => {
    await expect(openTypeOrmVisitStore({ type: 'oracle' })).rejects.toThrow(
      /must be one of mysql, mariadb, postgres, better-sqlite3; got "oracle"/,
    );
    await expect(openTypeOrmVisitStore({ type: 'oracle' })).rejects.toThrow(VisitOptionError);
  });

  test.each<[string, DataSourceOptions]>([
    ['a url', { type: 'postgres', url: 'postgres://app:s3cr%40t@127.0.0.1:1/shop' }],
    ['options', { type: 'mysql', host: '127.0.0.1', port: 1, username: 'app', password: 's3cr@t', database: 'shop' }],
  ])('R77: reports where and why it could not connect, without the password: %s', async (_, options) => {
    const error = (await openTypeOrmVisitStore(options).catch((reason: unknown) => reason)) as Error;
    expect(error).toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE', cause: expect.any(Error) });
    expect(error.message).toMatch(
      /^\[visit\] cannot open the data source of type "(mysql|postgres)" at 127\.0\.0\.1:1\/shop: .*ECONNREFUSED/,
    );
    expect(error.message).not.toMatch(/s3cr/);
  });
});

function newHash(): string {
  return sha256(randomBytes(32));
}

function sha256(secret: Uint8Array): string {
  return createHash('sha256').update(secret).digest('hex');
}

function newVisit(given: Partial<VisitRecord> = {}): VisitRecord {
  return created({
    id: randomBytes(16).toString('hex'),
    keyHash: newHash(),
    created: NOW,
    expiry: NOW + DAY,
    ...given,
  });
}

function rekeyOf({ id, keyHash }: VisitRecord): Rekey {
  return { id, keyHash, now: NOW, newKeyHash: newHash(), previousKeyUntil: null };
}
