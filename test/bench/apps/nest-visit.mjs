import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { IdentityService, MemoryVisitStore, Session, VisitModule } from '../../../dist/esm/index.js';
import { createPrismaTables, openPrisma } from '../../support/prisma-client.mjs';
import { POOL_SIZE } from './session-handlers.mjs';

const dataSources = {
  mariadb: (url) => ({ type: 'mariadb', url, poolSize: POOL_SIZE }),
  postgres: (url) => ({ type: 'postgres', url, poolSize: POOL_SIZE }),
  sqlite: (file) => ({
    type: 'better-sqlite3',
    driver: createRequire(import.meta.url)('libsql'),
    database: file,
    enableWAL: true,
  }),
};

/** Kysely with the tables of visits, and what it is made of. */
async function openKysely(database, url) {
  const { Kysely, MysqlDialect, PostgresDialect, SqliteDialect } = await import('kysely');
  const { createVisitTables } = await import('../../../dist/esm/store/kysely/index.js');
  const client = await openClient(database, url);
  const dialect = {
    mariadb: () => new MysqlDialect({ pool: client }),
    postgres: () => new PostgresDialect({ pool: client }),
    sqlite: () => new SqliteDialect({ database: client }),
  }[database]();
  const db = new Kysely({ dialect });
  await createVisitTables(db);
  return { db, client };
}

async function openClient(database, url) {
  if (database === 'mariadb') return (await import('mysql2')).createPool({ uri: url, connectionLimit: POOL_SIZE });
  if (database === 'postgres') {
    const { default: pg } = await import('pg');
    return new pg.Pool({ connectionString: url, max: POOL_SIZE });
  }
  const client = new (createRequire(import.meta.url)('libsql'))(url);
  client.pragma('journal_mode = WAL');
  return client;
}

async function drizzleOf(database, client) {
  if (database === 'mariadb') return (await import('drizzle-orm/mysql2')).drizzle(client);
  if (database === 'postgres') return (await import('drizzle-orm/node-postgres')).drizzle(client);
  // As `drizzle()` of drizzle-orm/better-sqlite3 does, which cannot be loaded without better-sqlite3.
  const { BaseSQLiteDatabase, SQLiteSyncDialect } = await import('drizzle-orm/sqlite-core');
  const { BetterSQLiteSession } = await import('drizzle-orm/better-sqlite3/session');
  const dialect = new SQLiteSyncDialect();
  const session = new BetterSQLiteSession(client, dialect, undefined);
  return Object.assign(new BaseSQLiteDatabase('sync', dialect, session, undefined), { $client: client });
}

/** Where visits are kept: options of the module, and what is to be closed in the end. */
const places = {
  async typeorm({ database, url }) {
    return { dataSource: { ...dataSources[database](url), migrationsRun: true } };
  },
  async memory() {
    return { store: new MemoryVisitStore() };
  },
  async redis({ url }) {
    const { RedisVisitStore } = await import('../../../dist/esm/store/redis/index.js');
    const [connection, prefix] = url.split('#');
    return { store: new RedisVisitStore({ connection, prefix: `${prefix}:` }) };
  },
  async prisma({ database, url }) {
    const { PrismaVisitStore } = await import('../../../dist/esm/store/prisma/index.js');
    const prisma = await openPrisma(database, url, {
      adapter: database === 'mariadb' ? { connectionLimit: POOL_SIZE } : { max: POOL_SIZE },
    });
    await createPrismaTables(database, prisma);
    return { store: new PrismaVisitStore(prisma), close: () => prisma.$disconnect() };
  },
  async kysely({ database, url }) {
    const { KyselyVisitStore } = await import('../../../dist/esm/store/kysely/index.js');
    const { db, client } = await openKysely(database, url);
    return {
      store: new KyselyVisitStore({ db, ...(database !== 'sqlite' && { pool: client }) }),
      close: () => db.destroy(),
    };
  },
  async drizzle({ database, url }) {
    const { DrizzleVisitStore } = await import('../../../dist/esm/store/drizzle/index.js');
    const { db, client } = await openKysely(database, url);
    return { store: new DrizzleVisitStore(await drizzleOf(database, client)), close: () => db.destroy() };
  },
  async keyv({ database, url }) {
    const { Keyv } = await import('keyv');
    const { KeyvVisitStore } = await import('../../../dist/esm/store/keyv/index.js');
    if (database === 'file') {
      const { KeyvFile } = await import('keyv-file');
      const keyv = new Keyv({ store: new KeyvFile({ filename: url }), throwOnErrors: true });
      return { store: new KeyvVisitStore({ keyv, shared: false, durable: true, evicts: false, owned: true }) };
    }
    const { KeyvMemcache } = await import('@keyv/memcache');
    const [server, namespace] = url.split('#');
    const keyv = new Keyv({ store: new KeyvMemcache(server), throwOnErrors: true, namespace });
    return { store: new KeyvVisitStore({ keyv, shared: true, durable: false, evicts: true, owned: true }) };
  },
  async 'sealed-cookie'() {
    const { SealedCookieVisitStore } = await import('../../../dist/esm/store/sealed-cookie/index.js');
    return { store: new SealedCookieVisitStore({ secrets: [randomBytes(32)] }) };
  },
};

export async function prepare({ database, url, store = places[database] ? database : 'typeorm' }) {
  let identity;
  const { close, ...place } = await places[store]({ database, url });
  return {
    imports: [
      VisitModule.forRoot({
        ...place,
        // Plain HTTP here; a timeout that outlasts the run, so that no session is gone before the last round.
        cookie: { name: 'visit', secure: false, allowInsecure: true },
        timeout: '2h',
        expunge: { schedule: false },
        wipe: { schedule: false },
      }),
    ],
    parameter: Session(),
    handlers: {
      static: () => 'static',
      read: (session) => ({ counter: session.get('counter') }),
      write: async (session) => ({ counter: await session.update('counter', (counter) => counter + 1) }),
      login: async (session) => {
        await identity.login('somebody');
        session.set('counter', 0);
        return { counter: 0 };
      },
    },
    install(app) {
      identity = app.get(IdentityService);
    },
    close,
  };
}
