// Private database servers for tests: on 127.0.0.1 and a free port, with fresh data in a folder of their own, as durable as
// they are in production. Built-in modules only, so that test/run.mjs can load it before anything is installed; the
// database drivers are loaded when the first server starts.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** How long a server may take to start, on a busy machine. */
const START_TIMEOUT = 180_000;
const STOP_TIMEOUT = 60_000;
const MAX_CONNECTIONS = 200;

const isRoot = process.getuid?.() === 0;

// ---- What is installed

const POSTGRES_HOME = '/usr/lib/postgresql';
/** Of PostgreSQL the newest version, where Debian keeps several. */
const postgresFolders = existsSync(POSTGRES_HOME)
  ? readdirSync(POSTGRES_HOME)
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(POSTGRES_HOME, version, 'bin'))
  : [];
const PREFIXES = ['/usr', '/usr/local', '/opt/homebrew'];
const PROGRAMS = [...PREFIXES.flatMap((prefix) => [`${prefix}/bin`, `${prefix}/sbin`]), '/usr/libexec', ...postgresFolders];
const CHROME_ON_MAC = '/Applications/Google Chrome.app/Contents/MacOS';
const LIBRARIES = PREFIXES.flatMap((prefix) =>
  ['lib/galera', 'lib/galera-4', 'lib64/galera', 'lib64/galera-4', 'lib', 'lib64', 'lib/x86_64-linux-gnu', 'lib/aarch64-linux-gnu'].map(
    (folder) => `${prefix}/${folder}`,
  ),
);

/**
 * The file with the first of these names that is installed, or undefined. Looked for on the PATH and then in `folders`; with
 * VISIT_TEST_PATH set only in the folders that it names.
 */
function find(names, folders = PROGRAMS) {
  const only = process.env.VISIT_TEST_PATH;
  const searched = (only ?? [process.env.PATH, ...folders].join(delimiter)).split(delimiter).filter(Boolean);
  return names.flatMap((name) => searched.map((folder) => join(folder, name))).find(isUsable);
}

function isUsable(file) {
  try {
    accessSync(file, file.endsWith('.so') ? constants.R_OK : constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export const findMariaDb = () => find(['mariadbd', 'mysqld']);
export const findRedis = () => find(['redis-server', 'valkey-server']);
/** The library that makes MariaDB a node of a cluster. */
export const findGalera = () => process.env.VISIT_TEST_GALERA || find(['libgalera_smm.so'], LIBRARIES);

export const findPgBouncer = () => process.env.VISIT_TEST_PGBOUNCER || find(['pgbouncer']);

export const findMemcached = () => find(['memcached']);
export const findChromium = () =>
  find(['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'Google Chrome'], [...PROGRAMS, CHROME_ON_MAC]);

export function findPostgres() {
  const [postgres, initdb] = [find(['postgres']), find(['initdb'])];
  return postgres && initdb ? { postgres, initdb } : undefined;
}

// ---- What must not outlive this process

let watchdog;
const watched = new Set();

/** Has `entry` ("process <id>" or "folder <path>") removed should this process end without `unwatch`, even by SIGKILL. */
export function watch(entry) {
  if (!watchdog) {
    // In a group of its own: Ctrl-C in a terminal must not reach it.
    watchdog = spawn(process.execPath, [fileURLToPath(new URL('watchdog.mjs', import.meta.url))], {
      stdio: ['pipe', 'ignore', 'inherit'],
      detached: true,
    });
    watchdog.stdin.on('error', () => {});
    watchdog.unref();
    watchdog.stdin.unref?.();
  }
  watched.add(entry);
  watchdog.stdin.write(`+${entry}\n`);
}

/** Says that `entry` is gone. The promise is that of the watchdog's end, when that was the last one. */
export async function unwatch(entry) {
  if (!watched.delete(entry)) return;
  const dog = watchdog;
  dog.stdin.write(`-${entry}\n`);
  if (watched.size > 0) return;
  watchdog = undefined;
  const ended = new Promise((resolve) => dog.once('exit', resolve));
  dog.ref();
  dog.stdin.end();
  await ended;
}

/** A fresh folder in the system's folder for such, removed with this process at the latest. */
export function temporaryFolder(name) {
  const path = mkdtempSync(join(tmpdir(), `nest-visit-${name}-`));
  // PostgreSQL runs as another user than root and must get through to its folder.
  if (isRoot) chmodSync(path, 0o711);
  const entry = `folder ${path}`;
  watch(entry);
  return {
    path,
    async remove() {
      rmSync(path, { recursive: true, force: true, maxRetries: 5 });
      await unwatch(entry);
    },
  };
}

// ---- Servers

/** A port that nothing listens on, below the range that systems take the ports of outgoing connections from: it stays free for a restart. */
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

/** Runs a program to its end; an error carries what it printed. */
function runToEnd(command, args, options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? `${stdout}\n${stderr}`}`);
}

/**
 * One server: its folder and port stay the same through `kill` and `restart`.
 * `recipe` says how to run it: `{ name, command, args(port), options, readyLine, stopSignal, url(port), largestFile?, prepare?(port), cleanUp?() }`.
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

  /** Kills it without a warning (SIGKILL), its own child processes too, and waits until all are gone. The data stays. */
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

  /** Stops it, waits for its end and removes its data. */
  async stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.#end();
    this.#recipe.cleanUp?.();
    await this.#folder.remove();
  }
}

/** The ids of a process's children. Not by the group: those of PostgreSQL make groups of their own. */
function childrenOf(pid) {
  const [file, command] = [`/proc/${pid}/task/${pid}/children`, `ps -A -o pid=,ppid= | awk '$2 == ${pid} { print $1 }'`];
  const text = existsSync(file) ? readFileSync(file, 'utf8') : spawnSync('/bin/sh', ['-c', command], { encoding: 'utf8' }).stdout;
  return text.split(/\s+/).filter(Boolean).map(Number);
}

/** How to start a program whose files get no longer than so many bytes: a write beyond is an error, and not the end of the process. */
function limited(largestFile, command, args) {
  if (largestFile === undefined) return [command, args];
  return ['/bin/sh', ['-c', `trap '' XFSZ; ulimit -f ${largestFile / 512}; exec "$0" "$@"`, command, ...args]];
}
/** Starts a server in a folder of its own; nothing stays when that fails. */
async function startServer(name, recipeFor) {
  const folder = temporaryFolder(name);
  let server;
  try {
    server = new Server(recipeFor(folder.path), folder);
    return await server.start();
  } catch (error) {
    await server?.stop();
    await folder.remove();
    throw error;
  }
}

/**
 * Starts MariaDB, or MySQL where that is what is installed. The URL names the user `root`, without a password, and the
 * database `visit`. `args` are further arguments of the server.
 */
export async function startMariaDb({ args: more = [] } = {}) {
  const program = findMariaDb();
  if (!program) throw new Error('Neither MariaDB nor MySQL is installed');
  return startServer('mariadb', (folder) => {
    const data = join(folder, 'data');
    const asRoot = isRoot ? ['--user=root'] : [];
    const isMariaDb = spawnSync(program, ['--no-defaults', '--version'], { encoding: 'utf8' }).stdout?.includes('MariaDB');
    // A server clears its folder for temporary files when it starts: shared, it would take those of others.
    const temporary = join(folder, 'tmp');
    mkdirSync(temporary);
    const common = ['--no-defaults', ...asRoot, `--datadir=${data}`, `--tmpdir=${temporary}`];
    if (isMariaDb) {
      const install = find(['mariadb-install-db', 'mysql_install_db']);
      if (!install) throw new Error(`${program} is installed, but mariadb-install-db is not`);
      runToEnd(install, [...common, '--auth-root-authentication-method=normal', '--skip-test-db']);
    } else {
      runToEnd(program, [...common, '--initialize-insecure']);
    }

    // Read at every start, before the server answers. MySQL has no root@127.0.0.1 of its own.
    const initial = join(folder, 'init.sql');
    const user = "'root'@'127.0.0.1'";
    writeFileSync(
      initial,
      `CREATE USER IF NOT EXISTS ${user};\nGRANT ALL PRIVILEGES ON *.* TO ${user} WITH GRANT OPTION;\n` +
        'CREATE DATABASE IF NOT EXISTS visit CHARACTER SET utf8mb4;\n',
    );
    return {
      name: isMariaDb ? 'MariaDB' : 'MySQL',
      command: program,
      args: (port) => [
        ...common,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        `--socket=${join(folder, 'socket')}`,
        `--pid-file=${join(folder, 'pid')}`,
        `--init-file=${initial}`,
        '--skip-name-resolve',
        '--character-set-server=utf8mb4',
        `--max-connections=${MAX_CONNECTIONS}`,
        // MySQL's second protocol listens on a port of its own.
        ...(isMariaDb ? [] : ['--mysqlx=OFF']),
        ...more,
      ],
      options: { cwd: folder },
      readyLine: 'ready for connections',
      stopSignal: 'SIGTERM',
      url: (port) => `mysql://root@127.0.0.1:${port}/visit`,
    };
  });
}

/** What copies a server of PostgreSQL. */
export const findPgBaseBackup = () => find(['pg_basebackup']);

/** The account to run PostgreSQL as, which refuses to run as root: undefined for our own. */
function postgresAccount() {
  if (!isRoot) return undefined;
  const accounts = readFileSync('/etc/passwd', 'utf8');
  const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+)/m.exec(accounts) ?? /^nobody:[^:]*:(\d+):(\d+)/m.exec(accounts) ?? [];
  if (!uid) throw new Error('PostgreSQL does not run as root, and there is neither a user "postgres" nor "nobody"');
  return { uid: Number(uid), gid: Number(gid) };
}

/**
 * Starts PostgreSQL. The URL names the user `postgres`, without a password, and the database `visit`. `args` are further arguments of the
 * server; no file of it gets longer than `largestFile` bytes, as on a disk that is full. With `standbyOf`, the URL of another one, it is a
 * copy of that and follows it.
 */
export async function startPostgres({ args: more = [], largestFile, standbyOf } = {}) {
  const programs = findPostgres();
  if (!programs) throw new Error('PostgreSQL is not installed');
  return startServer('postgres', (folder) => {
    const data = join(folder, 'data');
    const account = postgresAccount();
    if (account) chownSync(folder, account.uid, account.gid);
    // No variable such as PGPORT or LC_ALL of whoever runs the tests may change the server or the language of its log.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/.test(name)));
    const options = { ...account, cwd: folder, env: { ...env, LC_ALL: 'C' } };
    if (standbyOf) runToEnd(findPgBaseBackup(), ['-D', data, '-R', '-c', 'fast', '-d', serverOnly(standbyOf)], options);
    else runToEnd(programs.initdb, ['-D', data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C', '--no-sync'], options);
    return {
      name: 'PostgreSQL',
      command: programs.postgres,
      args: (port) => {
        const listening = ['-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-N', String(MAX_CONNECTIONS)];
        // The path of a Unix socket must be short, and nobody needs one.
        return ['-D', data, ...listening, '-c', 'unix_socket_directories=', ...more];
      },
      options,
      largestFile,
      readyLine: 'database system is ready to accept',
      stopSignal: 'SIGINT',
      url: (port) => `postgres://postgres@127.0.0.1:${port}/visit`,
      async prepare(port) {
        if (standbyOf) return;
        const { default: pg } = await import('pg');
        const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` });
        await client.connect();
        try {
          await client.query('CREATE DATABASE visit');
        } finally {
          await client.end();
        }
      },
      cleanUp: () => removeSharedMemory(data),
    };
  });
}

/**
 * Starts PgBouncer in front of a PostgreSQL, with few connections to it, so that clients take turns. The URL names the same user and
 * database as `server`. `mode` is its `pool_mode`.
 */
export async function startPgBouncer(server, mode) {
  const program = findPgBouncer();
  if (!program) throw new Error('PgBouncer is not installed');
  const target = new URL(server);
  return startServer('pgbouncer', (folder) => {
    const account = postgresAccount();
    const settings = join(folder, 'pgbouncer.ini');
    if (account) chownSync(folder, account.uid, account.gid);
    const destination = `host=${target.hostname} port=${target.port} user=${target.username}`;
    const writeSettings = (port) =>
      writeFileSync(
        settings,
        `[databases]\n* = ${destination}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${port}\nunix_socket_dir =\n` +
          `auth_type = any\npool_mode = ${mode}\ndefault_pool_size = 3\nmax_client_conn = 200\n`,
      );
    return {
      name: 'PgBouncer',
      command: program,
      args: (port) => (writeSettings(port), [settings]),
      options: { ...account, cwd: folder },
      readyLine: 'process up',
      stopSignal: 'SIGTERM',
      url: (port) => Object.assign(new URL(target), { port: String(port) }).href,
    };
  });
}

/** A URL without its database. */
const serverOnly = (url) => Object.assign(new URL(url), { pathname: '' }).href;

/** After SIGKILL, PostgreSQL's segment of shared memory stays until the next start from the same folder. */
function removeSharedMemory(data) {
  const pidFile = join(data, 'postmaster.pid');
  if (!existsSync(pidFile)) return;
  const segment = readFileSync(pidFile, 'utf8').split('\n')[6]?.trim().split(/\s+/)[1];
  if (segment) spawnSync('ipcrm', ['-m', segment]);
}

/**
 * Starts Redis, or Valkey where that is what is installed, in memory only. `args` are further arguments of the server, such as
 * `--appendonly yes` for data that survives a restart.
 */
export async function startRedis({ args: more = [] } = {}) {
  const program = findRedis();
  if (!program) throw new Error('Neither Redis nor Valkey is installed');
  const isValkey = spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.includes('Valkey');
  return startServer('redis', (folder) => ({
    name: isValkey ? 'Valkey' : 'Redis',
    command: program,
    args: (port) => ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', ...more],
    options: { cwd: folder },
    readyLine: 'Ready to accept connections',
    stopSignal: 'SIGTERM',
    url: (port) => `redis://127.0.0.1:${port}`,
  }));
}

/** Starts memcached, which keeps nothing but in memory. */
export async function startMemcached() {
  const program = findMemcached();
  if (!program) throw new Error('memcached is not installed');
  return startServer('memcached', (folder) => ({
    name: 'memcached',
    command: program,
    args: (port) => ['-l', '127.0.0.1', '-p', String(port), '-U', '0', '-vv', ...(isRoot ? ['-u', 'root'] : [])],
    options: { cwd: folder },
    readyLine: 'server listening',
    // It only says so when it is told to say everything.
    prepare: async (port) => {
      const socket = connect(port, '127.0.0.1');
      socket.end('verbosity 0\r\nquit\r\n');
      await once(socket.resume(), 'close');
    },
    stopSignal: 'SIGTERM',
    url: (port) => `127.0.0.1:${port}`,
  }));
}

const SLOTS = 16_384;

/** Starts a cluster of three servers without replicas. The URL is those of the nodes, with commas between. `args` are further arguments of each. */
export async function startRedisCluster({ args: more = [] } = {}) {
  const nodes = [];
  const stop = async () => void (await Promise.all(nodes.map((node) => node.stop())));
  try {
    for (let index = 0; index < 3; index++) nodes.push(await startRedis({ args: ['--cluster-enabled', 'yes', ...more] }));
    await becomeCluster(nodes);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    name: `${nodes[0].name} cluster`,
    url: nodes.map(({ url }) => url).join(','),
    port: nodes.map(({ port }) => port).join(', 127.0.0.1:'),
    nodes,
    stop,
  };
}

/** Makes servers one cluster: a share of the slots for each, and acquaintance with each other. */
async function becomeCluster(nodes) {
  const { createClient } = await import('redis');
  const clients = nodes.map(({ url }) => createClient({ url }).on('error', () => {}));
  await Promise.all(clients.map((client) => client.connect()));
  try {
    const share = Math.ceil(SLOTS / nodes.length);
    for (const [index, client] of clients.entries()) {
      const [first, last] = [index * share, Math.min(SLOTS, (index + 1) * share) - 1];
      await client.sendCommand(['CLUSTER', 'ADDSLOTSRANGE', String(first), String(last)]);
      if (index > 0) await client.sendCommand(['CLUSTER', 'MEET', '127.0.0.1', String(nodes[0].port)]);
    }
    const isJoined = async (client) => {
      const info = String(await client.sendCommand(['CLUSTER', 'INFO']));
      return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${nodes.length}`);
    };
    const deadline = Date.now() + START_TIMEOUT;
    while (!(await Promise.all(clients.map(isJoined))).every(Boolean)) {
      if (Date.now() > deadline) throw new Error('The servers do not become a cluster');
      await pause(50);
    }
  } finally {
    for (const client of clients) client.destroy();
  }
}
