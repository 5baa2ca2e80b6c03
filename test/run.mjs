// What `npm test` runs, on a fresh clone too. Built-in modules only, until the dependencies are installed.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installDependencies, npm, requireNode } from '../sample/install.mjs';
import {
  findChromium,
  findGalera,
  findMariaDb,
  findMemcached,
  findPostgres,
  findRedis,
  startMariaDb,
  startMemcached,
  startPostgres,
  startRedis,
  startRedisCluster,
  temporaryFolder,
  unwatch,
  watch,
} from './support/servers.mjs';

const HELP = `npm test [-- [--quick] [arguments and filters of vitest]]

Installs the dependencies where that is due, builds, checks types, lints, checks the formatting, starts private database
servers on free ports of 127.0.0.1, runs the tests and removes all of it again. The last line is "N passed, N failed", with
", N skipped" where tests were skipped; the exit code is 0 only when something passed and nothing failed.

  npm test -- --quick                  only the tests; those of the built package use the last build
  npm test -- test/unit                only the files whose path contains this
  npm test -- -t "signs in"            only the tests whose name matches
  npm test -- --coverage               what else vitest knows
  npm run test:soak                    the tests that look for rare things, for an hour or two: every order of statements,
                                       longer load, more random input; takes filters, too

On Debian and Ubuntu, root gets missing servers and the browser installed by apt-get. Suites whose server is missing are
skipped and named; with CI=true they fail.

Environment:
  CI=true                   a suite that could not run is a failure
  VISIT_TEST_MYSQL_URL      use this MariaDB or MySQL, such as mysql://root@127.0.0.1:3306/visit; its user must be
                            allowed to create databases
  VISIT_TEST_POSTGRES_URL   use this PostgreSQL, such as postgres://postgres@127.0.0.1:5432/visit; likewise
  VISIT_TEST_REDIS_URL      use this Redis or Valkey, such as redis://127.0.0.1:6379; only keys that begin with
                            "nest-visit-test-" are written
  VISIT_TEST_REDIS_CLUSTER_URLS
                            use this cluster of Redis or Valkey: the URLs of some of its nodes, with commas between
  VISIT_TEST_MEMCACHED_URL  use this memcached, such as 127.0.0.1:11211; only keys that begin with "nest-visit-test-" are written
  VISIT_TEST_CHROMIUM       use this browser: the path of Chromium or Chrome
  VISIT_TEST_GALERA         use this library for clusters of MariaDB: the path of libgalera_smm.so
  VISIT_TEST_SEED           the seed that a test with random input has printed: the same input again
  VISIT_TEST_NO_INSTALL=1   do not install servers or the browser
  VISIT_TEST_PATH           look for servers and the browser in these folders only, and install none; the path of an
                            empty folder stands for a machine without them`;

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (path) => join(root, path);
const isCi = ['true', '1'].includes(process.env.CI ?? '');

const SOAKED = ['test/interleaving', 'test/model', 'test/chaos', 'test/fuzz'];

const tally = { passed: 0, failed: 0, skipped: 0 };
/** What to read again at the end, above the last line. */
const remarks = [];

// ---- Child processes, and Ctrl-C

let interruptedBy;
let stopChild = () => {};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    if (!interruptedBy) console.log(`\nStopping on ${signal} …`);
    interruptedBy ??= signal;
    stopChild();
  });
}
// A reader that left, as in `npm test | head`, must not keep us from stopping the servers.
process.stdout.on('error', () => {});

class Interrupted extends Error {}

/**
 * Runs a program to its end and gives its exit code. Ctrl-C ends it, with all processes it started; one that must not be
 * left half-way (`patient`) is waited for instead.
 */
async function run({ command, args, shell = false, env, patient = false }) {
  if (interruptedBy) throw new Interrupted();
  // In a group of its own, so that a signal reaches whatever it started, and reaches it once.
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell,
    env: { ...process.env, ...env },
    detached: process.platform !== 'win32',
  });
  const ended = new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(`${command} could not be started: ${error.message}`);
      resolve(1);
    });
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
  if (!child.pid) return ended;

  const group = process.platform === 'win32' ? child.pid : -child.pid;
  const sendSignal = (signal) => {
    try {
      process.kill(group, signal);
    } catch {
      // It has ended.
    }
  };
  const entry = `process ${group}`;
  if (!patient) watch(entry);
  let timer;
  stopChild = () => {
    if (patient || timer) return;
    sendSignal('SIGTERM');
    timer = setTimeout(() => sendSignal('SIGKILL'), 10_000);
  };
  const code = await ended;
  clearTimeout(timer);
  stopChild = () => {};
  // What it has started and not ended.
  if (!patient) sendSignal('SIGKILL');
  await unwatch(entry);
  if (interruptedBy) throw new Interrupted();
  return code;
}

// ---- Checks that are no tests

async function check(name, program) {
  console.log(`\n> ${name}`);
  const code = await run(program);
  tally[code === 0 ? 'passed' : 'failed']++;
  if (code !== 0) remarks.push(`failed: ${name} (exit code ${code})`);
}

const node = (...args) => ({ command: process.execPath, args });

async function checkSources() {
  await check('build', node(at('lib/build.mjs')));
  await check('typecheck', npm('run', '--silent', 'typecheck'));
  await check('lint', npm('run', '--silent', 'lint'));
  await check('format', node(at('node_modules/oxfmt/bin/oxfmt'), '--check'));
}

// ---- Servers and browser

const parts = [
  {
    name: 'MariaDB or MySQL',
    variable: 'VISIT_TEST_MYSQL_URL',
    find: findMariaDb,
    // What is asked of this one has nothing to do with durability; suites for which it has start their own.
    start: () => startMariaDb({ args: ['--innodb-flush-log-at-trx-commit=0', '--innodb-doublewrite=0'] }),
    // The server alone: the package mariadb-server would also run one as a service of the system.
    packages: ['mariadb-server-core', 'mariadb-client-core'],
    otherPackages: ['mariadb-server'],
    brew: 'brew install mariadb',
  },
  {
    name: 'PostgreSQL',
    variable: 'VISIT_TEST_POSTGRES_URL',
    find: findPostgres,
    start: () => startPostgres({ args: ['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'deadlock_timeout=50ms'] }),
    packages: ['postgresql'],
    brew: 'brew install postgresql@17',
  },
  {
    name: 'Redis or Valkey',
    variable: 'VISIT_TEST_REDIS_URL',
    find: findRedis,
    start: startRedis,
    packages: ['redis-server'],
    brew: 'brew install redis',
  },
  {
    name: 'Redis or Valkey, for a cluster',
    variable: 'VISIT_TEST_REDIS_CLUSTER_URLS',
    find: findRedis,
    start: startRedisCluster,
    packages: ['redis-server'],
    brew: 'brew install redis',
  },
  {
    name: 'memcached',
    variable: 'VISIT_TEST_MEMCACHED_URL',
    find: findMemcached,
    start: startMemcached,
    packages: ['memcached'],
    brew: 'brew install memcached',
  },
  {
    name: 'Chromium or Chrome',
    variable: 'VISIT_TEST_CHROMIUM',
    find: findChromium,
    packages: ['chromium'],
    brew: 'brew install --cask google-chrome',
  },
  {
    name: 'Galera, for clusters of MariaDB',
    variable: 'VISIT_TEST_GALERA',
    find: findGalera,
    packages: ['galera-4'],
    brew: 'install it from source',
  },
];

/** "debian", "ubuntu" or undefined. */
function debianKind() {
  if (!existsSync('/etc/os-release')) return undefined;
  const release = readFileSync('/etc/os-release', 'utf8');
  const ids = [...release.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)/gm)].flatMap(([, value]) => value.split(' '));
  return ['ubuntu', 'debian'].find((id) => ids.includes(id));
}

/** The packages of apt that bring a part, or undefined where none does. */
function aptPackages({ packages, otherPackages }) {
  const kind = debianKind();
  // Ubuntu's package of this name only points to a snap.
  if (!kind || (kind === 'ubuntu' && packages.includes('chromium'))) return undefined;
  const known = spawnSync('apt-cache', ['show', ...packages], { stdio: 'ignore' }).status === 0;
  return known ? packages : (otherPackages ?? packages);
}

async function installMissing() {
  const missing = parts.filter(({ variable, find }) => !process.env[variable] && !find());
  if (missing.length === 0) return;
  const may = process.getuid?.() === 0 && debianKind() && !process.env.VISIT_TEST_NO_INSTALL && process.env.VISIT_TEST_PATH === undefined;
  if (!may) return;

  const apt = async (...args) => {
    const all = ['-q', '-o', 'DPkg::Lock::Timeout=120', ...args];
    console.log(`\n> DEBIAN_FRONTEND=noninteractive apt-get ${all.join(' ')}`);
    return run({ command: 'apt-get', args: all, env: { DEBIAN_FRONTEND: 'noninteractive' }, patient: true });
  };
  await apt('update');
  const packages = [...new Set(missing.flatMap((part) => aptPackages(part) ?? []))];
  if (packages.length > 0) await apt('install', '-y', '--no-install-recommends', ...packages);
}

function howToInstall(part) {
  if (process.platform === 'darwin') return part.brew;
  const packages = aptPackages(part);
  return packages ? `apt-get install --no-install-recommends ${packages.join(' ')}` : 'install it so that it is on the PATH';
}

/** The environment that tells the tests where the servers are. What was started is added to `started`. */
async function provide(started) {
  await installMissing();
  const env = {};
  for (const part of parts) {
    if (interruptedBy) throw new Interrupted();
    const { name, variable, find, start } = part;
    const given = process.env[variable];
    const found = given || find();
    if (!found) {
      remarks.push(`missing: ${name}; to run the suites that need it: ${howToInstall(part)}, or set ${variable}`);
      continue;
    }
    if (given || !start) {
      env[variable] = found;
      continue;
    }
    try {
      const server = await start();
      started.push(server);
      env[variable] = server.url;
      console.log(`${server.name} listens on 127.0.0.1:${server.port}`);
    } catch (error) {
      console.error(error);
      tally.failed++;
      remarks.push(`failed: ${name} is installed, but could not be started`);
    }
  }
  return env;
}

// ---- Tests

async function runTests(args, env, folder) {
  const report = join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const vitest = [at('node_modules/vitest/vitest.mjs'), 'run', '--config', at('test/vitest.config.ts'), ...reporters, ...args];
  console.log('\n> vitest');
  const code = await run({ ...node(...vitest), env });
  const { executed, failed } = existsSync(report) ? count(JSON.parse(readFileSync(report, 'utf8'))) : { executed: 0, failed: 0 };
  if (code !== 0 && failed === 0) {
    // A crash, or an error outside any test.
    tally.failed++;
    remarks.push(`failed: vitest ended with exit code ${code}, though no test failed; see above`);
  } else if (executed === 0 && failed === 0) {
    tally.failed++;
    remarks.push('failed: no test was executed');
  }
}

function count({ testResults }) {
  const before = tally.failed;
  let executed = 0;
  for (const file of testResults) {
    const tests = file.assertionResults;
    for (const test of tests) {
      const { status, ancestorTitles, title } = test;
      // "pending" is a test that should have run, and that a crash or a failed hook kept from it.
      const outcome = status === 'passed' ? 'passed' : ['failed', 'pending'].includes(status) ? 'failed' : 'skipped';
      tally[outcome]++;
      if (outcome !== 'skipped') executed++;
      // See test/support/needs.ts.
      if (title.startsWith('could not run: ')) remarks.push([...ancestorTitles.filter(Boolean), title].join(' › '));
    }
    if (file.status === 'failed' && !tests.some(({ status }) => ['failed', 'pending'].includes(status))) {
      tally.failed++;
      remarks.push(`failed: ${relative(root, file.name)}, outside its tests`);
    }
  }
  return { executed, failed: tally.failed - before };
}

// ---- All of it

async function main(given) {
  const isSoak = given.includes('--soak');
  const args = given.filter((arg) => arg !== '--soak');
  if (isSoak) {
    process.env.VISIT_TEST_SOAK = '1';
    if (args.every((arg) => arg.startsWith('-'))) args.push(...SOAKED);
  }
  const quick = args.includes('--quick');
  if (!installDependencies(root)) {
    tally.failed++;
    remarks.push('failed: the dependencies could not be installed');
    return;
  }
  if (isSoak) await check('build', node(at('lib/build.mjs')));
  else if (!quick) await checkSources();

  // Whatever the tests put into the folder for temporary files goes with this one.
  const folder = temporaryFolder('test');
  for (const name of ['TMPDIR', 'TMP', 'TEMP']) process.env[name] = folder.path;
  const servers = [];
  try {
    const env = await provide(servers);
    await runTests(
      args.filter((arg) => arg !== '--quick'),
      env,
      folder.path,
    );
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await othersGone(folder.path);
    await folder.remove();
  }
}

/**
 * Waits for what killed test processes had started: their watchdogs end it, and remove a server's folder after the server.
 */
async function othersGone(folder) {
  const deadline = Date.now() + 15_000;
  while (Date.now() < deadline && readdirSync(folder).some((name) => name.startsWith('nest-visit-'))) await pause(50);
}

requireNode();
const args = process.argv.slice(2);
if (args.includes('--help') || args.includes('-h')) {
  console.log(HELP);
} else {
  try {
    await main(args);
  } catch (error) {
    tally.failed++;
    if (error instanceof Interrupted) remarks.push(`failed: interrupted by ${interruptedBy}`);
    else console.error(error);
  }
  const { passed, failed, skipped } = tally;
  if (remarks.some((remark) => remark.includes('could not run: ')) && !isCi) remarks.push('With CI=true, what could not run is a failure.');
  console.log();
  for (const remark of remarks) console.log(remark);
  if (remarks.length > 0) console.log();
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  process.exitCode = interruptedBy ? 128 + constants.signals[interruptedBy] : failed > 0 || passed === 0 ? 1 : 0;
}
