import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { temporaryFolder, unwatch, watch } from './watched.mjs';

/** How long a server may take to start, on a busy machine. */
export const START_TIMEOUT = 180_000;
const STOP_TIMEOUT = 60_000;
/** Of each database. */
export const MAX_CONNECTIONS = 200;

/**
 * A port that nothing listens on, below the range that systems take the ports of outgoing connections from: it stays
 * free for a restart.
 */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const probe = createServer();
    const free = await new Promise((resolve) => {
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

const execute = promisify(execFile);

/** Runs a program to its end, beside those of other servers; an error carries what it printed. */
export async function runToEnd(command, args, options) {
  try {
    await execute(command, args, options);
  } catch (error) {
    throw new Error(`${command} failed: ${error.message}\n${error.stdout ?? ''}`, { cause: error });
  }
}

/**
 * One server: its folder and port stay the same through `kill` and `restart`. `recipe` says how to run it:
 * `{ name, command, args(port), options, readyLine, stopSignal, url(port), largestFile?, prepare?(port), cleanUp?() }`.
 */
class Server {
  #recipe;
  #folder;
  #child;
  #ended;
  #log = [];
  #stopped = false;

  constructor(recipe, folder) {
    this.#recipe = recipe;
    this.#folder = folder;
    this.name = recipe.name;
    this.folder = folder.path;
  }

  get url() {
    return this.#recipe.url(this.port);
  }

  get pid() {
    return this.#child?.pid;
  }

  log() {
    return this.#log.join('\n');
  }

  /** Starts it on a free port; another program may be quicker to take that port, so more than once. */
  async start() {
    for (let attempt = 1; ; attempt++) {
      this.port = await freePort();
      try {
        await this.#launch();
        break;
      } catch (error) {
        if (attempt === 3 || !/address already in use/i.test(this.log())) throw error;
      }
    }
    await this.#recipe.prepare?.(this.port);
    return this;
  }

  async #launch() {
    const { name, command, args, options, readyLine, largestFile } = this.#recipe;
    this.#log = [];
    // In a group of its own: Ctrl-C in a terminal must not reach the server before the tests have ended.
    const child = spawn(...limited(largestFile, command, args(this.port)), {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    let ready;
    const isReady = new Promise((resolve) => (ready = resolve));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.#log.push(line);
        if (this.#log.length > 500) this.#log.shift();
        if (line.includes(readyLine)) ready('ready');
      });
    }
    const ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code, signal) => resolve(`it ended with ${signal ?? code}`));
    });
    this.#child = child;
    this.#ended = ended;
    if (child.pid) {
      const entry = `process ${child.pid}`;
      watch(entry);
      void ended.then(() => unwatch(entry));
    }

    const timer = new AbortController();
    const outcome = await Promise.race([
      isReady,
      ended,
      pause(START_TIMEOUT, 'it is not ready in time', { signal: timer.signal }).catch(() => {}),
    ]);
    timer.abort();
    if (outcome === 'ready') return;
    child.kill('SIGKILL');
    await ended;
    throw new Error(`${name} did not start: ${outcome}\n${this.log()}`);
  }

  /**
   * Kills it without a warning (SIGKILL), its own child processes too, and waits until all are gone. The data stays.
   */
  async kill() {
    const { pid } = this;
    if (!pid || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const children = childrenOf(pid);
    this.#child.kill('SIGKILL');
    for (const id of children) {
      try {
        process.kill(id, 'SIGKILL');
      } catch {
        // It ended with its parent.
      }
    }
    // Comes when the last of them has let go of the log, which a process does after its memory.
    await this.#ended;
  }

  /** Starts it again after `kill`, or stops it in order and starts it: the same port, folder and URL. */
  async restart() {
    if (this.#stopped) throw new Error(`${this.name} was stopped, and its data is gone`);
    await this.#end();
    await this.#launch();
  }

  async #end() {
    if (!this.#child?.pid) return;
    // SIGINT is PostgreSQL's "fast" stop, which does not wait for clients; SIGTERM would.
    this.#child.kill(this.#recipe.stopSignal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT);
    await this.#ended;
    clearTimeout(timer);
  }

  /** Ends it for good and removes its data, so it need not leave them in order: that takes a server seconds. */
  async stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.kill();
    this.#recipe.cleanUp?.();
    await this.#folder.remove();
  }
}

/** The ids of a process's children. Not by the group: those of PostgreSQL make groups of their own. */
function childrenOf(pid) {
  const [file, command] = [
    `/proc/${pid}/task/${pid}/children`,
    `ps -A -o pid=,ppid= | awk '$2 == ${pid} { print $1 }'`,
  ];
  const text = existsSync(file)
    ? readFileSync(file, 'utf8')
    : spawnSync('/bin/sh', ['-c', command], { encoding: 'utf8' }).stdout;
  return text.split(/\s+/).filter(Boolean).map(Number);
}

/**
 * How to start a program whose files get no longer than so many bytes: a write beyond is an error, and not the end of
 * the process.
 */
function limited(largestFile, command, args) {
  if (largestFile === undefined) return [command, args];
  return ['/bin/sh', ['-c', `trap '' XFSZ; ulimit -f ${largestFile / 512}; exec "$0" "$@"`, command, ...args]];
}

/** Starts a server in a folder of its own; nothing stays when that fails. */
export async function startServer(name, recipeFor) {
  const folder = temporaryFolder(name);
  let server;
  try {
    server = new Server(await recipeFor(folder.path), folder);
    return await server.start();
  } catch (error) {
    await server?.stop();
    await folder.remove();
    throw error;
  }
}
