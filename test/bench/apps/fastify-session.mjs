import { createRequire } from 'node:module';
import cookie from '@fastify/cookie';
import session from '@fastify/session';
import { POOL_SIZE, SECRET, sessionHandlers } from './session-handlers.mjs';

const require = createRequire(import.meta.url);

const stores = {
  // Its own, in memory.
  memory: () => undefined,

  async mysql(url) {
    const MySqlStore = require('express-mysql-session')(require('express-session'));
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
};

export async function prepare({ store: name, url }) {
  const store = await stores[name](url);
  // Without TLS, a secure cookie would never be set.
  const options = { ...(store && { store }), secret: SECRET, saveUninitialized: false, cookie: { secure: false } };
  return {
    handlers: sessionHandlers,
    async install(app) {
      await app.register(cookie);
      await app.register(session, options);
    },
  };
}
