import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { verdict } from '../../.ci/size.mjs';
import { pack, type Packed } from '../matrix/pack.mjs';
import { temporaryFolder } from '../support/servers.mjs';
import { root } from './linked.js';

const run = promisify(execFile);
const folder = temporaryFolder('package');
let packed: Packed;

beforeAll(async () => {
  packed = await pack(folder.path);
});
afterAll(() => folder.remove());

test('The package contains only what a user needs', () => {
  const { files } = packed;
  expect(files.filter((file) => !/^dist\/(esm|cjs)\/.*\.(js|d\.ts)$/.test(file)).sort()).toEqual([
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'SECURITY.md',
    'dist/cjs/nest-add/collection.json',
    'dist/cjs/nest-add/schema.json',
    'dist/cjs/package.json',
    'dist/esm/package.json',
    'package.json',
  ]);
  for (const format of ['esm', 'cjs'])
    for (const entry of [
      'index',
      'testing/index',
      'store/drizzle/index',
      'store/keyv/index',
      'store/kysely/index',
      'store/prisma/index',
      'store/redis/index',
      'store/sealed-cookie/index',
      'express',
      'express-session',
      'fastify',
      'observe/opentelemetry',
    ])
      expect(files).toEqual(expect.arrayContaining([`dist/${format}/${entry}.js`, `dist/${format}/${entry}.d.ts`]));
  expect(files).toContain('dist/esm/cli/main.js');
});

test('The package is within its size budget', () => {
  expect(verdict(packed)).toEqual({
    isWithin: true,
    message: expect.stringMatching(/^\d+ kB of \d+ kB, \d+ of \d+ files$/),
  });
  expect(verdict({ size: 2001, entryCount: 4 }, { bytes: 2000, files: 3 }).message).toMatch(
    /has 3 kB, .* 2 kB .*, and it has 4 files, .* 3 /,
  );
});

test('publint finds nothing', async () => {
  const publint = join(root, 'node_modules/publint/src/cli.js');
  const { stdout } = await run(process.execPath, [publint, packed.tarball, '--strict'], { cwd: root });
  expect(stdout).toContain('All good');
});

test('The types of the package are right for both formats', async () => {
  const attw = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js');
  await expect(run(process.execPath, [attw, packed.tarball], { cwd: root })).resolves.toBeDefined();
});
