import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/servers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = temporaryFolder('without-typeorm');
const run = promisify(execFile);

/** What an application has that keeps visits in memory. */
const INSTALLED = [
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

/** Every entry point that stands on no optional package. */
const TYPED = `
import { MemoryVisitStore, VisitModule, type NewDataSource } from 'nest-visit';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { KeyvVisitStore } from 'nest-visit/keyv';
import * as kit from 'nest-visit/store-kit';
import { VisitTestingModule } from 'nest-visit/testing';

declare const prisma: ConstructorParameters<typeof PrismaVisitStore>[0];
VisitModule.forRoot({ store: new PrismaVisitStore(prisma), timeout: '20m' });
VisitModule.forRoot({ store: new MemoryVisitStore() });
export const others = [KeyvVisitStore, kit, VisitTestingModule];

// Of a data source it is known that it has a type, and not merely that it may be anything.
VisitModule.forRoot({ dataSource: { type: 'mysql' } });
// @ts-expect-error: not a data source
VisitModule.forRoot({ dataSource: 5 });
// @ts-expect-error: it is not said where visits are kept
VisitModule.forRoot({ timeout: '20m' });
export const source: NewDataSource = { type: 'postgres' };
`;

const BODY = `
  const { MemoryVisitStore, VisitModule } = library;
  const start = async (options) => {
    const app = await NestFactory.create({ module: class AppModule {}, imports: [VisitModule.forRoot(options)] }, { logger: false, abortOnError: false });
    await app.listen(0, '127.0.0.1');
    const { status } = await fetch(await app.getUrl());
    await app.close();
    return status;
  };
  const status = await start({ store: new MemoryVisitStore() });
  const error = await start({ dataSource: { type: 'mysql' } }).catch(({ code, message }) => ({ code, message }));
  process.stdout.write(JSON.stringify({ status, error }));
`;

const FORMATS = {
  'ES modules': [
    'app.mjs',
    `import 'reflect-metadata';\nimport { NestFactory } from '@nestjs/core';\nimport * as library from ` +
      `'nest-visit';\n${BODY}`,
  ],
  // As tools have it that do not know the condition "module-sync".
  CommonJS: [
    'app.cjs',
    `require('reflect-metadata');\n(async () => {\nconst { NestFactory } = await import('@nestjs/core');\nconst ` +
      `library = require('./node_modules/nest-visit/dist/cjs/index.js');\n${BODY}})();`,
  ],
} as const;

beforeAll(async () => {
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(join(root, 'dist/esm/index.js'))) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
  const modules = join(folder.path, 'node_modules');
  for (const name of INSTALLED) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), join(modules, name), 'dir');
  }
  // A copy, because what a link leads to finds the packages beside the original.
  for (const part of ['dist/esm', 'dist/cjs', 'package.json'])
    cpSync(join(root, part), join(modules, 'nest-visit', part), { recursive: true });
  for (const [file, text] of Object.values(FORMATS)) writeFileSync(join(folder.path, file), text);
});
afterAll(() => folder.remove());

describe.each([
  ['nodenext', 'module', {}],
  ['nodenext', 'commonjs', {}],
  ['node10', 'commonjs', { module: 'commonjs', ignoreDeprecations: '6.0' }],
] as const)('Without typeorm, compiled with "moduleResolution": "%s" as %s', (moduleResolution, type, more) => {
  test('the types of the package name none that is missing, where "skipLibCheck" is off', async () => {
    const name = `types-${moduleResolution}-${type}`;
    const place = join(folder.path, name);
    mkdirSync(place);
    writeFileSync(join(place, 'package.json'), JSON.stringify({ type }));
    writeFileSync(join(place, 'app.ts'), TYPED);
    const options = {
      target: 'es2022',
      module: 'nodenext',
      moduleResolution,
      strict: true,
      skipLibCheck: false,
      noEmit: true,
      types: ['node'],
    };
    const decorators = { experimentalDecorators: true, emitDecoratorMetadata: true };
    const config = { compilerOptions: { ...options, ...decorators, ...more }, files: ['app.ts'] };
    writeFileSync(join(place, 'tsconfig.json'), JSON.stringify(config));
    const tsc = run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', place], { cwd: place });
    const output = await tsc.then(
      ({ stdout }) => stdout,
      (error: { stdout: string }) => error.stdout,
    );
    // The types of other packages are not ours to check.
    const isOurs = (line: string): boolean =>
      !line.includes('node_modules/') || line.includes('node_modules/nest-visit/');
    expect(output.split('\n').filter((line) => /error TS/.test(line) && isOurs(line))).toEqual([]);
    // What would be judged is there, and TypeORM is not.
    expect(readFileSync(join(folder.path, 'node_modules/nest-visit/dist/esm/index.d.ts'), 'utf8')).toContain(
      'VisitModule',
    );
    expect(readdirSync(join(folder.path, 'node_modules'))).not.toContain('typeorm');
  });
});

describe.each(Object.entries(FORMATS))('Without typeorm, as %s', (_format, [file]) => {
  test('visits are kept in memory, and a data source says what to install', async () => {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const { stdout } = await run(process.execPath, [file], { cwd: folder.path, env });
    expect(JSON.parse(stdout)).toEqual({
      status: 404,
      error: { code: 'VISIT_OPTION', message: expect.stringContaining('npm install typeorm') as string },
    });
  });
});
