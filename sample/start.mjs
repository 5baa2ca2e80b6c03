// What `npm start` runs: installs and builds what a fresh clone lacks, then runs the sample until it is stopped.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installDependencies, requireNode } from './install.mjs';

const HELP = `npm start
Installs the dependencies and builds the library and the sample where that is due, then runs the sample.

Environment:
  PORT          the port to listen on
  PLATFORM      express (the default) or fastify
  DATABASE_URL  a database to keep the visits in, such as mysql://user:password@127.0.0.1:3306/visit or
                postgres://user:password@127.0.0.1:5432/visit; without it the sample uses an embedded SQLite file

Stop it with Ctrl-C.`;

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (path) => join(root, path);

/**
 * The newest change in files and folders; a folder counts because deleting a file changes nothing else. Missing ones do
 * not count.
 */
function newest(paths) {
  let time = 0;
  for (const path of paths) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) continue;
    time = Math.max(time, stat.mtimeMs);
    if (stat.isDirectory()) time = Math.max(time, newest(readdirSync(path).map((name) => join(path, name))));
  }
  return time;
}

function build(what, { inputs, outputs, command }) {
  const files = outputs.map(at);
  const built = files.every((file) => existsSync(file)) ? Math.min(...files.map((file) => statSync(file).mtimeMs)) : 0;
  if (built >= newest(inputs.map(at))) return;

  console.log(`Building ${what} …`);
  // tsc writes its output even when it finds errors: without removing it, the next start would take the build for good.
  const clear = () => files.forEach((file) => rmSync(file, { force: true }));
  clear();
  const { status } = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' });
  if (status === 0) return;
  clear();
  console.error(`Building ${what} failed.`);
  process.exit(status ?? 1);
}

function run(file, args) {
  const child = spawn(process.execPath, ['--enable-source-maps', at(file), ...args], { cwd: root, stdio: 'inherit' });
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  // A terminal sends Ctrl-C to every process of the group, so there the child has had its own already.
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT'));
  child.on('error', (error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    process.exitCode = signal ? 128 + constants.signals[signal] : code;
  });
}

requireNode();
const args = process.argv.slice(2);
if (args.includes('--help') || args.includes('-h')) {
  console.log(HELP);
} else {
  if (!installDependencies(root)) process.exit(1);
  const shared = ['lib', 'package.json', 'tsconfig.json', 'node_modules/.package-lock.json'];
  build('the library', {
    inputs: shared,
    outputs: ['dist/esm/index.js', 'dist/cjs/index.js'],
    command: [at('lib/build.mjs')],
  });
  build('the sample', {
    inputs: [...shared, 'sample', 'nest-cli.json'],
    outputs: ['dist/sample/main.js'],
    command: [at('node_modules/@nestjs/cli/bin/nest.js'), 'build'],
  });
  run('dist/sample/main.js', args);
}
