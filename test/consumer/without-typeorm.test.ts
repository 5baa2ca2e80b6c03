import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/servers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = temporaryFolder('without-typeorm');
const run = promisify(execFile);

/** What an application has that keeps visits in memory. */
const INSTALLED = ['@nestjs/common', '@nestjs/core', '@nestjs/platform-express', 'reflect-metadata', 'rxjs', 'bowser', 'cookie', 'cron'];

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
    `import 'reflect-metadata';\nimport { NestFactory } from '@nestjs/core';\nimport * as library from 'nest-visit';\n${BODY}`,
  ],
  // As tools have it that do not know the condition "module-sync".
  CommonJS: [
    'app.cjs',
    `require('reflect-metadata');\n(async () => {\nconst { NestFactory } = await import('@nestjs/core');\nconst library = require('./node_modules/nest-visit/dist/cjs/index.js');\n${BODY}})();`,
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
