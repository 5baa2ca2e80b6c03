// What can be had at most while an interceptor looks the visit up and AsyncLocalStorage knows the request: look-ups of one turn of the
// event loop in one prepared statement, the narrowest there is, by the driver alone. It reads only.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash, randomBytes } from 'node:crypto';
import { createPool } from 'mysql2';
import { Observable } from 'rxjs';
import { POOL_SIZE } from './session-handlers.mjs';

const COOKIE = 'visit=';
const IN_FLIGHT = 2;
const TABLE =
  'CREATE TABLE visit (id varchar(32) PRIMARY KEY, key_hash varchar(64) NOT NULL, expiry bigint NOT NULL, counter int NOT NULL)';

const hashOf = (secret) => createHash('sha256').update(secret).digest('hex');

export async function prepare({ url }) {
  const pool = createPool({ uri: url, connectionLimit: POOL_SIZE });
  await pool.promise().query(TABLE);

  let waiting = [];
  let underWay = 0;
  let scheduled = false;

  function schedule() {
    if (scheduled || underWay >= IN_FLIGHT || waiting.length === 0) return;
    scheduled = true;
    setImmediate(send);
  }

  function send() {
    const batch = waiting;
    scheduled = false;
    waiting = [];
    underWay++;
    const ids = [...new Set(batch.map(({ id }) => id))];
    let size = 1;
    while (size < ids.length) size *= 4;
    const padded = [...ids, ...Array(size - ids.length).fill(ids[0])];
    const marks = padded.map(() => '?').join(', ');
    pool.execute(`SELECT id, key_hash, expiry, counter FROM visit WHERE id IN (${marks})`, padded, (error, rows) => {
      underWay--;
      const found = new Map(rows?.map((row) => [row.id, row]));
      for (const { id, answer, fail } of batch) {
        if (error) fail(error);
        else answer(found.get(id));
      }
      schedule();
    });
  }

  const find = (id) =>
    new Promise((answer, fail) => {
      waiting.push({ id, answer, fail });
      schedule();
    });

  async function resolve(request) {
    const { cookie = '' } = request.headers;
    const start = cookie.indexOf(COOKIE);
    if (start === -1) return;
    const [id, secret] = cookie.slice(start + COOKIE.length).split('.');
    const visit = await find(id);
    if (visit?.key_hash !== hashOf(secret) || visit.expiry < Date.now()) throw new Error('A request without a visit');
    request.visit = visit;
  }

  const interceptor = {
    intercept: (context, next) =>
      new Observable((subscriber) => {
        let handler;
        const run = () => (handler = next.handle().subscribe(subscriber));
        resolve(context.switchToHttp().getRequest()).then(run, (error) => subscriber.error(error));
        return () => handler?.unsubscribe();
      }),
  };

  return {
    handlers: {
      static: () => 'static',
      read: ({ visit }) => ({ counter: visit.counter }),
      write: ({ visit }) => ({ counter: visit.counter }),
      async login(_, response) {
        const [id, secret] = [randomBytes(16).toString('hex'), randomBytes(32).toString('base64url')];
        await pool.promise().query('INSERT INTO visit VALUES (?, ?, ?, 0)', [id, hashOf(secret), Date.now() + 86_400_000]);
        response.header('set-cookie', `${COOKIE}${id}.${secret}; Path=/; HttpOnly; SameSite=Lax`);
        return { counter: 0 };
      },
    },
    install(app) {
      const running = new AsyncLocalStorage();
      const server = app.getHttpAdapter().getInstance();
      if (server.addHook) server.addHook('onRequest', (request, _, done) => running.run({ request }, done));
      else app.use((request, _, next) => running.run({ request }, next));
      app.useGlobalInterceptors(interceptor);
    },
    close: () => pool.promise().end(),
  };
}
