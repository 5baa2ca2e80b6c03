// One application from its start to its end: prepared, warmed up, loaded, checked.
import { setTimeout as pause } from 'node:timers/promises';
import { startApp } from './processes.mjs';
import { signIn, sumOf } from './sessions.mjs';

const SESSIONS = 200;
/** Sessions that the exact check shares among its 64 connections, so that writes do meet. */
const CONTESTED = 20;

/**
 * @typedef {object} Sample
 * @property {number} [rate] answers with 2xx in a second
 * @property {number} [cpu] microseconds of CPU time that the application took for a request, of all its threads
 * @property {number} [latency] in microseconds
 * @property {number} [statements] of the database for 1,000 requests
 * @property {number} [refused] answers with another status
 * @property {number} [failed] requests without an answer
 * @property {number} [lost] answered writes that are not in the sum of counters
 * @property {number} [surplus] what is in that sum beyond all writes that were sent
 * @property {string} [error]
 */

export async function startSubject(subject, { databases, load, signal, mode }) {
  const { variant, platform, node, flags } = subject;
  const database = databases[variant.database];
  const url = await database?.create(`bench_${subject.key.replace(/\W+/g, '_')}`);
  const settings = { app: variant.app, platform, store: variant.store, database: variant.database, url };
  const app = await startApp(settings, node.program, signal, flags);

  let cookies;
  let sum = 0;
  const target = (route, method, connections) => ({ url: app.url, path: `/${route}`, method, cookies, connections });

  /** Compares the counters with the answers. A write may also have been done whose answer nobody waited for. */
  async function audit(answered, unanswered) {
    const before = sum;
    // Those whose connection was cut in the end are still being served.
    for (let rest = 20, last; rest > 0 && sum !== last; rest--) {
      last = sum;
      await pause(150);
      sum = await sumOf(app, cookies);
    }
    const counted = sum - before;
    return { lost: Math.max(0, answered - counted), surplus: Math.max(0, counted - answered - unanswered) };
  }

  /** @returns {Promise<Sample>} */
  async function measure({ route, method, connections }, seconds) {
    // It has been idle for minutes: by now the system may have taken its memory, the more the larger it is.
    const early = await load.during(target(route, method, connections), 1);
    const before = await database?.statements();
    const result = await load.during(target(route, method, connections), seconds);
    const after = await database?.statements();
    const { ok } = result;
    const refused = early.refused + result.refused;
    const failed = early.failed + result.failed;
    return {
      rate: ok / result.seconds,
      latency: result.latency,
      refused,
      failed,
      statements: after === undefined ? undefined : ((after - before) / (ok + result.refused)) * 1000,
      ...(method === 'POST' && variant.counts && (await audit(early.ok + ok, refused + failed + 2 * connections))),
    };
  }

  /** A load in slices, which goes on only while one of them lasts. */
  async function open({ route, method, connections }) {
    const running = load.inSlices(target(route, method, connections));
    return {
      slice: running.slice,
      usage: app.usage,
      /** @returns {Promise<Sample>} */
      async end() {
        const { ok, refused, failed } = await running.end();
        const audited = method === 'POST' && variant.counts;
        return { refused, failed, ...(audited && (await audit(ok, refused + failed + 2 * connections))) };
      },
    };
  }

  try {
    cookies = await signIn(app, SESSIONS);
    const warmUp = mode === 'quick' ? 600 : 3000;
    await load.exactly(target('static', 'GET', 64), warmUp);
    await load.exactly(target('read', 'GET', 64), warmUp);
    const contested = { ...target('write', 'POST', 64), cookies: cookies.slice(0, CONTESTED) };
    const { ok, refused, failed } = await load.exactly(contested, warmUp / 3);
    const audited = variant.app !== 'bare' && !variant.routes && variant.counts !== false;
    const counts = audited ? await audit(ok, refused + failed) : {};
    return {
      subject,
      measure,
      open,
      /** Of writes that met in the same session, each of which was waited for. */
      warmUp: { answered: ok, refused, failed, ...counts },
      warmMemory: await app.memory(),
      memory: () => app.memory(),
      printed: app.printed,
      stop: app.stop,
    };
  } catch (error) {
    await app.stop();
    throw new Error(`${subject.key} could not be prepared: ${error.message}\n${app.printed()}`, { cause: error });
  }
}
