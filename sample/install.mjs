// What `npm start` and `npm test` do first on a fresh clone. Built-in modules only: nothing is installed yet.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

const OLDEST_NODE = [20, 19];

/** Ends the process with one clear sentence when this Node is too old. */
export function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  console.error(`nest-visit needs Node ${OLDEST_NODE.join('.')} or later, and this is Node ${process.versions.node}.`);
  process.exit(1);
}

/** How to start npm: `{ command, args, shell }`. The npm that started us, else the one on the PATH. */
export function npm(...args) {
  const running = process.env.npm_execpath;
  if (running && basename(running).startsWith('npm-cli'))
    return { command: process.execPath, args: [running, ...args], shell: false };
  // On Windows npm is a script, which only a shell can start.
  return { command: 'npm', args, shell: process.platform === 'win32' };
}

/** Installs the dependencies unless node_modules is at least as new as the lock file. False when npm failed. */
export function installDependencies(root) {
  const lock = join(root, 'package-lock.json');
  const installed = join(root, 'node_modules', '.package-lock.json');
  const locked = existsSync(lock);
  if (existsSync(installed) && (!locked || statSync(installed).mtimeMs >= statSync(lock).mtimeMs)) return true;

  // The tools that build and test are development dependencies, which NODE_ENV=production would leave out. Warnings are
  // not for whoever starts it: some tools want a newer Node than the library does, and run without their scripts.
  const { command, args, shell } = npm(
    locked ? 'ci' : 'install',
    '--include=dev',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  );
  console.log('Installing the dependencies, which takes about half a minute …');
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', shell });
  if (error) console.error(`npm could not be started: ${error.message}`);
  return status === 0;
}
