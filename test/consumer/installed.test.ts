import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { firstExample } from '../matrix/application.mjs';
import { Browser } from '../support/browser.js';
import { openDatabase } from '../support/databases.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { temporaryFolder } from '../support/servers.mjs';
import { isSoak } from '../support/soak.js';
import { isForToday } from '../support/today.js';
import { compile, exampleWithRedis, linkedFolder, MATRIX_EVERY, packagesIn, root } from './linked.js';
import { MISSING_SAID, missingFiles, TYPED, WITHOUT_TYPEORM, WITHOUT_TYPEORM_STARTS } from './fixtures/sources.js';

// What is true of the package with any version of what it stands on: seen once, beside the packages of the repository.
// Other versions, installed as users do, are the subject of the matrix. On its days nothing is compiled here: an
// application of the matrix is, also with the example of the README; package.test.ts sees the types in all resolutions.

const describeCompiled = describe.runIf(isSoak || !isForToday(0, MATRIX_EVERY));

const run = promisify(execFile);
const folder = temporaryFolder('installed');
const place = join(folder.path, 'app');
/** Without any optional package. */
const withoutTypeorm = join(folder.path, 'without-typeorm');

/** What an application has that keeps visits in memory. */
const NEST = [
  '@nestjs/common',
  '@nestjs/core',
  '@nestjs/platform-express',
  'reflect-metadata',
  'rxjs',
  'bowser',
  'cookie',
  'cron',
  '@types/node',
];

beforeAll(async () => {
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(join(root, 'dist/esm/index.js'))) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
  await linkedFolder(place, [...NEST, 'typeorm', 'mysql2', 'redis', '@types/express', 'fastify']);
  await linkedFolder(withoutTypeorm, NEST);
});
afterAll(() => folder.remove());

const children: ChildProcess[] = [];
async function stop(): Promise<void> {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exit = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await exit;
  }
}
afterEach(stop);

/** An example prints what Nest prints, and listens where PORT says: a free one. */
async function startListening(example: string, more: Record<string, string>): Promise<Browser> {
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = server.address() as AddressInfo;
      server.close(() => resolve(free));
    });
  });
  const { NODE_OPTIONS: _, ...own } = process.env;
  const env = { ...own, NODE_ENV: '', PORT: String(port), NO_COLOR: '1', ...more };
  const child = spawn(process.execPath, [`dist/${example}/main.js`], { cwd: join(place, 'examples'), env });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  const address = `http://127.0.0.1:${port}`;
  const answers = (): Promise<string> =>
    fetch(address).then(
      () => 'answers',
      () => (child.exitCode === null ? 'not yet' : output),
    );
  await expect.poll(answers).toBe('answers');
  return new Browser(address);
}

describeCompiled('The examples', () => {
  test('R67: of the README and with Redis compile without changes', async () => {
    const named = (where: string, files: [string, string][]): [string, string][] =>
      files.map(([file, text]) => [`${where}/${file}`, text]);
    const sources = [...named('readme', firstExample()), ...named('redis', await exampleWithRedis())];
    expect(await compile(place, { name: 'examples', type: 'module', sources })).toEqual([]);
  });

  describeWith('mysql', 'that of the README', () => {
    test('runs without changes', async () => {
      const { options, drop } = await openDatabase('mariadb');
      try {
        // The first visit is that of whoever waited for the start.
        const browser = await startListening('readme', { DATABASE_URL: (options as { url: string }).url });
        const first = await browser.get('/');
        expect(first.text).toMatch(/^visit [0-9a-f]{32}, 1 times$/);
        expect(first.headers.get('cache-control')).toBe('no-store');
        expect(first.cookies).toEqual([
          expect.stringMatching(/^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/),
        ]);
        expect((await browser.get('/')).text).toMatch(/, 2 times$/);
      } finally {
        await stop();
        await drop();
      }
    });
  });

  describeWith('redis', 'that with Redis', () => {
    test('R67: runs without changes; both formats give the same store', async () => {
      const browser = await startListening('redis', { REDIS_URL: redisUrl! });
      expect((await browser.get('/')).status).toBe(404);
      const script = `import('nest-visit/redis').then((one) => console.log(one.RedisVisitStore === require('nest-visit/redis').RedisVisitStore))`;
      const { NODE_OPTIONS: _, ...env } = process.env;
      expect((await run(process.execPath, ['-e', script], { cwd: place, env })).stdout).toBe('true\n');
    });
  });
});

describeCompiled('An application that declares the shape of its sessions', () => {
  test('has it in every Session without a type argument, and in the requests of both frameworks', async () => {
    const sources: [string, string][] = [['typed.controller.ts', TYPED]];
    const options = { noEmit: true };
    expect(await compile(place, { name: 'typed', type: 'module', sources, options })).toEqual([]);
  });
});

describe('If an optional package is missing', () => {
  test('R74: startup reports what to install, in both formats', async () => {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const printed: string[] = [];
    for (const [file, text] of missingFiles(withoutTypeorm)) {
      await writeFile(join(withoutTypeorm, file), text);
      printed.push(...(await run(process.execPath, [file], { cwd: withoutTypeorm, env })).stdout.trim().split('\n'));
    }
    expect(printed).toEqual(MISSING_SAID);
  });
});

describeCompiled.each([
  ['nodenext', 'module', {}],
  ['nodenext', 'commonjs', {}],
  [
    'node10',
    'commonjs',
    {
      module: ts.ModuleKind.CommonJS,
      moduleResolution: ts.ModuleResolutionKind.Node10,
      ignoreDeprecations: '6.0',
    },
  ],
] as const)('Without typeorm, compiled with "moduleResolution": "%s" as %s', (resolution, type, more) => {
  test('the types of the package do not refer to missing packages', async () => {
    const name = `types-${resolution}-${type}`;
    const options = { noEmit: true, ...more };
    const sources: [string, string][] = [['app.ts', WITHOUT_TYPEORM]];
    expect(await compile(withoutTypeorm, { name, type, sources, options })).toEqual([]);
    expect(await packagesIn(withoutTypeorm)).not.toContain('typeorm');
  });
});

describe.each(Object.entries(WITHOUT_TYPEORM_STARTS))('Without typeorm, as %s', (_format, [file, text]) => {
  test('visits are stored in memory, and a data source causes an error that says what to install', async () => {
    await writeFile(join(withoutTypeorm, file), text);
    const { NODE_OPTIONS: _, ...env } = process.env;
    const { stdout } = await run(process.execPath, [file], { cwd: withoutTypeorm, env });
    expect(JSON.parse(stdout)).toEqual({
      status: 404,
      error: { code: 'VISIT_OPTION', message: expect.stringContaining('npm install typeorm') as string },
    });
  });
});
