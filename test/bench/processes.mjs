// The applications: each in a process of its own, on the Node that it is to be measured with.
import { fork, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const START_TIMEOUT = 30_000;
const STOP_TIMEOUT = 5000;
const main = fileURLToPath(new URL('apps/main.mjs', import.meta.url));

/** The programs of the wished major versions of Node: `[{ major, version, program }]`. Others than ours come by npx. */
export function findNodes(majors) {
  const own = process.versions.node.split('.')[0];
  return (majors.length > 0 ? majors : [own]).map((major) => {
    const [program, version] = major === own ? [process.execPath, process.version] : nodeByNpx(major);
    return { major: Number(major), version, program };
  });
}

function nodeByNpx(major) {
  const print = 'process.execPath + "\\n" + process.version';
  const { stdout, stderr, status } = spawnSync('npx', ['-y', '-p', `node@${major}`, 'node', '-p', print], {
    encoding: 'utf8',
    timeout: 180_000,
  });
  if (status !== 0) throw new Error(`Node ${major} could not be had: ${stderr}`);
  return stdout.trim().split('\n');
}

/** Starts an application; the settings are those of apps/main.mjs, the flags those of Node. */
export async function startApp(settings, program, signal, flags = []) {
  const child = fork(main, [JSON.stringify(settings)], {
    execPath: program,
    execArgv: flags,
    env: { ...process.env, NODE_ENV: 'production' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (printed = (printed + text).slice(-4000)));
  }
  // Of messages to one that has ended, which its end tells anyway.
  child.on('error', () => {});
  const ended = new Promise((resolve) => child.once('exit', (code, reason) => resolve(reason ?? code)));

  async function answer(timeout) {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
    return Promise.race([
      new Promise((resolve, reject) => {
        child.once('message', resolve);
        limit.addEventListener('abort', () => reject(limit.reason), { once: true });
      }),
      ended.then((code) => Promise.reject(new Error(`The application ended with ${code}:\n${printed}`))),
    ]);
  }

  /** Since its start: `cpu` is the time of all its threads in microseconds. */
  function usage() {
    child.send('usage');
    return answer(10_000);
  }

  async function stop() {
    if (child.exitCode !== null || child.signalCode !== null) return;
    if (child.connected) child.send('stop');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT);
    await ended;
    clearTimeout(timer);
  }

  try {
    const { url } = await answer(START_TIMEOUT);
    return {
      url,
      stop,
      /** What it has printed lately. */
      printed: () => printed,
      /** The resident set in bytes. */
      memory: async () => (await usage()).rss,
      usage,
    };
  } catch (error) {
    child.kill('SIGKILL');
    await ended;
    throw error;
  }
}
