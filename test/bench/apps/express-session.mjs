import { createRequire } from 'node:module';
import session from 'express-session';
import { POOL_SIZE, SECRET, sessionHandlers } from './session-handlers.mjs';

const require = createRequire(import.meta.url);

const stores = {
  memory: () => new session.MemoryStore(),

  async typeorm(url) {
    const { TypeormStore } = await import('connect-typeorm');
    // The one below this folder, of the version that connect-typeorm asks for.
    const { DataSource, EntitySchema } = await import('typeorm');
    // As in the README of connect-typeorm.
    const entity = new EntitySchema({
      name: 'Session',
      columns: {
        id: { type: 'varchar', length: 255, primary: true },
        expiredAt: { type: 'bigint' },
        json: { type: 'text' },
        destroyedAt: { type: 'datetime', deleteDate: true, nullable: true },
      },
      indices: [{ columns: ['expiredAt'] }],
    });
    const options = { type: 'mariadb', url, poolSize: POOL_SIZE, entities: [entity], synchronize: true };
    const dataSource = await new DataSource(options).initialize();
    return new TypeormStore({ ttl: 86_400 }).connect(dataSource.getRepository(entity));
  },

  async mysql(url) {
    const MySqlStore = require('express-mysql-session')(session);
    const { hostname: host, port, username: user, pathname } = new URL(url);
    const store = new MySqlStore({
      host,
      port: Number(port),
      user,
      database: pathname.slice(1),
      connectionLimit: POOL_SIZE,
    });
    await store.onReady();
    return store;
  },

  async postgres(url) {
    const PgStore = require('connect-pg-simple')(session);
    const { default: pg } = await import('pg');
    return new PgStore({ pool: new pg.Pool({ connectionString: url, max: POOL_SIZE }), createTableIfMissing: true });
  },
};

export async function prepare({ store: name, url }) {
  const store = await stores[name](url);
  const options = { store, secret: SECRET, resave: false, saveUninitialized: false };
  return { handlers: sessionHandlers, install: (app) => app.use(session(options)) };
}
