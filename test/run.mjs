// What `npm test` runs, on a fresh clone too. Built-in modules only, until the dependencies are installed.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installDependencies, npm, requireNode } from '../sample/install.mjs';
import { parts } from './support/parts.mjs';
import { temporaryFolder, unwatch, watch } from './support/servers.mjs';

const HELP = `npm test [-- [--quick] [arguments and filters of vitest]]

Installs the dependencies if necessary, builds, starts private database servers on free ports of 127.0.0.1, runs the
tests, meanwhile checks types, lint, formatting and documentation, and removes the servers. The last line is
"N passed, N failed", with ", N skipped" if tests were skipped; the exit code is 0 only if at least one test passed and
none failed.

  npm test -- --quick                  only the tests; those of the built package use the last build
  npm test -- test/unit                only the files whose path contains this
  npm test -- -t "signs in"            only the tests whose name matches
  npm test -- --coverage               any other option of vitest
  npm run test:quick                   everything that needs no server: types, lint, units, applications on SQLite
                                       and in memory
  npm run test:soak                    the tests that search for rare failures, for an hour or two: every order of
                                       statements, longer load, more random input; accepts filters, too
  npm run matrix                       the packed package with many versions of its dependencies; see --help

On Debian and Ubuntu, missing servers and the browser are installed with apt-get if the user is root; on a terminal, the
command asks first. Suites whose server is missing are skipped and listed; with CI=true they fail.

Environment:
  CI=true                   a suite that could not run is a failure
  VISIT_TEST_SEED           the seed that a test with random input, or a run with the samples of a day, has printed, to
                            repeat the same input
  VISIT_TEST_ARTIFACTS      a folder for screenshots of the sample; without it there are none
  VISIT_TEST_NO_INSTALL=1   do not install servers or the browser
  VISIT_TEST_PATH           look for servers and the browser in these folders only, and install none; the path of an
                            empty folder stands for a machine without them
Each of these is used instead of one that is started here. Users must be allowed to create databases, of keys only those
that begin with "nest-visit-test-" are written.
${parts.map(({ variable, example }) => `  ${variable.padEnd(30)}such as ${example}`).join('\n')}`;

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (path) => join(root, path);
const isCi = ['true', '1'].includes(process.env.CI ?? '');

/** Where cases take turns, or some run longer in `test:soak`. */
const SOAKED = [
  'test/attack',
  'test/browser',
  'test/chaos',
  'test/consumer',
  'test/contract',
  'test/e2e',
  'test/fuzz',
  'test/interleaving',
  'test/model',
  'test/unit/session-codec',
];
/** What shows most of what can be seen without a server, in a minute. */
const WITHOUT_SERVERS = ['test/unit', 'test/contract', 'test/e2e', 'test/attack', 'test/model'];

const tally = { passed: 0, failed: 0, skipped: 0 };
/** What to read again at the end, above the last line. */
const remarks = [];

function fail(remark) {
  tally.failed++;
  if (remark) remarks.push(`failed: ${remark}`);
}

// ---- Child processes, and Ctrl-C

let interruptedBy;
/** How to end what runs now. */
const stops = new Set();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    if (!interruptedBy) console.log(`\nStopping on ${signal} …`);
    interruptedBy ??= signal;
    for (const stop of stops) stop();
  });
}
// A reader that left, as in `npm test | head`, must not keep us from stopping the servers.
process.stdout.on('error', () => {});

class Interrupted extends Error {}

/**
 * Runs a program to its end and gives its exit code. Ctrl-C ends it, with all processes it started; one that must not
 * be left half-way (`patient`) is waited for instead. What it prints is added to `output`, if that is given.
 */
async function run({ command, args, shell = false, env, patient = false, output }) {
  if (interruptedBy) throw new Interrupted();
  // In a group of its own, so that a signal reaches whatever it started, and reaches it once.
  const detached = process.platform !== 'win32';
  const stdio = ['ignore', ...(output ? ['pipe', 'pipe'] : ['inherit', 'inherit'])];
  const child = spawn(command, args, { cwd: root, stdio, shell, env: { ...process.env, ...env }, detached });
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => output.push(chunk));
  const ended = new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(`${command} could not be started: ${error.message}`);
      resolve(1);
    });
    // What it has printed may come after its end.
    child.once(output ? 'close' : 'exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
  if (!child.pid) return ended;

  const group = detached ? -child.pid : child.pid;
  const sendSignal = (signal) => {
    try {
      process.kill(group, signal);
    } catch {
      // It has ended.
    }
  };
  const entry = `process ${group}`;
  let timer;
  const stop = () => {
    sendSignal('SIGTERM');
    timer ??= setTimeout(() => sendSignal('SIGKILL'), 10_000);
  };
  if (!patient) {
    watch(entry);
    stops.add(stop);
  }
  const code = await ended;
  clearTimeout(timer);
  stops.delete(stop);
  // What it has started and not ended.
  if (!patient) sendSignal('SIGKILL');
  unwatch(entry);
  if (interruptedBy) throw new Interrupted();
  return code;
}

const node = (...args) => ({ command: process.execPath, args });

/** What some tests need. */
const BUILD = node(at('lib/build.mjs'));
/** What is no test, beside the tests. */
const CHECKS = [
  // In one thread: several would check shared parts several times, and take processors from the tests.
  ['types', npm('run', '--silent', 'typecheck', '--', '--singleThreaded')],
  ['lint', npm('run', '--silent', 'lint')],
  ['format', node(at('node_modules/oxfmt/bin/oxfmt'), '--check')],
  // In a folder of a site: links that hold there hold at the root of a host, too.
  [
    'documentation',
    { ...npm('run', '--silent', 'docs'), env: { DOCS_SITE: 'https://example.org/nest-visit/', DOCS_VERSION: '0' } },
  ],
];

/** What checks that failed have printed. Shown after the tests, in whose output it would be lost. */
const complaints = [];

async function check(name, program) {
  const output = [];
  const code = await run({ ...program, output });
  console.log(`> ${name}: ${code === 0 ? 'passed' : 'failed, see below'}`);
  if (code === 0) {
    tally.passed++;
    return;
  }
  fail(`${name} (exit code ${code})`);
  complaints.push(`\n> ${name}\n${Buffer.concat(output).toString()}`);
}

// ---- Servers and browser

/** The packages of apt that bring a part, as far as there are some. Ubuntu's package chromium only points to a snap. */
function aptPackages({ packages }) {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const isOf = (kind) => new RegExp(`^ID(_LIKE)?=.*\\b${kind}\\b`, 'm').test(release);
  if (isOf('ubuntu')) return packages.filter((name) => !name.startsWith('chromium'));
  return isOf('debian') ? packages : [];
}

/** On a terminal, whoever sits there is asked; elsewhere it is said, and done. */
async function agrees(what) {
  if (!process.stdin.isTTY || !process.stdout.isTTY || isCi) {
    console.log(
      `\nInstalls ${what} by apt-get, for the suites that need them; VISIT_TEST_NO_INSTALL=1 keeps it from that`,
    );
    return true;
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await new Promise((resolve) => {
    stops.add(resolve);
    // The interface takes Ctrl-C for itself.
    terminal.on('SIGINT', () => process.emit('SIGINT')).on('close', () => resolve());
    void terminal.question(`\nInstall ${what} by apt-get, for the suites that need them? [Y/n] `).then(resolve);
  });
  stops.clear();
  terminal.close();
  if (interruptedBy) throw new Interrupted();
  return /^(y(es)?)?$/i.test(answer?.trim() ?? 'no');
}

async function installMissing() {
  const missing = parts.filter((part) => !process.env[part.variable] && !part.find() && aptPackages(part).length > 0);
  const may =
    process.getuid?.() === 0 && !process.env.VISIT_TEST_NO_INSTALL && process.env.VISIT_TEST_PATH === undefined;
  if (missing.length === 0 || !may || !(await agrees(missing.map(({ name }) => name).join(', ')))) return;
  const apt = async (...args) => {
    const all = ['-q', '-o', 'DPkg::Lock::Timeout=120', ...args];
    console.log(`\n> DEBIAN_FRONTEND=noninteractive apt-get ${all.join(' ')}`);
    return run({ command: 'apt-get', args: all, env: { DEBIAN_FRONTEND: 'noninteractive' }, patient: true });
  };
  await apt('update');
  // One that this release does not know is not to keep the others out.
  const isKnown = (name) => spawnSync('apt-cache', ['show', name], { stdio: 'ignore' }).status === 0;
  const known = [...new Set(missing.flatMap(aptPackages))].filter(isKnown);
  if (known.length > 0) await apt('install', '-y', '--no-install-recommends', ...known);
}

/** The environment that tells the tests where the servers are. What was started is added to `started`. */
async function provide(started) {
  const env = {};
  const start = async (part) => {
    const { name, variable } = part;
    const found = process.env[variable] || part.find();
    if (!found) {
      const how =
        aptPackages(part).length > 0
          ? `apt-get install --no-install-recommends ${part.packages.join(' ')}`
          : 'install it';
      remarks.push(`missing: ${name}; to run the suites that need it: ${how}, or set ${variable}`);
    } else if (process.env[variable] || !part.start) {
      env[variable] = found;
    } else {
      try {
        const server = await part.start();
        started.push(server);
        env[variable] = server.url;
        console.log(`${server.name} listens on 127.0.0.1:${server.port}`);
      } catch (error) {
        console.error(error);
        fail(`${name} is installed, but could not be started`);
      }
    }
  };
  await Promise.all(parts.map(start));
  if (interruptedBy) throw new Interrupted();
  return env;
}

/** As on a machine that has none, and that nobody blames for it. */
const nothing = {
  VISIT_TEST_PATH: '',
  VISIT_TEST_WITHOUT_SERVERS: '1',
  ...Object.fromEntries(parts.map(({ variable }) => [variable, ''])),
};

// ---- Tests

async function runTests(args, env, folder) {
  const report = join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const vitest = [
    at('node_modules/vitest/vitest.mjs'),
    'run',
    '--config',
    at('test/vitest.config.ts'),
    ...reporters,
    ...args,
  ];
  const today = process.env.VISIT_TEST_SEED ?? Math.floor(Date.now() / 86_400_000);
  console.log(`\n> vitest, with the samples of VISIT_TEST_SEED=${today}`);
  const code = await run({ ...node(...vitest), env });
  const { executed, failed } = existsSync(report)
    ? count(JSON.parse(readFileSync(report, 'utf8')))
    : { executed: 0, failed: 0 };
  if (failed > 0) return;
  // A crash, or an error outside any test.
  if (code !== 0) fail(`vitest ended with exit code ${code}, though no test failed; see above`);
  else if (executed === 0) fail('no test was executed');
}

/** Adds to the tally. How many were executed, and how many of them failed. */
function count({ testResults }) {
  let executed = 0;
  const failedAtFirst = tally.failed;
  for (const file of testResults) {
    const failedBefore = tally.failed;
    for (const { status, ancestorTitles, title } of file.assertionResults) {
      // "pending" is a test that should have run, and that a crash or a failed hook kept from it.
      const outcome = status === 'passed' ? 'passed' : ['failed', 'pending'].includes(status) ? 'failed' : 'skipped';
      tally[outcome]++;
      if (outcome !== 'skipped') executed++;
      // See test/support/needs.ts.
      if (title.startsWith('could not run: ')) remarks.push([...ancestorTitles.filter(Boolean), title].join(' › '));
    }
    if (file.status === 'failed' && tally.failed === failedBefore)
      fail(`${relative(root, file.name)}, outside its tests`);
  }
  return { executed, failed: tally.failed - failedAtFirst };
}

// ---- All of it

const FLAGS = ['--soak', '--quick', '--without-servers'];

async function main(given) {
  const [isSoak, isQuick, isWithoutServers] = FLAGS.map((flag) => given.includes(flag));
  const args = given.filter((arg) => !FLAGS.includes(arg));
  const usual = isSoak ? SOAKED : isWithoutServers ? WITHOUT_SERVERS : [];
  if (args.every((arg) => arg.startsWith('-'))) args.push(...usual);
  if (isSoak) process.env.VISIT_TEST_SOAK = '1';
  if (!installDependencies(root)) {
    fail('the dependencies could not be installed');
    return;
  }
  const checks = isQuick || isSoak ? [] : CHECKS.slice(0, isWithoutServers ? -1 : CHECKS.length);
  if (!isWithoutServers) await installMissing();

  // Whatever the tests put into the folder for temporary files goes with this one.
  const folder = temporaryFolder('test');
  for (const name of ['TMPDIR', 'TMP', 'TEMP']) process.env[name] = folder.path;
  const servers = [];
  try {
    const [env] = await allOf([
      isWithoutServers ? nothing : provide(servers),
      isQuick ? undefined : check('build', BUILD),
    ]);
    await allOf([runTests(args, env, folder.path), ...checks.map(([name, program]) => check(name, program))]);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await othersGone(folder.path);
    await folder.remove();
  }
}

/** As `Promise.all`, but all of them have ended: what has failed does not stop the servers of what goes on. */
async function allOf(work) {
  const outcomes = await Promise.allSettled(work);
  for (const { reason } of outcomes) if (reason) throw reason;
  return outcomes.map(({ value }) => value);
}

/**
 * Waits for what killed test processes had started: their watchdogs end it, and remove a server's folder after the
 * server.
 */
async function othersGone(folder) {
  const deadline = Date.now() + 15_000;
  const left = () => readdirSync(folder).filter((name) => name.startsWith('nest-visit-'));
  while (Date.now() < deadline && left().length > 0) await pause(50);
  // Tests that leave something cost each run the time of this deadline. The name tells in part which ones they are.
  for (const name of left()) remarks.push(`left behind by a test, and removed: ${name}`);
}

requireNode();
const args = process.argv.slice(2);
if (args.includes('--help') || args.includes('-h')) {
  console.log(HELP);
} else {
  try {
    await main(args);
  } catch (error) {
    if (!(error instanceof Interrupted)) console.error(error);
    fail(error instanceof Interrupted ? `interrupted by ${interruptedBy}` : undefined);
  }
  const { passed, failed, skipped } = tally;
  if (remarks.some((remark) => remark.includes('could not run: ')) && !isCi)
    remarks.push('With CI=true, what could not run is a failure.');
  for (const complaint of complaints) console.log(complaint);
  console.log(['', ...remarks, ...(remarks.length > 0 ? [''] : [])].join('\n'));
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  process.exitCode = interruptedBy ? 128 + constants.signals[interruptedBy] : failed > 0 || passed === 0 ? 1 : 0;
}
