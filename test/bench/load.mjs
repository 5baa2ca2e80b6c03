// Two ways to load an application: wrk where it is installed, as it leaves more of a small machine to what is measured,
// or else autocannon. A fixed number of requests is always sent by autocannon, because wrk only knows durations.
import { fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { unwatch, watch } from '../support/servers.mjs';

const REQUEST_TIMEOUT = 10;
/** How much longer than it should a load may take. */
const GRACE = 20_000;
/** A load in slices ends after so many seconds, pauses included, whatever happens. */
const LONGEST = 1800;

/**
 * @typedef {{ url: string, path: string, method: string, cookies: string[], connections: number }} Target
 * @typedef {{ seconds: number, ok: number, refused: number, failed: number, latency: number, p99: number }} Result `ok`
 *   are answers with 2xx, `refused` all others, `failed` are requests without an answer. `p99` is in microseconds, as
 *   is `latency`: by wrk the median, by autocannon, which counts whole milliseconds, the mean.
 */

/** @param {{ folder: string, signal: AbortSignal, wanted?: string }} options `wanted`: "wrk" or "autocannon" */
export function openLoad({ folder, signal, wanted }) {
  const wrk = wanted === 'autocannon' ? undefined : wrkVersion();
  if (wanted === 'wrk' && !wrk) throw new Error('wrk is not installed');
  let worker;
  let loads = 0;

  /** @returns {Promise<Result>} */
  async function byAutocannon({ url, path, ...target }, limits, timeout) {
    worker ??= fork(fileURLToPath(new URL('load-worker.mjs', import.meta.url)), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
    worker.send({ ...target, ...limits, url: url + path, timeout: REQUEST_TIMEOUT });
    try {
      const [answer] = await once(worker, 'message', { signal: limit });
      if (answer.error) throw new Error(answer.error);
      return answer;
    } catch (error) {
      // It may still be at work on this load, and would disturb the next.
      worker.kill('SIGKILL');
      worker = undefined;
      throw error;
    }
  }

  function startWrk({ url, path, method, cookies, connections }, seconds, timeout = REQUEST_TIMEOUT) {
    const file = join(folder, `cookies-${++loads}`);
    writeFileSync(file, cookies.map((cookie) => `${cookie}\n`).join(''));
    // It takes whole units only, but knows "ms" not at all.
    const options = ['-t1', `-c${connections}`, `-d${seconds}s`, `--timeout=${timeout}s`, '-s'];
    const script = fileURLToPath(new URL('load.lua', import.meta.url));
    const child = spawn('wrk', [...options, script, url + path, '--', method, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
      signal: AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000 + GRACE)]),
      // Whatever else would wait for the end of a pause.
      killSignal: 'SIGKILL',
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (output += text));
    const closed = once(child, 'close');
    // Until somebody waits for it.
    closed.catch(() => {});
    return {
      child,
      /** @returns {Promise<Result>} */
      async result() {
        const [code] = await closed;
        if (code !== 0) throw new Error(`wrk ended with ${code}: ${output}`);
        return JSON.parse(output.slice(output.lastIndexOf('\n{')));
      },
    };
  }

  function wrkInSlices(target) {
    // A pause is no delay.
    const load = startWrk(target, LONGEST, LONGEST);
    const { child } = load;
    child.kill('SIGSTOP');
    const entry = `process ${child.pid}`;
    watch(entry);
    return {
      async slice(seconds) {
        child.kill('SIGCONT');
        await pause(seconds * 1000);
        child.kill('SIGSTOP');
      },
      async end() {
        child.kill('SIGCONT');
        // Only its first thread heeds it, and the system may give it to another while that has not gone on yet.
        const timer = setInterval(() => child.kill('SIGINT'), 50);
        try {
          return await load.result();
        } finally {
          clearInterval(timer);
          unwatch(entry);
        }
      },
    };
  }

  function autocannonInSlices(target) {
    const sum = { ok: 0, refused: 0, failed: 0 };
    return {
      async slice(seconds) {
        const result = await byAutocannon(target, { duration: seconds }, seconds * 1000 + GRACE);
        for (const name of Object.keys(sum)) sum[name] += result[name];
      },
      end: async () => sum,
    };
  }

  return {
    name: wrk ?? autocannonVersion(),
    /** wrk only takes whole seconds. */
    seconds: (wished) => (wrk ? Math.max(1, Math.round(wished)) : wished),
    /** @param {Target} target */
    during: (target, seconds) =>
      wrk ? startWrk(target, seconds).result() : byAutocannon(target, { duration: seconds }, seconds * 1000 + GRACE),
    /**
     * A load that pauses but for its slices. Autocannon opens its connections anew for each.
     * @param {Target} target
     * @returns {{ slice: (seconds: number) => Promise<void>, end: () => Promise<{ ok: number, refused: number, failed:
     *   number }> }}
     */
    inSlices: (target) => (wrk ? wrkInSlices(target) : autocannonInSlices(target)),
    /** @param {Target} target */
    exactly: (target, amount) => byAutocannon(target, { amount }, 60_000),
    async close() {
      if (!worker) return;
      const ended = once(worker, 'exit');
      worker.kill('SIGKILL');
      await ended;
    },
  };
}

function wrkVersion() {
  const { stdout, error } = spawnSync('wrk', ['--version'], { encoding: 'utf8' });
  if (error) return undefined;
  return `wrk ${/\d+(?:\.\d+)*/.exec(stdout)?.[0] ?? ''}`.trim();
}

function autocannonVersion() {
  return `autocannon ${createRequire(import.meta.url)('autocannon/package.json').version}`;
}
