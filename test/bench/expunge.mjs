// Whether clearing away old visits disturbs those that are in use: three processes expunge at once while requests read
// and write.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startApp } from './processes.mjs';
import { signIn, sumOf } from './sessions.mjs';

const ACTIVE = 200;
const PROCESSES = 3;
const BATCH = 250_000;
const CONNECTIONS = { read: 48, write: 16 };
/** What is aimed at: rows in a second, and the p99 of requests as a multiple of the quiet one. */
const AIM = { rows: 10_000, p99: 2 };
const MOST_MINUTES = 10;

const cli = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url));
const entities = new URL('../../dist/esm/store/typeorm/index.js', import.meta.url).href;

/** Rows like the first one, which expired a hundred days ago; half of them have a user. */
const fillers = {
  mariadb: (first, last) => ({ id: `MD5(CONCAT('stale', seq))`, numbers: `seq_${first}_to_${last}` }),
  postgres: (first, last) => ({
    id: `md5('stale' || seq)`,
    numbers: `generate_series(${first}, ${last}) AS numbers(seq)`,
  }),
};
const LONG_AGO = 100 * 86_400_000;

async function fill(database, kind, url, rows, signal) {
  const [template] = await database.run('SELECT * FROM visit LIMIT 1', url);
  const others = Object.keys(template).filter((column) => !['id', 'expiry'].includes(column));
  for (let first = 1; first <= rows; first += BATCH) {
    signal.throwIfAborted();
    const { id, numbers } = fillers[kind](first, Math.min(rows, first + BATCH - 1));
    const from = `FROM ${numbers}, (SELECT * FROM visit WHERE id = '${template.id}') AS template`;
    await database.run(
      `INSERT INTO visit (id, expiry, ${others.join(', ')})
       SELECT ${id}, template.expiry - ${LONG_AGO} - seq, ${others.map((column) => `template.${column}`).join(', ')} ${from}`,
      url,
    );
    await database.run(
      `INSERT INTO visit_identity (visit_id, user_id, created, authenticated_at)
       SELECT ${id}, CONCAT('user', seq), template.created, template.created ${from} WHERE seq % 2 = 0`,
      url,
    );
  }
  await database.run(kind === 'mariadb' ? 'ANALYZE TABLE visit' : 'VACUUM ANALYZE visit', url);
}

const deadlocks = {
  mariadb: async ({ run }, url) =>
    Number((await run("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'", url))[0]?.Value ?? 0),
  postgres: async ({ run }, url) =>
    Number((await run('SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()', url))[0].deadlocks),
};

/** What an administrator would start, and what it prints last. */
function expunge(file, signal) {
  const child = spawn(process.execPath, [cli, 'expunge', '--data-source', file, '--json'], {
    signal,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (err += text));
  return once(child, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`expunge ended with ${code}: ${err}`);
    return JSON.parse(out.trim().split('\n').at(-1));
  });
}

/** Reads and writes at once. */
async function both(load, targets, seconds) {
  const [read, write] = await Promise.all(targets.map((target) => load.during(target, seconds)));
  return {
    p99: { read: read.p99, write: write.p99 },
    rate: (read.ok + write.ok) / seconds,
    written: write.ok,
    failed: failures(read) + failures(write),
  };
}

const failures = ({ refused, failed }) => refused + failed;
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/**
 * @param {{ databases: Record<string, import('./databases.mjs').Database>, load: object, node: object, seconds: number,
 *   rows: number, folder: string, signal: AbortSignal, toStop: (() => Promise<void>)[] }} options
 */
export async function measureExpunge({ databases, load, node, seconds, rows, folder, signal, toStop }) {
  const results = [];
  for (const kind of ['mariadb', 'postgres'].filter((name) => databases[name])) {
    const database = databases[kind];
    const url = await database.create(`bench_expunge_node${node.major}`);
    const app = await startApp({ app: 'nest-visit', platform: 'fastify', database: kind, url }, node.program, signal);
    toStop.unshift(app.stop);
    const cookies = await signIn(app, ACTIVE);
    console.log(`${database.title}: filling in ${rows.toLocaleString('en')} stale visits`);
    await fill(database, kind, url, rows, signal);

    const targets = Object.entries(CONNECTIONS).map(([route, connections]) => ({
      url: app.url,
      path: `/${route}`,
      method: route === 'write' ? 'POST' : 'GET',
      connections,
      cookies,
    }));
    await both(load, targets, seconds);
    const before = await sumOf(app, cookies);
    const quiet = [];
    for (let round = 0; round < 5; round++) quiet.push(await both(load, targets, seconds));

    const file = join(folder, `expunge-${kind}.mjs`);
    const options = `{ type: '${kind}', url: '${url}', entities: [...visitEntities] }`;
    writeFileSync(file, `import { visitEntities } from '${entities}';\nexport default ${options};\n`);
    const locked = await deadlocks[kind](database, url);
    const began = performance.now();
    const limit = AbortSignal.any([signal, AbortSignal.timeout(MOST_MINUTES * 60_000)]);
    const done = { after: 0 };
    const expunging = Promise.all(Array.from({ length: PROCESSES }, () => expunge(file, limit))).finally(() => {
      done.after = performance.now() - began;
    });
    expunging.catch(() => {});
    const busy = [];
    while (done.after === 0) busy.push(await both(load, targets, seconds));
    const counts = await expunging;
    // The last load may have gone on after it.
    if (busy.length > 1) busy.pop();

    const sum = (await sumOf(app, cookies)) - before;
    const written = [...quiet, ...busy].reduce((total, one) => total + one.written, 0);
    const result = {
      name: database.title,
      rows: counts.reduce((total, { visits }) => total + visits, 0),
      wanted: rows,
      perSecond: rows / (done.after / 1000),
      p99: Object.fromEntries(
        Object.keys(CONNECTIONS).map((route) => {
          const of = (loads) => median(loads.map(({ p99 }) => p99[route])) / 1000;
          return [route, { quiet: of(quiet), busy: of(busy), ratio: of(busy) / of(quiet) }];
        }),
      ),
      rate: median(busy.map(({ rate }) => rate)) / median(quiet.map(({ rate }) => rate)),
      deadlocks: (await deadlocks[kind](database, url)) - locked,
      lost: Math.max(0, written - sum),
      failed: [...quiet, ...busy].reduce((total, one) => total + one.failed, 0),
      aim: AIM,
    };
    console.log(JSON.stringify(result));
    results.push(result);
    await app.stop();
  }
  return results;
}
