// Whether it matters how many rows there are: the same reading load on a small table and on a large one.
import { createHash } from 'node:crypto';
import { startApp } from './processes.mjs';
import { signIn, sumOf } from './sessions.mjs';

const SMALL = 10_000;
const BATCH = 250_000;
/** Filling one table must end in this time; it is measured with as many rows as there are then. */
const FILL_MINUTES = 15;
/**
 * How many visits the load takes in turn. The pages of the first fit into the caches that the servers have by default;
 * those of the second do not, with one visit on each page of a large table, so that MariaDB reads them anew.
 */
const ACTIVE = [2000, 10_000];
const CONNECTIONS = 64;
/**
 * PostgreSQL has the cache of the system besides its own; MariaDB reads past it, so a table of this size is also
 * measured with such a cache.
 */
const CACHE_GB = 2;
/** The share that is aimed at, and for how many rows. */
const AIM = { share: 0.9, rows: 10_000_000 };

/**
 * Far enough apart to look random, while the rows still come in the order of the primary key: anything else takes
 * hours.
 */
const STEP = 11_400_714;

const md5 = (content) => createHash('md5').update(content).digest('hex');

/** The key of the visit with this number, as the SQL below makes it. */
function cookieOf(number) {
  const id = (number * STEP).toString(16).padStart(16, '0') + md5(`id${number}`).slice(0, 16);
  const secret = md5(`one${number}`) + md5(`two${number}`).slice(0, 11);
  return `visit=${id}.${secret}`;
}

const fillers = {
  mariadb: (first, last) => ({
    id: `CONCAT(LOWER(LPAD(HEX(seq * ${STEP}), 16, '0')), LEFT(MD5(CONCAT('id', seq)), 16))`,
    hash: "SHA2(CONCAT(MD5(CONCAT('one', seq)), LEFT(MD5(CONCAT('two', seq)), 11)), 256)",
    numbers: `seq_${first}_to_${last}`,
  }),
  postgres: (first, last) => ({
    id: `lpad(to_hex(seq * ${STEP}::bigint), 16, '0') || left(md5('id' || seq), 16)`,
    hash: "encode(sha256(convert_to(md5('one' || seq) || left(md5('two' || seq), 11), 'UTF8')), 'hex')",
    numbers: `generate_series(${first}, ${last}) AS numbers(seq)`,
  }),
};

/** Makes rows like the first one, without users, and says how many there are. */
async function fill(database, kind, url, wished, signal) {
  const deadline = Date.now() + FILL_MINUTES * 60_000;
  const [template] = await database.run('SELECT * FROM visit LIMIT 1', url);
  const others = Object.keys(template).filter((column) => !['id', 'key_hash'].includes(column));
  let rows = 0;
  while (rows < wished && Date.now() < deadline) {
    signal.throwIfAborted();
    const last = Math.min(wished, rows + BATCH);
    const { id, hash, numbers } = fillers[kind](rows + 1, last);
    await database.run(
      `INSERT INTO visit (id, key_hash, ${others.join(', ')})
       SELECT ${id}, ${hash}, ${others.map((column) => `template.${column}`).join(', ')}
       FROM ${numbers}, (SELECT * FROM visit WHERE id = '${template.id}') AS template`,
      url,
    );
    rows = last;
    if (rows % 1_000_000 === 0) console.log(`${database.title}: ${rows.toLocaleString('en')} rows`);
  }
  await database.run(kind === 'mariadb' ? 'ANALYZE TABLE visit' : 'VACUUM ANALYZE visit', url);
  return rows;
}

/** Cookies of visits that are spread over the table. */
function spread(rows, active) {
  const count = Math.min(active, rows);
  const numbers = Array.from({ length: count }, (_, index) => 1 + Math.floor((index * rows) / count));
  // Neighbors in the table shall not be neighbors in time.
  return numbers
    .map((number) => ({ number, at: md5(`order${number}`) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .map(({ number }) => cookieOf(number));
}

export async function openTable(database, kind, wished, { node, signal, toStop }) {
  const url = await database.create(`bench_scale_${wished}_node${node.major}`);
  const app = await startApp({ app: 'nest-visit', platform: 'fastify', database: kind, url }, node.program, signal);
  toStop.unshift(app.stop);
  await signIn(app, 1);
  const rows = await fill(database, kind, url, wished, signal);
  // A key that leads to no visit is answered, too, and would be quicker.
  if ((await sumOf(app, spread(rows, 10))) !== 0)
    throw new Error('The rows that were filled in are not found by their keys');
  const targetOf = (cookies) => ({ url: app.url, path: '/read', method: 'GET', connections: CONNECTIONS, cookies });
  return {
    url,
    rows,
    targetFor: (active) => targetOf(spread(rows, active)),
    /** All visits from the first to the one before the last of these numbers. */
    targetOfAll: (first, last) => targetOf(Array.from({ length: last - first }, (_, index) => cookieOf(first + index))),
    memory: () => app.memory(),
  };
}

/**
 * @param {{ databases: Record<string, import('./databases.mjs').Database>, load: object, node: object, rounds: number,
 *   seconds: number, rows: number, signal: AbortSignal, toStop: (() => Promise<void>)[] }} options
 * @returns {Promise<{ name: string, rows: number, active: number, ratios: number[], troubles: number, aim: { share:
 *   number, rows: number } }[]>}
 */
export async function measureScale({ databases, load, rounds, seconds, rows: wished, ...rest }) {
  const results = [];
  for (const kind of ['mariadb', 'postgres'].filter((name) => databases[name])) {
    console.log(`filling a table of ${databases[kind].title}`);
    const small = await openTable(databases[kind], kind, SMALL, rest);
    const large = await openTable(databases[kind], kind, wished, rest);
    const measure = async (name, active) => {
      const targets = [small, large].map(({ targetFor }) => targetFor(active));
      const outcome = await compare(targets, { load, rounds, seconds });
      const result = { name, rows: large.rows, active, aim: AIM, ...outcome };
      console.log(
        `${result.name}, ${result.rows} rows, ${active} active: ` +
          result.ratios.map((ratio) => ratio.toFixed(2)).join(' '),
      );
      results.push(result);
    };
    for (const active of ACTIVE) await measure(databases[kind].title, active);
    if (kind === 'mariadb') {
      await databases.mariadb.run(`SET GLOBAL innodb_buffer_pool_size = ${CACHE_GB * 2 ** 30}`, large.url);
      await measure(`${databases.mariadb.title}, with a cache of ${CACHE_GB} GB`, ACTIVE.at(-1));
    }
  }
  return results;
}

/** The rate of the second as a share of that of the first, in each round. */
async function compare(targets, { load, rounds, seconds }) {
  // Until each visit has been read once.
  for (const target of targets) await load.exactly(target, Math.max(3000, target.cookies.length));
  const ratios = [];
  let troubles = 0;
  for (let round = 0; round < rounds; round++) {
    const rates = new Map();
    for (const target of round % 2 === 0 ? targets : targets.toReversed()) {
      const { ok, seconds: taken, refused, failed } = await load.during(target, seconds);
      rates.set(target, ok / taken);
      troubles += refused + failed;
    }
    ratios.push(rates.get(targets[1]) / rates.get(targets[0]));
  }
  return { ratios, troubles };
}
