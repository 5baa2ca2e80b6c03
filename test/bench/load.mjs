// Two ways to load an application: wrk where it is installed, as it leaves more of a small machine to what is measured, or else
// autocannon. A fixed number of requests is always sent by autocannon, because wrk only knows durations.
import { fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const REQUEST_TIMEOUT = 10;
/** How much longer than it should a load may take. */
const GRACE = 20_000;

/**
 * @typedef {{ url: string, path: string, method: string, cookies: string[], connections: number }} Target
 * @typedef {{ seconds: number, ok: number, refused: number, failed: number, p99: number }} Result
 *   `ok` are answers with 2xx, `refused` all others, `failed` are requests without an answer. `p99` is in microseconds.
 */

/** @param {{ folder: string, signal: AbortSignal, wanted?: string }} options `wanted`: "wrk" or "autocannon" */
export function openLoad({ folder, signal, wanted }) {
  const wrk = wanted === 'autocannon' ? undefined : wrkVersion();
  if (wanted === 'wrk' && !wrk) throw new Error('wrk is not installed');
  let worker;
  let loads = 0;

  /** @returns {Promise<Result>} */
  async function byAutocannon({ url, path, ...target }, limits, timeout) {
    worker ??= fork(fileURLToPath(new URL('load-worker.mjs', import.meta.url)), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
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

  /** @returns {Promise<Result>} */
  async function byWrk({ url, path, method, cookies, connections }, seconds) {
    const file = join(folder, `cookies-${++loads}`);
    writeFileSync(file, cookies.map((cookie) => `${cookie}\n`).join(''));
    // It takes whole units only, but knows "ms" not at all.
    const options = ['-t1', `-c${connections}`, `-d${seconds}s`, `--timeout=${REQUEST_TIMEOUT}s`, '-s'];
    const script = fileURLToPath(new URL('load.lua', import.meta.url));
    const child = spawn('wrk', [...options, script, url + path, '--', method, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
      signal: AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000 + GRACE)]),
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (output += text));
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(`wrk ended with ${code}: ${output}`);
    return JSON.parse(output.slice(output.lastIndexOf('\n{')));
  }

  return {
    name: wrk ?? autocannonVersion(),
    /** wrk only takes whole seconds. */
    seconds: (wished) => (wrk ? Math.max(1, Math.round(wished)) : wished),
    /** @param {Target} target */
    during: (target, seconds) => (wrk ? byWrk(target, seconds) : byAutocannon(target, { duration: seconds }, seconds * 1000 + GRACE)),
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
