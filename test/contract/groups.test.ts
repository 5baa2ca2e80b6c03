import { Logger } from '@nestjs/common';
import { MemoryVisitStore, VisitStoreUnavailableError, type VisitRecord, type VisitStore } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { PrismaVisitStore } from 'nest-visit/prisma';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { StoreAccess } from '../../lib/store/store-access.js';
import { openAccess } from '../support/open-access.js';
import { bytes, newVisit, saveOf } from '../../lib/testing/samples.js';
import { gateOf, type Gate } from '../interleaving/gate.js';
import { databasesOfToday, describeDatabases, type DatabaseName } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import type { TestPrisma } from '../support/prisma-client.mjs';
import { describePrisma, PRISMA_DATABASES } from '../support/prisma.js';
import { describeRedis, uniquePrefix } from '../support/redis.js';

// What requests of one moment ask of a store goes there in one call. None of them fails because of another one's.

Logger.overrideLogger(false);

const ALL = Array.from({ length: 20 }, (_, place) => place);
const BAD = [[[0]], [[7]], [[19]], [[0, 1]], [[2, 9, 10, 19]], [ALL]];

/** A store that refuses, or cannot read, certain visits. */
interface Fussy {
  readonly store: VisitStore;
  /** The visit to insert that the store will refuse. */
  readonly refused: () => Promise<VisitRecord>;
  /** Lets the store fail whenever it reads a visit whose User-Agent is `unreadable`, while this works. */
  readonly whileUnreadable?: (work: () => Promise<void>) => Promise<void>;
  /** Whether it can be saved meanwhile. */
  readonly canSave?: boolean;
}

const access = (store: VisitStore): StoreAccess => openAccess(store, 10_000);

const outcomesOf = (results: readonly PromiseSettledResult<unknown>[]): string[] =>
  results.map((result) => (result.status === 'fulfilled' ? 'done' : (result.reason as Error).constructor.name));

const expected = (bad: readonly number[]): string[] =>
  ALL.map((place) => (bad.includes(place) ? VisitStoreUnavailableError.name : 'done'));

function describeGroups(open: () => Promise<Fussy> | Fussy, { reads = true, saves = true } = {}): void {
  let fussy: Fussy;
  beforeAll(async () => {
    fussy = await open();
  });

  test.each(BAD)('B15: a new visit that is refused does not fail its neighbors: %j', async (bad) => {
    const visits = await Promise.all(
      ALL.map((place) => (bad.includes(place) ? fussy.refused() : Promise.resolve(newVisit()))),
    );
    const store = access(fussy.store);
    expect(outcomesOf(await Promise.allSettled(visits.map((visit) => store.create(visit))))).toEqual(expected(bad));
    const stored = await fussy.store.find(visits.map(({ id }) => id));
    expect(stored.map((visit) => visit?.keyHash)).toEqual(
      visits.map(({ keyHash }, place) => (bad.includes(place) ? undefined : keyHash)),
    );
  });

  if (!reads) return;

  test.each(BAD)('B15: a visit that cannot be read does not fail its neighbors: %j', async (bad) => {
    const visits = ALL.map((place) => newVisit({ userAgent: bad.includes(place) ? 'unreadable' : 'test' }));
    await fussy.store.create(visits);
    await fussy.whileUnreadable!(async () => {
      const store = access(fussy.store);
      const results = await Promise.allSettled(visits.map(({ id }) => store.find(id)));
      expect(outcomesOf(results)).toEqual(expected(bad));
    });
  });

  if (!saves) return;

  test.each(BAD)('B15: saving a visit that cannot be read does not fail its neighbors: %j', async (bad) => {
    const visits = ALL.map((place) => newVisit({ userAgent: bad.includes(place) ? 'unreadable' : 'test' }));
    await fussy.store.create(visits);
    // Every third has been written by others meanwhile; so has every one that cannot be read, or there would be nothing
    // to read.
    const isOld = (place: number): boolean => place % 3 === 0 || bad.includes(place);
    const others = visits.filter((_, place) => isOld(place)).map((visit) => saveOf(visit, { data: bytes('other') }));
    await fussy.store.save(others);
    await fussy.whileUnreadable!(async () => {
      const store = access(fussy.store);
      const results = await Promise.allSettled(
        visits.map((visit) => store.save(saveOf(visit, { data: bytes('own') }))),
      );
      expect(results.map((result) => (result.status === 'fulfilled' ? result.value.outcome : 'failed'))).toEqual(
        ALL.map((place) => (bad.includes(place) ? 'failed' : isOld(place) ? 'conflict' : 'saved')),
      );
    });
    const stored = await fussy.store.find(visits.map(({ id }) => id));
    expect(stored.map((visit) => visit!.sessionVersion)).toEqual(ALL.map(() => 1));
  });
}

/** Fails as a whole where one visit is to blame, as a store of one's own may. */
class FussyStore extends MemoryVisitStore {
  isFussy = false;

  override async create(visits: readonly VisitRecord[]): Promise<void> {
    if (visits.some(({ userAgent }) => userAgent === 'refused')) throw new Error('refused');
    await super.create(visits);
  }

  override async find(ids: readonly string[]) {
    const found = await super.find(ids);
    if (this.isFussy && found.some((visit) => visit?.userAgent === 'unreadable')) throw new Error('unreadable');
    return found;
  }

  /** Looks before it writes. */
  override async save(saves: Parameters<MemoryVisitStore['save']>[0]) {
    await this.find(saves.map(({ id }) => id));
    return super.save(saves);
  }
}

describe('Groups in memory', () => {
  const store = new FussyStore();
  const whileUnreadable = async (work: () => Promise<void>): Promise<void> => {
    store.isFussy = true;
    try {
      await work();
    } finally {
      store.isFussy = false;
    }
  };
  describeGroups(() => ({ store, refused: async () => newVisit({ userAgent: 'refused' }), whileUnreadable }));
});

describeRedis('Groups', (redis) => {
  const prefix = uniquePrefix();
  describeGroups(
    async () => ({
      store: await redis.open({ prefix }),
      // Something else has its place.
      refused: async () => {
        const visit = newVisit();
        await redis.send(`${prefix}visit:{${visit.id}}`, 'SET', `${prefix}visit:{${visit.id}}`, 'x', 'EX', '60');
        return visit;
      },
    }),
    { reads: false },
  );
});

/** What makes each database refuse a new visit. */
const REFUSING: Record<DatabaseName, string> = {
  mariadb: `ALTER TABLE visit ADD CONSTRAINT calm CHECK (user_agent <> 'refused')`,
  postgres: `ALTER TABLE visit ADD CONSTRAINT calm CHECK (user_agent <> 'refused')`,
  sqlite:
    `CREATE TRIGGER calm BEFORE INSERT ON visit WHEN new.user_agent = 'refused' BEGIN SELECT RAISE(ABORT, 'calm'); ` +
    'END',
};

/** What fails when it is worked out. */
const FAILING: Record<DatabaseName, string> = {
  mariadb: '~0 + accessed',
  postgres: '1 / (accessed - accessed)',
  sqlite: 'abs(-9223372036854775808 + accessed * 0)',
};

const COLUMNS =
  'id, key_hash, previous_key_hash, previous_key_until, created, accessed, expiry, absolute_expiry, ended_at, ' +
  'end_reason, permanent, ' +
  'remote_address, user_agent, session_data, session_version, lock_owner, locked_until';

/** A view stands in for the table. */
const unreadable =
  (name: DatabaseName, query: (sql: string) => Promise<unknown>) =>
  async (work: () => Promise<void>): Promise<void> => {
    await query('ALTER TABLE visit RENAME TO visit_rows');
    const key = `CASE WHEN user_agent = 'unreadable' THEN ${FAILING[name]} ELSE key_changed END AS key_changed`;
    await query(`CREATE VIEW visit AS SELECT ${COLUMNS}, ${key} FROM visit_rows`);
    try {
      await work();
    } finally {
      await query('DROP VIEW visit');
      await query('ALTER TABLE visit_rows RENAME TO visit');
    }
  };

describeDatabases('Groups, with TypeORM,', (db) => {
  let dataSource: DataSource;
  let store: TypeOrmVisitStore;
  let gate: Gate;
  const query = (sql: string): Promise<unknown> => dataSource.query(sql);
  beforeAll(async () => {
    dataSource = await openMigrated((await db.open()).options);
    gate = gateOf(dataSource);
    store = new TypeOrmVisitStore(dataSource);
    await query(REFUSING[db.name]);
  });
  afterAll(() => dataSource?.destroy());

  // MySQL finds no index in a view, SQLite writes to none.
  describeGroups(
    () => ({
      store,
      refused: async () => newVisit({ userAgent: 'refused' }),
      whileUnreadable: unreadable(db.name, query),
    }),
    {
      saves: db.name === 'postgres',
    },
  );

  // SQLite has no connection that goes away.
  if (db.name === 'sqlite') return;

  /** Statements, of which those that write are done, and then the connection is lost before the answer comes. */
  const losing = (times: number): string[] => {
    const texts: string[] = [];
    gate.pass = async (sql, execute) => {
      texts.push(sql);
      const result = await execute(sql);
      if (!/^(INSERT|UPDATE|COMMIT)/.test(sql) || times-- <= 0) return result;
      throw Object.assign(new Error('Lost'), { code: 'PROTOCOL_CONNECTION_LOST' });
    };
    return texts;
  };

  test('new visits that were written before the connection broke are acknowledged', async () => {
    const visits = ALL.map(() => newVisit());
    const texts = losing(1);
    const some = access(store);
    const results = await Promise.allSettled(visits.map((visit) => some.create(visit)));
    delete gate.pass;
    expect(outcomesOf(results)).toEqual(expected([]));
    expect(texts.filter((sql) => sql.startsWith('INSERT'))).toHaveLength(1);
    expect((await store.find(visits.map(({ id }) => id))).every(Boolean)).toBe(true);
  });

  test('a save that was written before the connection broke is not a conflict, and not repeated', async () => {
    const visits = ALL.map(() => newVisit());
    await store.create(visits);
    losing(1);
    const some = access(store);
    const results = await Promise.allSettled(visits.map((visit) => some.save(saveOf(visit, { data: bytes('x') }))));
    delete gate.pass;
    expect(outcomesOf(results)).toEqual(expected(ALL));
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit!.sessionVersion)).toEqual(
      ALL.map(() => 1),
    );
  });

  test('a save that was not written before the connection broke is repeated', async () => {
    const visits = ALL.map(() => newVisit());
    await store.create(visits);
    let lost = false;
    gate.pass = async (sql, execute) => {
      if (lost || !sql.startsWith('UPDATE')) return execute(sql);
      lost = true;
      throw Object.assign(new Error('Lost'), { code: 'PROTOCOL_CONNECTION_LOST' });
    };
    const some = access(store);
    const results = await Promise.allSettled(visits.map((visit) => some.save(saveOf(visit, { data: bytes('x') }))));
    delete gate.pass;
    expect(results.map((result) => result.status === 'fulfilled' && result.value)).toEqual(
      ALL.map(() => ({ outcome: 'saved', version: 1 })),
    );
  });

  if (db.name !== 'mariadb') return;

  test('a new visit that exceeds the packet size, so that the server disconnects, fails alone', async () => {
    const [{ most }] = await dataSource.query<[{ most: string }]>('SELECT CAST(@@max_allowed_packet AS CHAR) AS most');
    const visits = ALL.map((place) => newVisit(place === 7 ? { sessionData: new Uint8Array(Number(most) + 1) } : {}));
    const some = access(store);
    expect(outcomesOf(await Promise.allSettled(visits.map((visit) => some.create(visit))))).toEqual(expected([7]));
    expect((await store.find(visits.map(({ id }) => id))).map((visit) => visit !== null)).toEqual(
      ALL.map((place) => place !== 7),
    );
  });
});

describePrisma(
  'Groups, with Prisma,',
  (db) => {
    let prisma: TestPrisma;
    afterAll(() => prisma?.$disconnect());
    describeGroups(async () => {
      prisma = await db.connect(await db.open());
      await db.createTables(prisma);
      const query = (sql: string): Promise<unknown> => prisma.$executeRawUnsafe(sql);
      await query(REFUSING[db.name]);
      const whileUnreadable = unreadable(db.name, query);
      return {
        store: new PrismaVisitStore(prisma),
        refused: async () => newVisit({ userAgent: 'refused' }),
        whileUnreadable,
      };
    });
  },
  databasesOfToday(1, PRISMA_DATABASES),
);

describe('While the store is unavailable', () => {
  /** Counts its calls, and fails all from a certain one on. */
  class AwayStore extends FussyStore {
    calls = 0;
    awayFrom = 0;

    #count(): void {
      if (++this.calls > this.awayFrom) throw new Error('connection refused');
    }

    override async create(visits: readonly VisitRecord[]): Promise<void> {
      this.#count();
      await super.create(visits);
    }

    override async find(ids: readonly string[]) {
      this.#count();
      return super.find(ids);
    }

    override async save(saves: Parameters<MemoryVisitStore['save']>[0]) {
      this.#count();
      return super.save(saves);
    }
  }

  test.each<[string, (store: StoreAccess, visit: VisitRecord) => Promise<unknown>]>([
    ['creates', (store, visit) => store.create(visit)],
    ['finds', (store, visit) => store.find(visit.id)],
    ['saves', (store, visit) => store.save(saveOf(visit))],
  ])('a group of %s costs two calls, not one for each member', async (_, ask) => {
    const away = new AwayStore();
    const store = access(away);
    expect(outcomesOf(await Promise.allSettled(ALL.map(() => ask(store, newVisit()))))).toEqual(expected(ALL));
    expect(away.calls).toBe(2);
  });

  test('a store that becomes unavailable during the search for the cause is not called repeatedly', async () => {
    const away = new AwayStore();
    away.awayFrom = 4;
    const store = access(away);
    const visits = ALL.map((place) => newVisit(place === 3 ? { userAgent: 'refused' } : {}));
    const results = outcomesOf(await Promise.allSettled(visits.map((visit) => store.create(visit))));
    expect(results.filter((result) => result === 'done').length).toBeLessThan(ALL.length);
    expect(away.calls).toBeLessThan(10);
  });
});
