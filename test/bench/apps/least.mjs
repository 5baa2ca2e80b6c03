// What can be had at least while a hook finds the visit, AsyncLocalStorage knows it and an interceptor stands before
// the handler: look-ups of one turn of the event loop in one prepared statement, the narrowest there is, by the driver
// alone. It reads only.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash, randomBytes } from 'node:crypto';
import { POOL_SIZE } from './session-handlers.mjs';

const COOKIE = 'visit=';
const IN_FLIGHT = 2;
const TABLE =
  'CREATE TABLE visit (id varchar(32) PRIMARY KEY, key_hash varchar(64) NOT NULL, expiry bigint NOT NULL, counter ' +
  'int NOT NULL)';
const SELECT = 'SELECT id, key_hash, expiry, counter FROM visit WHERE id';

const databases = {
  async mariadb(url) {
    const { createPool } = await import('mysql2');
    const pool = createPool({ uri: url, connectionLimit: POOL_SIZE });
    return {
      run: (sql, values) => pool.promise().query(sql, values),
      find(ids, answer) {
        // Few different texts, so that few statements are prepared.
        let size = 1;
        while (size < ids.length) size *= 4;
        const padded = [...ids, ...Array(size - ids.length).fill(ids[0])];
        pool.execute(`${SELECT} IN (${padded.map(() => '?').join(', ')})`, padded, answer);
      },
      insert: 'INSERT INTO visit VALUES (?, ?, ?, 0)',
      close: () => pool.promise().end(),
    };
  },
  async postgres(url) {
    const { default: pg } = await import('pg');
    const pool = new pg.Pool({ connectionString: url, max: POOL_SIZE });
    return {
      run: (sql, values) => pool.query(sql, values),
      find: (ids, answer) =>
        pool.query({ name: 'find', text: `${SELECT} = ANY($1)`, values: [ids] }, (error, result) =>
          answer(error, result?.rows),
        ),
      insert: 'INSERT INTO visit VALUES ($1, $2, $3, 0)',
      close: () => pool.end(),
    };
  },
};

const hashOf = (secret) => createHash('sha256').update(secret).digest('hex');

export async function prepare({ database, url }) {
  const { run, find, insert, close } = await databases[database](url);
  await run(TABLE);

  const running = new AsyncLocalStorage();
  let waiting = [];
  let inFlight = 0;
  let scheduled = false;

  function schedule() {
    if (scheduled || inFlight >= IN_FLIGHT || waiting.length === 0) return;
    scheduled = true;
    setImmediate(send);
  }

  function send() {
    const batch = waiting;
    scheduled = false;
    waiting = [];
    inFlight++;
    find([...new Set(batch.map(({ id }) => id))], (error, rows) => {
      inFlight--;
      const found = new Map(rows?.map((row) => [row.id, row]));
      for (const { id, secret, next } of batch) enter(error, found.get(id), secret, next);
      schedule();
    });
  }

  function enter(error, visit, secret, next) {
    if (error) next(error);
    else if (visit?.key_hash !== hashOf(secret) || Number(visit.expiry) < Date.now())
      next(new Error('A request without a visit'));
    else running.run({ visit }, next);
  }

  function open({ headers: { cookie = '' } }, _, next) {
    const start = cookie.indexOf(COOKIE);
    if (start === -1) {
      next();
      return;
    }
    const [id, secret] = cookie.slice(start + COOKIE.length).split('.');
    waiting.push({ id, secret, next });
    schedule();
  }

  return {
    handlers: {
      static: () => 'static',
      read: () => ({ counter: running.getStore().visit.counter }),
      write: () => ({ counter: running.getStore().visit.counter }),
      async login(_, response) {
        const [id, secret] = [randomBytes(16).toString('hex'), randomBytes(32).toString('base64url')];
        await run(insert, [id, hashOf(secret), Date.now() + 86_400_000]);
        response.header('set-cookie', `${COOKIE}${id}.${secret}; Path=/; HttpOnly; SameSite=Lax`);
        return { counter: 0 };
      },
    },
    install(app) {
      const server = app.getHttpAdapter().getInstance();
      if (server.addHook) server.addHook('onRequest', open);
      else app.use(open);
      app.useGlobalInterceptors({ intercept: (_, next) => next.handle() });
    },
    close,
  };
}
