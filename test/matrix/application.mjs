// One row of the matrix: an application is installed, compiled, bundled, started, visited, and tested by its own test.
import { readFileSync } from 'node:fs';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { findRuntime, packagerOf, ProgramError, run, startProgram } from './tools.mjs';
import { visit } from './visit.mjs';

const fixture = fileURLToPath(new URL('application', import.meta.url));

/** The compiler for each version of Nest, and the oldest TypeORM in use with the oldest Nest. */
const TYPESCRIPT = { 10: '~5.4.0', 11: '~5.9.0', 12: '~6.0.3' };
const TYPEORM = { 0.3: (nest) => (nest === '10' ? '0.3.20' : '^0.3.27'), 1: () => '^1.0.0' };

const RUNNERS = {
  jest: { jest: '^30.0.0', 'jest-util': '^30.0.0', 'ts-jest': '^29.4.0' },
  'bun test': {},
  vitest: { vitest: '^4.1.0' },
};
/** Jest itself loads no Express on Bun, which has a runner with Jest's functions of its own. */
const runnerOf = ({ runtime, tests }) => (runtime === 'bun' && tests === 'jest' ? 'bun test' : tests);
const BUNDLERS = { none: {}, esbuild: { esbuild: '^0.28.0' }, webpack: { webpack: '^5.100.0' } };

function manifestOf(row, tarball) {
  const { nest, platform, typeorm, format, bundle } = row;
  const nests = ['common', 'core', `platform-${platform}`, 'testing'];
  return {
    name: 'app',
    version: '1.0.0',
    private: true,
    type: format === 'esm' ? 'module' : 'commonjs',
    dependencies: {
      'nest-visit': `file:${tarball}`,
      ...Object.fromEntries(nests.map((name) => [`@nestjs/${name}`, `^${nest}.0.0`])),
      typeorm: TYPEORM[typeorm](nest),
      libsql: '^0.5.0',
      'reflect-metadata': '^0.2.0',
      rxjs: '^7.8.0',
      '@types/node': '^20.0.0',
      typescript: TYPESCRIPT[nest],
      ...RUNNERS[runnerOf(row)],
      ...BUNDLERS[bundle],
    },
  };
}

const COMPILER_OPTIONS = {
  target: 'es2022',
  module: 'nodenext',
  moduleResolution: 'nodenext',
  strict: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  types: ['node'],
  rootDir: '.',
  outDir: 'dist',
};

/** Nest 12 has no CommonJS, which is all that Jest knows without this. */
const isJestEsm = ({ nest, format }) => format === 'esm' || nest === '12';

function jestConfig(row) {
  const isEsm = isJestEsm(row);
  const module = isEsm ? { module: 'esnext', moduleResolution: 'bundler' } : { module: 'commonjs' };
  const { rootDir: _, outDir: _out, ...options } = { ...COMPILER_OPTIONS, moduleResolution: 'node10', ...module };
  const tsconfig = { ...options, isolatedModules: true, ...(isEsm ? {} : { ignoreDeprecations: '5.0' }) };
  return {
    testRegex: String.raw`test/.*\.spec\.ts$`,
    testEnvironment: 'node',
    moduleFileExtensions: ['js', 'json', 'ts'],
    moduleNameMapper: { [String.raw`^(\.{1,2}/.*)\.js$`]: '$1' },
    modulePathIgnorePatterns: ['<rootDir>/dist/'],
    transform: { [String.raw`^.+\.ts$`]: ['ts-jest', { tsconfig, useESM: isEsm, diagnostics: false }] },
    ...(isEsm && { extensionsToTreatAsEsm: ['.ts'] }),
  };
}

const VITEST_CONFIG = { test: { globals: true, include: ['test/*.spec.ts'] } };

/** The files of the README's first example, with their names. */
export function firstExample() {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const section = readme.slice(readme.indexOf('## A first example'), readme.indexOf('## Beside'));
  const files = [...section.matchAll(/`([\w.]+\.ts)`\n\n```ts\n([^]*?)```/g)].map(([, name, text]) => [name, text]);
  if (files.length !== 2) throw new Error('the first example of the README is not two files');
  return files;
}

async function write(row, place, tarball, checksTypes) {
  await mkdir(place, { recursive: true });
  await cp(fixture, place, { recursive: true });
  if (row.platform === 'fastify') await cp(join(fixture, 'src/platform.fastify.ts'), join(place, 'src/platform.ts'));
  await mkdir(join(place, 'src/readme'));
  for (const [name, text] of firstExample()) await writeFile(join(place, 'src/readme', name), text);
  const files = {
    'package.json': manifestOf(row, tarball),
    'tsconfig.json': {
      compilerOptions: { ...COMPILER_OPTIONS, skipLibCheck: !checksTypes },
      include: ['src', 'test'],
      exclude: ['src/platform.*.ts'],
    },
    ...(runnerOf(row) === 'jest' && { 'jest.json': jestConfig(row) }),
  };
  for (const [name, content] of Object.entries(files))
    await writeFile(join(place, name), JSON.stringify(content, undefined, 2));
  if (row.tests === 'vitest')
    await writeFile(join(place, 'vitest.config.mjs'), `export default ${JSON.stringify(VITEST_CONFIG)};\n`);
}

/** The types of other packages are not ours to check. */
async function compile(tsc) {
  try {
    await tsc();
  } catch (error) {
    const errors = (error.output ?? '').split('\n').filter((line) => /error TS\d/.test(line));
    const isOurs = (line) => !/^[^:]*node_modules\//.test(line) || line.includes('node_modules/nest-visit/');
    if (errors.length === 0 || errors.some(isOurs)) throw error;
  }
}

/** Starts the application; resolves to what it prints until it listens, its address, and how to stop it. */
async function start({ program, env }, cwd) {
  const child = startProgram(program, { cwd, env });
  let output = '';
  child.stderr.on('data', (data) => (output += data));
  const exit = new Promise((resolve) => child.once('close', resolve));
  const address = await new Promise((resolve, reject) => {
    void exit.then((code) => reject(new ProgramError(`the application ended with ${code}`, output)));
    child.once('error', reject);
    createInterface({ input: child.stdout }).on('line', (line) => {
      output += `${line}\n`;
      const found = /listening on (http:\S+)/.exec(line)?.[1];
      if (found) resolve(found);
    });
  });
  return {
    address,
    output,
    async stop() {
      child.kill('SIGTERM');
      await exit;
    },
  };
}

/** Plug'n'Play does not know the condition "module-sync" when something is required. */
const TWO_INSTANCES = '`require` and `import` give two instances of the package';

async function testRun(row, runtime, packager) {
  const runner = runnerOf(row);
  if (runner === 'bun test') return packager.file(runtime, 'test', './test/app.spec.ts');
  if (runner === 'vitest') return packager.command(runtime, 'vitest', 'vitest', 'run');
  const { program, env } = await packager.command(runtime, 'jest', 'jest', '-c', 'jest.json');
  return { program, env: { ...env, ...(isJestEsm(row) && { NODE_OPTIONS: '--experimental-vm-modules' }) } };
}

/**
 * Tries a row, in a folder of its own. Downloads for several rows are stored in `folder`. `onStep` is called at the
 * beginning of each step. With `checksTypes`, the application's compiler also checks the declarations of the package;
 * without it, only those that the application uses.
 *
 * @returns the outcome: `works`, perhaps with a remark; `fails` with step and reason; or `not run` with the reason, if
 *   this machine cannot have the runtime
 */
export async function tryRow(row, { place, folder, tarball, checksTypes = true, onStep = () => {} }) {
  let step;
  const begin = (name) => onStep((step = name));
  try {
    begin('runtime');
    const runtime = await findRuntime(row.runtime, folder);
    const packager = packagerOf(row.packager, place, folder);
    const command = async (...args) => {
      const { program, env } = await packager.command(...args);
      return run(program, { cwd: place, env });
    };
    begin('install');
    await write(row, place, tarball, checksTypes);
    await packager.install();

    begin('compile');
    await compile(() => command(process.execPath, 'typescript', 'tsc', '-p', '.'));

    let main = 'dist/src/main.js';
    if (row.bundle !== 'none') {
      begin('bundle');
      // Apart from all packages: what is not in it is nowhere.
      const apart = `${place}-bundle`;
      await mkdir(apart);
      await writeFile(join(apart, 'package.json'), JSON.stringify({ type: manifestOf(row, tarball).type }));
      main = join(apart, 'main.js');
      const { program, env } = await packager.file(process.execPath, 'bundle.mjs', row.bundle, row.format, main);
      await run(program, { cwd: place, env });
    }

    begin('start');
    const { program, env } = await packager.file(runtime, main);
    let hasTwo;
    const app = await start({ program, env: { ...env, ...(row.bundle !== 'none' && { BUNDLED: '1' }) } }, place);
    try {
      hasTwo = app.output.includes('instances: 2');
      if (hasTwo && row.packager !== 'yarn pnp') throw new Error(TWO_INSTANCES);
      begin('visit');
      await visit(app.address);
    } finally {
      await app.stop();
    }

    begin('command');
    const version = await command(runtime, 'nest-visit', 'nest-visit', '--version');
    const { version: packed } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'));
    if (!version.includes(packed)) throw new Error(`nest-visit --version printed ${version}`);

    begin('test');
    const runner = await testRun(row, runtime, packager);
    await run(runner.program, { cwd: place, env: runner.env });
    return { outcome: 'works', ...(hasTwo && { remark: TWO_INSTANCES }) };
  } catch (error) {
    return { outcome: step === 'runtime' ? 'not run' : 'fails', step, reason: error.message };
  }
}
