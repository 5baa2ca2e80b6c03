// The least that can be done without grouping: one SELECT for each request, one UPDATE for each write, by the driver
// alone.
import { createHash, randomBytes } from 'node:crypto';
import { POOL_SIZE } from './session-handlers.mjs';

const COOKIE = 'visit=';
const TABLE =
  'CREATE TABLE visit (id varchar(32) PRIMARY KEY, key_hash varchar(64) NOT NULL, expiry bigint NOT NULL, counter ' +
  'int NOT NULL)';

const databases = {
  async mariadb(url) {
    const { createPool } = await import('mysql2/promise');
    const pool = createPool({ uri: url, connectionLimit: POOL_SIZE });
    return {
      run: async (sql, values) => {
        const [result] = await pool.query(sql, values);
        return result;
      },
      find: 'SELECT id, key_hash, expiry, counter FROM visit WHERE id = ?',
      add: 'UPDATE visit SET counter = counter + 1 WHERE id = ?',
      insert: 'INSERT INTO visit VALUES (?, ?, ?, 0)',
      close: () => pool.end(),
    };
  },
  async postgres(url) {
    const { default: pg } = await import('pg');
    const pool = new pg.Pool({ connectionString: url, max: POOL_SIZE });
    return {
      run: async (sql, values) => (await pool.query(sql, values)).rows,
      find: 'SELECT id, key_hash, expiry, counter FROM visit WHERE id = $1',
      add: 'UPDATE visit SET counter = counter + 1 WHERE id = $1',
      insert: 'INSERT INTO visit VALUES ($1, $2, $3, 0)',
      close: () => pool.end(),
    };
  },
};

const hashOf = (secret) => createHash('sha256').update(secret).digest('hex');

export async function prepare({ database, url }) {
  const { run, find, add, insert, close } = await databases[database](url);
  await run(TABLE, []);

  async function visitOf({ headers: { cookie = '' } }) {
    const start = cookie.indexOf(COOKIE);
    if (start === -1) throw new Error('A request without a cookie');
    const [id, secret] = cookie.slice(start + COOKIE.length).split('.');
    const [visit] = await run(find, [id]);
    if (visit?.key_hash !== hashOf(secret) || Number(visit.expiry) < Date.now())
      throw new Error('A request without a visit');
    return visit;
  }

  return {
    handlers: {
      async static(request) {
        await visitOf(request);
        return 'static';
      },
      async read(request) {
        const { counter } = await visitOf(request);
        return { counter };
      },
      async write(request) {
        const { id, counter } = await visitOf(request);
        await run(add, [id]);
        return { counter: counter + 1 };
      },
      async login(request, response) {
        const [id, secret] = [randomBytes(16).toString('hex'), randomBytes(32).toString('base64url')];
        await run(insert, [id, hashOf(secret), Date.now() + 86_400_000]);
        response.header('set-cookie', `${COOKIE}${id}.${secret}; Path=/; HttpOnly; SameSite=Lax`);
        return { counter: 0 };
      },
    },
    close,
  };
}
