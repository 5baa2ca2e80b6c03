import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { installByNpm } from '../matrix/tools.mjs';
import { documentedFiles } from '../support/documented-store.js';
import { PATIENCE } from '../support/patience.js';
import { MISSING_SAID, missingFiles } from './fixtures/sources.js';
import { root } from './linked.js';

// What the rows of the matrix do not show of NestJS 10 and 11.

const run = promisify(execFile);

export interface OlderNest {
  readonly nest: string;
  readonly typescript: string;
  readonly more: readonly string[];
}

export const OLDER_NESTS: readonly OlderNest[] = [
  { nest: '11', typescript: '5.9', more: ['jest@30', 'ts-jest@29'] },
  { nest: '10', typescript: '5.4', more: [] },
];

/** An application with what gateways need. */
export async function installOlder(
  { nest, typescript, more }: OlderNest,
  place: string,
  tarball: string,
): Promise<void> {
  await mkdir(join(place, 'src'), { recursive: true });
  await writeFile(join(place, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
  const parts = ['common', 'core', 'platform-express', 'websockets', 'platform-ws', 'platform-socket.io'];
  await installByNpm(
    place,
    tarball,
    ...parts.map((name) => `@nestjs/${name}@${nest}`),
    'ws@8',
    '@types/ws@8',
    'socket.io-client@4',
    'reflect-metadata@0.2',
    'rxjs@7',
    '@types/node@20',
    `typescript@${typescript}`,
    ...more,
  );
}

/** By ws and by socket.io: the visit of the handshake is known, other sites are refused, connections close with it. */
export async function expectGateways(place: string): Promise<void> {
  await writeFile(
    join(place, 'src/gateways.ts'),
    await readFile(join(root, 'test/consumer/fixtures/gateways.ts'), 'utf8'),
  );
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
  const { stdout } = await run(process.execPath, ['dist/gateways.js'], { cwd: place, timeout: PATIENCE });
  const lines = stdout.trim().split('\n');
  const seen = {
    added: [[1, 'ann', 'ann', 32], [2, 'ann', 'ann', 32], '2'],
    guarded: ['let in', 'VISIT_IDENTITY_REQUIRED', 'VISIT_NOT_RESOLVED'],
    refusal: 'Unexpected server response: 403',
    closed: 4401,
  };
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    { transport: 'ws', ...seen },
    { transport: 'socket.io', ...seen },
  ]);
}

/** The start says what to install, in both formats. */
export async function expectMissing(place: string): Promise<void> {
  const printed: string[] = [];
  for (const [file, text] of missingFiles(place)) {
    await writeFile(join(place, file), text);
    printed.push(...(await run(process.execPath, [file], { cwd: place })).stdout.trim().split('\n'));
  }
  expect(printed).toEqual(MISSING_SAID);
}

/** Under Jest the store of docs/writing-a-store.md passes, and fails with a mistake in it. */
export async function expectStoreSuite(place: string): Promise<void> {
  const tests = join(place, 'test');
  const shouldBe = 'kit.touched(this.stored(touch.id), touch)';
  const broken = { is: `{ ...${shouldBe}!, accessed: touch.accessed }`, shouldBe };
  for (const kind of ['sound', 'broken']) {
    await mkdir(join(tests, kind), { recursive: true });
    for (const [name, text] of documentedFiles())
      await writeFile(join(tests, kind, name), kind === 'sound' ? text : text.replace(broken.shouldBe, broken.is));
  }
  // As the command line of Nest sets it up.
  const tsconfig = {
    module: 'commonjs',
    target: 'es2022',
    isolatedModules: true,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
  };
  const transform = { '^.+\\.(t|j)s$': ['ts-jest', { tsconfig }] };
  const config = { rootDir: 'test', testRegex: '.*\\.spec\\.ts$', transform, testEnvironment: 'node' };
  await writeFile(join(place, 'jest.json'), JSON.stringify(config));
  const jest = run(process.execPath, ['node_modules/jest/bin/jest.js', '-c', 'jest.json', '--json'], {
    cwd: place,
  });
  const output = await jest.then(
    () => expect.fail('the mistake was not seen'),
    ({ stdout }: { stdout: string }) => stdout,
  );
  const { testResults } = JSON.parse(output) as {
    testResults: { name: string; assertionResults: { status: string; title: string }[] }[];
  };
  const failed = (kind: string): string[] =>
    testResults
      .find(({ name }) => name.includes(`/${kind}/`))!
      .assertionResults.flatMap(({ status, title }) => (status === 'passed' ? [] : [title]));
  expect(testResults.map(({ assertionResults }) => assertionResults.length > 60)).toEqual([true, true]);
  expect(failed('sound')).toEqual([]);
  expect(failed('broken')).toContain('moves accessed and expiry forward, never back, and changes nothing else');
}
