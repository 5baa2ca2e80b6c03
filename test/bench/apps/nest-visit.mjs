import { createRequire } from 'node:module';
import { IdentityService, MemoryVisitStore, VisitModule } from '../../../dist/esm/index.js';
import { POOL_SIZE } from './session-handlers.mjs';

const dataSources = {
  mariadb: (url) => ({ type: 'mariadb', url, poolSize: POOL_SIZE }),
  postgres: (url) => ({ type: 'postgres', url, poolSize: POOL_SIZE }),
  sqlite: (file) => ({ type: 'better-sqlite3', driver: createRequire(import.meta.url)('libsql'), database: file, enableWAL: true }),
};

async function placeOf(database, url) {
  if (database === 'memory') return { store: new MemoryVisitStore() };
  if (database !== 'redis') return { dataSource: { ...dataSources[database](url), migrationsRun: true } };
  const { RedisVisitStore } = await import('../../../dist/esm/store/redis/index.js');
  const [connection, prefix] = url.split('#');
  return { store: new RedisVisitStore({ connection, prefix: `${prefix}:` }) };
}

export async function prepare({ database, url }) {
  let identity;
  return {
    imports: [
      VisitModule.forRoot({
        ...(await placeOf(database, url)),
        // Plain HTTP here; a timeout that outlasts the run, so that no session is gone before the last round.
        cookie: { name: 'visit', secure: false, allowInsecure: true },
        timeout: '2h',
        expunge: { schedule: false },
        wipe: { schedule: false },
      }),
    ],
    handlers: {
      static: () => 'static',
      read: ({ session }) => ({ counter: session.get('counter') }),
      write: async ({ session }) => ({ counter: await session.update('counter', (counter) => counter + 1) }),
      login: async ({ session }) => {
        await identity.login('somebody');
        session.set('counter', 0);
        return { counter: 0 };
      },
    },
    install(app) {
      identity = app.get(IdentityService);
    },
  };
}
