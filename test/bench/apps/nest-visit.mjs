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
