// The programs that a row of the matrix is made and run with, whatever the machine has: runtimes and package managers
// come from npm.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { npm } from '../../sample/install.mjs';

const PACKAGES = { pnpm: 'pnpm@10', yarn: '@yarnpkg/cli-dist@4', bun: 'bun@1' };

/** After how long nobody believes any more that a program ends. */
const DEADLINE = 15 * 60_000;

/** What ran and failed, with the end of what it printed. */
export class ProgramError extends Error {
  constructor(what, output) {
    super(`${what}\n${output.trim().split('\n').slice(-40).join('\n')}`);
    this.output = output;
  }
}

const running = new Set();

/** Ends all that runs. */
export function stopAll() {
  for (const child of running) child.kill('SIGTERM');
}

/** The environment without what npm, a test runner, or Node's options of this process would tell a program. */
export function plainEnvironment(more = {}) {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|NODE_OPTIONS$|VITEST|JEST_|INIT_CWD$|NODE_ENV$|FORCE_COLOR$|VISIT_TEST_)/i.test(name),
  );
  return { ...Object.fromEntries(kept), NO_COLOR: '1', ...more };
}

/** Starts a program, which `stopAll` ends. */
export function startProgram([command, ...args], { cwd, env, shell = false }) {
  const child = spawn(command, args, { cwd, env: plainEnvironment(env), shell, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

/** Runs a program to its end and gives what it printed. @throws ProgramError */
export async function run(program, options) {
  const child = startProgram(program, options);
  let [output, errors] = ['', ''];
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (errors += data));
  const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE);
  const end = await new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  clearTimeout(timer);
  if (end !== 0) throw new ProgramError(`ended with ${end}: ${program.slice(0, 4).join(' ')} …`, output + errors);
  return output;
}

export function runNpm(args, cwd) {
  const { command, args: all, shell } = npm(...args);
  return run([command, ...all], { cwd, shell, env: {} });
}

const QUIETLY = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];

export const installByNpm = (cwd, ...packages) => runNpm(['install', '--ignore-scripts', ...QUIETLY, ...packages], cwd);

/** Installs one of PACKAGES into a folder of its own, once. The path of a file of it. */
const installed = new Map();
function fetchTool(folder, name, file) {
  const place = join(folder, `tool-${name}`);
  const fetched =
    installed.get(place) ??
    (async () => {
      await mkdir(place, { recursive: true });
      await writeFile(join(place, 'package.json'), '{ "private": true }');
      await installByNpm(place, PACKAGES[name]);
    })();
  installed.set(place, fetched);
  return fetched.then(() => join(place, 'node_modules', file));
}

/** The path of a runtime such as `node 24`. @throws ProgramError if it cannot be had here */
export async function findRuntime(runtime, folder) {
  const [name, major] = runtime.split(' ');
  if (name === 'bun') {
    const bun = await fetchTool(folder, 'bun', 'bun/bin/bun.exe');
    // Without its script the package has a placeholder; the program is in one of those for the platforms.
    const script = join(dirname(dirname(bun)), 'install.js');
    await run([process.execPath, script], { cwd: dirname(script), env: {} });
    await run([bun, '--version'], { cwd: folder, env: {} });
    return bun;
  }
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  const args = ['exec', '--yes', `--package=node@${major}`, '--', 'node', '-p', 'process.execPath'];
  return (await runNpm(args, folder)).trim().split('\n').at(-1);
}

const isPlugAndPlay = (packager) => packager === 'yarn pnp';

/** How packages are installed into `place`, and how what they bring is run there. */
export function packagerOf(packager, place, folder) {
  const yarn = () => fetchTool(folder, 'yarn', '@yarnpkg/cli-dist/bin/yarn.js');
  return {
    async install() {
      if (isPlugAndPlay(packager)) {
        const registry = (await runNpm(['config', 'get', 'registry'], place)).trim();
        const settings = {
          nodeLinker: 'pnp',
          enableScripts: false,
          enableTelemetry: false,
          enableImmutableInstalls: false,
          npmMinimalAgeGate: 0,
          npmRegistryServer: registry,
          globalFolder: join(folder, 'yarn'),
          ...(registry.startsWith('http:') && { unsafeHttpWhitelist: [new URL(registry).hostname] }),
        };
        // Of YAML, JSON is a part.
        await writeFile(join(place, '.yarnrc.yml'), JSON.stringify(settings));
        await writeFile(join(place, 'yarn.lock'), '');
        await run([process.execPath, await yarn(), 'install'], { cwd: place, env: {} });
      } else if (packager === 'pnpm') {
        const pnpm = await fetchTool(folder, 'pnpm', 'pnpm/bin/pnpm.cjs');
        const args = ['install', '--ignore-scripts', '--prefer-offline', `--store-dir=${join(folder, 'pnpm')}`];
        await run([process.execPath, pnpm, ...args], { cwd: place, env: { CI: 'true' } });
      } else {
        await installByNpm(place);
      }
    },

    /** The arguments and the environment that run a file of the application by a runtime. */
    async file(runtime, ...args) {
      if (!isPlugAndPlay(packager)) return { program: [runtime, ...args], env: {} };
      return { program: [process.execPath, await yarn(), 'node', ...args], env: firstOnPath(runtime) };
    },

    /** The same for a command that a package brings. */
    async command(runtime, name, command, ...args) {
      if (isPlugAndPlay(packager))
        return { program: [process.execPath, await yarn(), 'run', command, ...args], env: firstOnPath(runtime) };
      const { bin } = JSON.parse(readFileSync(join(place, 'node_modules', name, 'package.json'), 'utf8'));
      const path = join('node_modules', name, typeof bin === 'string' ? bin : bin[command]);
      if (!existsSync(join(place, path))) throw new Error(`${name} has no ${path}`);
      // Bun would give a script that names Node to Node.
      return { program: [runtime, ...(runtime.includes('bun') ? ['--bun'] : []), path, ...args], env: {} };
    },
  };
}

const firstOnPath = (runtime) => ({ PATH: `${dirname(runtime)}${delimiter}${process.env.PATH}` });
