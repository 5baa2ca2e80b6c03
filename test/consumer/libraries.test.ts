import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PATIENCE } from '../support/patience.js';
import { isForToday } from '../support/today.js';

// What applications use beside the package, of the time of Nest 11; those of Nest 12 are in test/e2e. An installation
// takes a minute, and versions change seldom: every sixth day, when matrix.test.ts installs nothing, and each time in
// test:soak.

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const isDue = isForToday(1, 6);

const NESTS = ['common', 'core', 'platform-express', 'platform-fastify', 'websockets'].map(
  (name) => `@nestjs/${name}@11`,
);
const LIBRARIES = [
  ...['graphql@13', 'apollo@13', 'mercurius@13', 'passport@11', 'terminus@11'].map((name) => `@nestjs/${name}`),
  '@apollo/server@5',
  '@as-integrations/express5@1',
  'graphql@16',
  'graphql-ws@6',
  'mercurius@16',
  'passport@0.7',
  'passport-local@1',
  'ws@8',
];
const TOOLS = ['reflect-metadata@0.2', 'rxjs@7', 'typescript@5.9', '@types/node@20', '@types/ws@8'];

describe.runIf(isDue)('GraphQL, Passport and terminus of Nest 11', () => {
  let place: string;

  beforeAll(async () => {
    place = await mkdtemp(join(tmpdir(), 'nest-visit-libraries-'));
    // Other tests use the build at the same time, so it is made anew only where there is none.
    if (!existsSync(join(root, 'dist/esm/index.js'))) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', place], { cwd: root });
    const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
    await writeFile(join(place, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
    const packages = [`./${filename}`, ...NESTS, ...LIBRARIES, ...TOOLS];
    await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', ...packages], {
      cwd: place,
      timeout: 3 * PATIENCE,
    });
    await cp(join(root, 'test/consumer/fixtures/libraries.ts'), join(place, 'src/libraries.ts'));
    const compilerOptions = {
      target: 'es2022',
      module: 'node16',
      moduleResolution: 'node16',
      strict: true,
      skipLibCheck: true,
      experimentalDecorators: true,
      emitDecoratorMetadata: true,
      types: ['node'],
      rootDir: 'src',
      outDir: 'dist',
    };
    await writeFile(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
    await run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], { cwd: place });
  });
  afterAll(() => rm(place, { recursive: true, force: true }));

  test('find the visit of their request, and subscriptions close with it', async () => {
    const { stdout } = await run(process.execPath, ['dist/libraries.js'], { cwd: place, timeout: PATIENCE });
    const graphql = [
      ['VISIT_IDENTITY_REQUIRED'],
      { add: 1 },
      { login: true },
      { user: 'ann', secret: 'secret' },
      { add: 2 },
      true,
      { users: 'ann' },
      4401,
    ];
    const lines = stdout.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        graphql,
        signing: {
          wrong: 401,
          right: { user: 'bob' },
          account: { userId: 'bob', user: { id: 'bob' }, visits: 1 },
          out: 201,
          after: 401,
        },
        health: ['ok', { visits: { status: 'up' } }],
      },
      { graphql },
    ]);
  });
});
