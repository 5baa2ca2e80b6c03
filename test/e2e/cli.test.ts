import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { TypeOrmVisitStore, visitEntities, visitMigrations, type NewVisitRecord } from 'nest-visit';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = join(root, 'dist/esm/cli/main.js');
const DAY = 86_400_000;

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the built command. */
function command(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { cwd: root, timeout: 30_000 }, (error, out, err) => {
      resolve({ code: error ? Number(error.code ?? -1) : 0, out, err });
    });
  });
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nest-visit-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let files = 0;
async function file(text: string, extension = 'mjs'): Promise<string> {
  const path = join(folder, `data-source-${++files}.${extension}`);
  await writeFile(path, text);
  return path;
}

describe('The command', () => {
  test('R63: explains itself', async () => {
    const { code, out } = await command('--help');
    expect(code).toBe(0);
    expect(out).toMatch(/nest-visit expunge --data-source[^]*--keep-days[^]*\(7\)[^]*Exit codes/);
    expect((await command('expunge', '-h')).out).toBe(out);
    expect((await command('--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each([
    [[], /say what to do: expunge or wipe/],
    [['purge'], /there is no command "purge"/],
    [['expunge', 'wipe'], /one command at a time/],
    [['expunge'], /--data-source is needed/],
    [['expunge', '--data-source', 'nowhere.js'], /there is no file .*nowhere\.js/],
    [['expunge', '--data-source', 'lib/index.ts'], /is TypeScript/],
    [['expunge', '--data-source', 'package.json'], /cannot be loaded/],
    [['expunge', '--data-source', 'lib/build.mjs', '--keep-days', 'many'], /--keep-days must be a number, got "many"/],
    [['expunge', '--data-source', 'x', '--batch-size', '0'], /--batch-size must be a number, got "0"/],
    [['expunge', '--cleanup'], /--cleanup/],
  ])('R63: %j is wrong usage', async (args, text) => {
    const { code, err, out } = await command(...args);
    expect(err).toMatch(text);
    expect(err).not.toMatch(/\n\s+at /);
    expect(out).toBe('');
    expect(code).toBe(2);
  });

  test('R63: a file without a data source is wrong usage', async () => {
    expect(await command('expunge', '--data-source', await file('export const nothing = 5; export class Other {}'))).toMatchObject({
      code: 2,
    });
  });

  test('R63: a database that is away is one line, without the password', async () => {
    const away = await file(`export default { type: 'mysql', url: 'mysql://root:secret@127.0.0.1:9/none' }`);
    const { code, err } = await command('expunge', '--data-source', away);
    expect(code).toBe(1);
    expect(err).toMatch(/^nest-visit: cannot open the data source[^\n]*\n$/);
    expect(err).not.toContain('secret');
  });
});

describeDatabases('The command', (db) => {
  let dataSource: DataSource;
  let store: TypeOrmVisitStore;
  let optionsText: string;

  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await new DataSource({
      ...options,
      entities: visitEntities,
      migrations: visitMigrations,
      migrationsRun: true,
    }).initialize();
    store = new TypeOrmVisitStore(dataSource);
    optionsText = JSON.stringify({ ...options, driver: undefined });
  });
  afterAll(() => dataSource?.destroy());

  const libsql = db.name === 'sqlite' ? `, driver: createRequire(${JSON.stringify(join(root, 'package.json'))})('libsql')` : '';
  const esm = (body: string): Promise<string> =>
    file(`
      import { createRequire } from 'node:module';
      import { visitEntities } from ${JSON.stringify(pathToFileURL(join(root, 'dist/esm/index.js')).href)};
      import typeorm from ${JSON.stringify(pathToFileURL(join(root, 'node_modules/typeorm/index.js')).href)};
      const options = { ...${optionsText}${libsql} };
      ${body}`);

  async function fill(): Promise<void> {
    const now = Date.now();
    const visit = (expiry: number, user?: string): NewVisitRecord => ({
      id: randomBytes(16).toString('hex'),
      keyHash: randomBytes(32).toString('hex'),
      created: now,
      accessed: now,
      expiry,
      absoluteExpiry: null,
      permanent: false,
      remoteAddress: null,
      userAgent: null,
      sessionData: Buffer.from('x'),
      identity: user === undefined ? null : { userId: user, created: now, authenticatedAt: now },
    });
    await store.create([visit(now - 8 * DAY, 'a'), visit(now - 8 * DAY), visit(now - 6 * DAY), visit(now + DAY, 'a')]);
  }

  test('R61, R62, R63: counts, then wipes, then expunges, through every kind of data source file', async () => {
    await fill();
    const asOptions = await esm('export default options;');
    expect(await command('wipe', '--data-source', asOptions, '--dry-run')).toEqual({
      code: 0,
      out: 'would wipe the session data of 3 visits\n',
      err: '',
    });
    expect(await command('wipe', '--data-source', asOptions, '--json')).toEqual({ code: 0, out: '{"visits":3}\n', err: '' });

    const asFactory = await esm(
      'export const nothing = 1; export const source = async () => new typeorm.DataSource({ ...options, entities: visitEntities });',
    );
    expect(await command('expunge', '--data-source', asFactory, '--dry-run')).toMatchObject({
      code: 0,
      out: 'would expunge 2 visits and 1 identities\n',
    });

    const common = await file(
      `const { createRequire } = require('node:module');
       const { DataSource } = require(${JSON.stringify(join(root, 'node_modules/typeorm'))});
       const { visitEntities } = require(${JSON.stringify(join(root, 'dist/cjs/index.js'))});
       exports.AppDataSource = new DataSource({ ...${optionsText}${libsql}, entities: visitEntities });`,
      'cjs',
    );
    // dist/cjs is another copy of the package than the command's, as tools that know "require" only would load it.
    expect(await command('expunge', '--data-source', common)).toMatchObject({
      code: 1,
      err: expect.stringContaining('visitEntities') as string,
    });

    const asSource = await esm('export const AppDataSource = new typeorm.DataSource({ ...options, entities: visitEntities });');
    expect(await command('expunge', '--data-source', asSource, '--batch-size', '1')).toEqual({
      code: 0,
      out: 'expunged 2 visits and 1 identities\n',
      err: '',
    });
    expect(await command('expunge', '--data-source', asSource, '--keep-days', '5.5', '--quiet')).toEqual({ code: 0, out: '', err: '' });
    expect(await store.countStale(Number.MAX_SAFE_INTEGER)).toEqual({ visits: 1, identities: 1 });
  }, 60_000);

  test('R71: a missing table says which migration makes it', async () => {
    await dataSource.query('DROP TABLE visit_identity');
    const { code, err } = await command('expunge', '--data-source', await esm('export default options;'));
    expect(code).toBe(1);
    expect(err).toMatch(/^nest-visit: table "visit_identity" is missing[^\n]*visitMigrations[^\n]*\n$/);
  });
});
