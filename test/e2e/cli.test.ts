import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type VisitRecord } from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { countStale, expungeAll } from '../../lib/testing/cleanup.js';
import { openMigrated } from '../support/open-migrated.js';
import { describeDatabases, openDatabase } from '../support/databases.js';
import { main, program, useCommands } from '../support/command.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { uniquePrefix } from '../support/redis.js';
import { created } from '../../lib/store/visit.record.js';
import { endAll, listAll } from '../../lib/testing/many.js';
import { DAY, newVisit } from '../../lib/testing/samples.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = (path: string): string => JSON.stringify(pathToFileURL(join(root, path)).href);

const now = Date.now();

const commands = useCommands();
const { command, file } = commands;

describe('The command', () => {
  test('R63: prints help, for all commands and for each one', async () => {
    const { code, out } = await command('--help');
    expect(code).toBe(0);
    expect(out).toMatch(
      /nest-visit expunge [^]*nest-visit wipe [^]*nest-visit doctor [^]*Exit codes:\n {2}0 [^]* 1 [^]* 2 [^]* 130 /,
    );
    const ofExpunge = await command('expunge', '-h');
    expect(ofExpunge.out).toMatch(
      /--data-source[^]*--keep-days[^]*by default 7\n[^]*--batch-size[^]*by default 250\n[^]*Exit codes/,
    );
    const ofWipe = await command('wipe', '--help');
    expect(ofWipe.out).toMatch(/--batch-size[^]*Exit codes/);
    expect(ofWipe.out).not.toContain('--keep-days');
    for (const name of ['expunge', 'wipe', 'list', 'end', 'stats', 'move', 'doctor']) {
      const { out: page } = await command(name, '--help');
      expect(page).toMatch(
        new RegExp(
          `^nest-visit ${name} [^]*\\n {2}--json [^]*\\nExit codes:[^]*\\nExamples?:\\n[^]*nest-visit ${name} `,
        ),
      );
    }
  });

  // In a process of its own, because it is the version of the package whose file was started.
  test('R63: prints its version', async () => {
    const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };
    expect(await program(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });

  // What is wrong with arguments is told by test/unit/cli-arguments.test.ts.
  test.each([
    [['purge'], /there is no command "purge"/, ''],
    [['wipe', '--quite', '--data-source', 'x'], /there is no option --quite/, ''],
    [['expunge'], /--data-source is required/, 'expunge '],
    [['expunge', '--data-source', 'nowhere.js'], /there is no file .*nowhere\.js/, ''],
    [['move', '--from', 'nowhere.js', '--to', 'x'], /there is no file .*nowhere\.js/, ''],
    [['expunge', '--data-source', 'package.json'], /cannot be loaded/, ''],
  ])('R63: %j is rejected with the usage', async (args, text, help) => {
    const { code, err, out } = await command(...args);
    expect(err).toMatch(text);
    expect(err).toMatch(new RegExp(`^nest-visit: [^\\n]+\\nTry: nest-visit ${help}--help\\n$`));
    expect(out).toBe('');
    expect(code).toBe(2);
  });

  test('R63: a file whose default export is not a data source is rejected, whatever else it exports', async () => {
    const none = await file(
      'export const nothing = 5; export class Other {}; export const broken = new Promise(() => {}).then;',
    );
    expect(await command('expunge', '--data-source', none)).toMatchObject({
      code: 2,
      err: expect.stringContaining('is not a DataSource'),
    });
    // What it exports besides is not called: whoever wrote it did not ask for that.
    const called = join(commands.folder, 'called');
    const functions = await file(
      `import { writeFileSync } from 'node:fs';
       const call = () => (writeFileSync(${JSON.stringify(called)}, ''), { type: 'mysql' });
       export { call as dropDatabase, call as open };`,
    );
    expect(await command('expunge', '--data-source', functions)).toMatchObject({
      code: 2,
      err: expect.stringMatching(
        /the default export of [^\n]* is not a DataSource of typeorm, its options, or a visit store\n/,
      ) as string,
    });
    expect(existsSync(called)).toBe(false);
    for (const [text, extension] of [
      [`export const AppDataSource = { type: 'mysql' };`, 'mjs'],
      [`exports.AppDataSource = { type: 'mysql' };`, 'cjs'],
    ] as const) {
      expect(await command('expunge', '--data-source', await file(text, extension))).toMatchObject({
        code: 2,
        err: expect.stringContaining('store: add a default export, such as `export default AppDataSource;`') as string,
      });
    }
  });

  test('R63: a file that cannot be loaded is reported in one line, and with a stack trace on request', async () => {
    const broken = await file(`require('./nowhere.js')`, 'cjs');
    const { code, err } = await command('expunge', '--data-source', broken);
    expect(code).toBe(2);
    expect(err).toMatch(/^nest-visit: [^\n]*cannot be loaded: Cannot find module '\.\/nowhere\.js'\nTry: [^\n]*\n$/);
    // It exits by itself, too, with what the file has left open.
    const open = await file(`setInterval(() => {}, 1000); require('./nowhere.js')`, 'cjs');
    const asked = await program(['expunge', '--data-source', open], { NODE_DEBUG: 'nest-visit' });
    expect(asked.err).toMatch(/\n\s+at [^]*\nnest-visit: [^\n]*cannot be loaded: /);
    expect(asked.code).toBe(2);
  });

  test('R63: a TypeScript file is loaded if Node supports it; otherwise the error says what to do', async () => {
    const plain = await file(`const source: unknown = { type: 'none of them' }; export default source;`, 'ts');
    const { code, err } = await command('expunge', '--data-source', plain);
    const isLoaded = Boolean((process.features as { typescript?: unknown }).typescript);
    expect(code).toBe(isLoaded ? 1 : 2);
    if (!isLoaded)
      expect(err).toMatch(/this version of Node cannot load TypeScript: use the compiled file, .*--import tsx"\n/);
    else expect(err).not.toContain('TypeScript');
    const decorated = await file(
      `function one(..._: unknown[]) {} @one export class Entity {} export default { type: 'mysql' };`,
      'ts',
    );
    const other = await command('expunge', '--data-source', decorated);
    expect(other.code).toBe(2);
    expect(other.err).toMatch(
      /^nest-visit: [^\n]*cannot be loaded: [^\n]*TypeScript[^\n]*use the compiled file[^\n]*\nTry: /,
    );
  });

  const typeorm = here('node_modules/typeorm/index.js');
  test.each([
    ['options with a url', `export default { type: 'mysql', url: 'mysql://root:secret@127.0.0.1:9/none' }`],
    [
      'options',
      `export default { type: 'postgres', host: '127.0.0.1', port: 9, username: 'root', password: 'secret' }`,
    ],
    [
      'a DataSource at a name with several addresses',
      `import typeorm from ${typeorm};
       export default new typeorm.DataSource({ type: 'mysql', host: 'localhost', port: 9, username: 'root', password: 'secret' })`,
    ],
    [
      'a function that fails',
      `export default () => { throw new Error('ECONNREFUSED mysql://root:secret@127.0.0.1\\nat once'); }`,
    ],
  ])('R63: an unavailable database is reported in one line, without the password: %s', async (_, text) => {
    const { code, err, out } = await command('expunge', '--data-source', await file(text));
    expect(err).toMatch(/^nest-visit: [^\n]*ECONNREFUSED[^\n]*\n$/);
    expect(err).not.toContain('secret');
    expect(out).toBe('');
    expect(code).toBe(1);
  });
});

describeDatabases('The command', (db) => {
  let dataSource: DataSource;
  let store: TypeOrmVisitStore;
  let optionsText: string;

  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    store = new TypeOrmVisitStore(dataSource);
    optionsText = JSON.stringify({ ...options, driver: undefined });
  });
  afterAll(() => dataSource?.destroy());

  const libsql =
    db.name === 'sqlite' ? `, driver: createRequire(${JSON.stringify(join(root, 'package.json'))})('libsql')` : '';
  const esm = (body: string): Promise<string> =>
    file(`
      import { createRequire } from 'node:module';
      import { visitEntities } from ${here('dist/esm/store/typeorm/index.js')};
      import typeorm from ${here('node_modules/typeorm/index.js')};
      const options = { ...${optionsText}${libsql} };
      ${body}`);

  const visit = (expiry: number, user?: string): VisitRecord =>
    created({
      id: randomBytes(16).toString('hex'),
      keyHash: randomBytes(32).toString('hex'),
      created: now,
      expiry,
      sessionData: Buffer.from('x'),
      identity: user === undefined ? null : { userId: user, created: now, authenticatedAt: now },
    });

  if (db.name === 'sqlite') {
    test('expunge reports visits that are kept because other tables refer to them, and succeeds', async () => {
      const [kept, gone] = [visit(now - 8 * DAY), visit(now - 8 * DAY)];
      await store.create([kept, gone]);
      await store.dataSource.query('CREATE TABLE basket (visit_id VARCHAR(32) REFERENCES visit (id))');
      await store.dataSource.query(`INSERT INTO basket VALUES ('${kept.id}')`);
      const outcome = await command('expunge', '--json', '--data-source', await esm('export default options;'));
      await store.dataSource.query('DROP TABLE basket');
      expect(outcome).toEqual({
        code: 0,
        out: '{"visits":1,"identities":0}\n',
        err: expect.stringMatching(
          /^nest-visit: 1 expired or ended visit stays, because rows of other tables refer to it .*\n$/,
        ) as string,
      });
      await expungeAll({ store }, { before: now + 9 * DAY, limit: 10 });
    });
  }

  test('R63: moves live visits to another store, and prints how many', async () => {
    const other = await openDatabase('sqlite');
    onTestFinished(() => other.drop());
    const there = await openMigrated(other.options);
    onTestFinished(() => there.destroy());
    const visits = [visit(now + DAY, 'mover'), visit(now + DAY, 'mover'), visit(now - DAY, 'mover')];
    await store.create(visits);
    const from = await esm('export default options;');
    const driver = `createRequire(${JSON.stringify(join(root, 'package.json'))})('libsql')`;
    // A file may export a store, too: of its own kind, or opened in its own way. Each command closes what it gets.
    const to = () =>
      esm(
        `import { TypeOrmVisitStore } from ${here('dist/esm/store/typeorm/index.js')};
       const source = new typeorm.DataSource({ ...${JSON.stringify({ ...other.options, driver: undefined })}, driver: ${driver}, entities: visitEntities });
       await source.initialize();
       export default new TypeOrmVisitStore(source, { owned: true });`,
      );
    const move = async (...more: string[]) => command('move', '--from', from, '--to', await to(), ...more);
    expect(await command('move', '--from', from)).toMatchObject({
      code: 2,
      err: expect.stringContaining('--to is required') as string,
    });
    // It ends, although the first store was open by then.
    expect(await command('move', '--from', from, '--to', 'nowhere.js')).toMatchObject({ code: 2 });
    expect(await move('--dry-run')).toEqual({ code: 0, out: 'would move 2 visits\n', err: '' });
    expect(await move('--json', '--batch-size', '1')).toEqual({ code: 0, out: '{"visits":2}\n', err: '' });
    expect(await move()).toEqual({ code: 0, out: 'moved 0 visits\n', err: '' });
    const moved = await listAll(new TypeOrmVisitStore(there), 'mover', now);
    expect(moved.map(({ id }) => id).sort()).toEqual([visits[0]!.id, visits[1]!.id].sort());
    expect(await listAll(store, 'mover', now)).toEqual([]);
    await endAll(store, { reason: 'test', at: 0 });
    await expungeAll({ store }, { before: now + 9 * DAY, limit: 10 });
  });

  test('R61, R62, R63: counts, then wipes, then expunges, through every kind of data source file', async () => {
    await store.create([visit(now - 8 * DAY, 'a'), visit(now - 8 * DAY), visit(now - 6 * DAY), visit(now + DAY, 'a')]);
    const asOptions = await esm('export default options;');
    expect(await command('wipe', '--data-source', asOptions, '--dry-run')).toEqual({
      code: 0,
      out: 'would wipe the session data of 3 visits\n',
      err: '',
    });
    expect(await command('wipe', '--data-source', asOptions, '--json')).toEqual({
      code: 0,
      out: '{"visits":3}\n',
      err: '',
    });

    const asFactory = await esm(
      'export const nothing = 1; export default async () => new typeorm.DataSource({ ...options, entities: ' +
        'visitEntities, logging: true });',
    );
    expect(await command('expunge', '--data-source', asFactory, '--dry-run')).toMatchObject({
      code: 0,
      out: 'would expunge 2 visits and 1 identity\n',
    });

    const common = await file(
      `const { createRequire } = require('node:module');
       const { DataSource } = require(${JSON.stringify(join(root, 'node_modules/typeorm'))});
       const { visitEntities } = require(${JSON.stringify(join(root, 'dist/cjs/store/typeorm/index.js'))});
       module.exports = new DataSource({ ...${optionsText}${libsql}, entities: visitEntities });`,
      'cjs',
    );
    // dist/cjs is another copy of the package than the command's, as tools that know "require" only would load it.
    expect(await command('expunge', '--data-source', common)).toMatchObject({
      code: 1,
      err: expect.stringContaining('visitEntities') as string,
    });

    const asSource = await esm('export default new typeorm.DataSource({ ...options, entities: visitEntities });');
    expect(await command('expunge', '--data-source', asSource, '--batch-size', '1')).toEqual({
      code: 0,
      out: 'expunged 2 visits and 1 identity\n',
      err: '',
    });
    // Options beside it, as files for TypeORM's own command line often have them, and a function that nobody asked for.
    const asPromise = await esm(`
      export { options };
      export const open = () => { throw new Error('not to be called'); };
      export default new typeorm.DataSource({ ...options, entities: visitEntities }).initialize();`);
    expect(await command('expunge', '--data-source', asPromise, '--keep-days', '5.5', '--quiet')).toEqual({
      code: 0,
      out: '',
      err: '',
    });
    expect(await countStale({ store }, Number.MAX_SAFE_INTEGER)).toEqual({ visits: 1, identities: 1 });
  });

  // With SQLite all batches run in one turn of the event loop, which no signal interrupts.
  if (db.name !== 'sqlite') {
    test('R63: stops on Ctrl-C after the current batch', async () => {
      await store.create(Array.from({ length: 2000 }, () => visit(now - 8 * DAY)));
      const left = async (): Promise<number> => (await countStale({ store }, now - 7 * DAY)).visits;
      const source = await esm('export default options;');
      const child = spawn(process.execPath, [main, 'expunge', '--data-source', source, '--batch-size', '1'], {
        cwd: root,
      });
      let err = '';
      child.stderr.on('data', (data: Buffer) => (err += data.toString()));
      const code = new Promise((resolve) => child.once('exit', resolve));
      await expect.poll(left, { interval: 5 }).toBeLessThan(2000);
      child.kill('SIGINT');
      expect(await code).toBe(130);
      const done = Number(
        /^nest-visit: interrupted: expunged (\d+) visits?, the rest is still there\n$/.exec(err)?.[1],
      );
      expect(await left()).toBe(2000 - done);
      expect((await command('expunge', '--data-source', source)).out).toBe(
        `expunged ${2000 - done} visits and 0 identities\n`,
      );
    });
  }

  test('R71: a missing table is reported with its migration, and is not created', async () => {
    await dataSource.query('DROP TABLE visit_identity');
    for (const more of ['', ', synchronize: true', ', migrationsRun: true']) {
      const { code, err } = await command(
        'expunge',
        '--data-source',
        await esm(`export default { ...options${more} };`),
      );
      expect(err).toMatch(
        /^nest-visit: table "visit_identity" is missing[^\n]*the migration CreateVisit\d+ was run on this database[^\n]*\n$/,
      );
      expect(code).toBe(1);
    }
  });
});

/** A database with tables, and a file that exports its options. */
async function opened() {
  const database = await openDatabase('sqlite');
  onTestFinished(() => database.drop());
  const dataSource = await openMigrated(database.options);
  onTestFinished(() => dataSource.destroy());
  const options = JSON.stringify({ ...database.options, driver: undefined });
  const source = await file(
    `import { createRequire } from 'node:module';
     export default { ...${options}, driver: createRequire(${JSON.stringify(join(root, 'package.json'))})('libsql') };`,
  );
  return { dataSource, source, store: new TypeOrmVisitStore(dataSource) };
}

const live = {
  created: now,
  accessed: now,
  expiry: now + DAY,
  sessionData: Buffer.from('what only its owner may know'),
};

describe('The command move', () => {
  test('R63: skips visits that the new store refuses, and lists them at the end', async () => {
    const [from, to] = [await opened(), await opened()];
    const visits = Array.from({ length: 5 }, () => newVisit(live));
    const refused = visits[2]!.id;
    await from.store.create(visits);
    const raise = `SELECT RAISE(ABORT, 'what only its owner may know')`;
    await to.dataSource.query(
      `CREATE TRIGGER refuse BEFORE INSERT ON visit WHEN NEW.id = '${refused}' BEGIN ${raise}; END`,
    );
    const move = (...more: string[]) => command('move', '--from', from.source, '--to', to.source, ...more);
    const first = await move('--batch-size', '2');
    expect(first).toMatchObject({ code: 1, out: 'moved 4 visits\n' });
    expect(first.err).toMatch(
      new RegExp(`^nest-visit: the new store refused 1 visit, now left in the old one: ${refused} \\(\\w+`),
    );
    expect(first.err).not.toContain('owner');
    expect(await move('--json')).toMatchObject({ code: 1, out: `{"visits":0,"refused":["${refused}"]}\n` });
    await to.dataSource.query('DROP TRIGGER refuse');
    expect(await move()).toEqual({ code: 0, out: 'moved 1 visit\n', err: '' });
    const found = await to.store.find(visits.map(({ id }) => id));
    expect(found.map((visit) => String(visit?.sessionData))).toEqual(visits.map(() => 'what only its owner may know'));
  });

  test('R63: refuses a store whose data is lost with the process', async () => {
    const from = await opened();
    const memory = await file(
      `import { MemoryVisitStore } from ${here('dist/esm/index.js')}; export default new MemoryVisitStore();`,
    );
    expect(await command('move', '--from', from.source, '--to', memory)).toMatchObject({
      code: 1,
      err: expect.stringContaining('MemoryVisitStore, which is neither shared nor durable') as string,
    });
  });
});

describe('The command exits by itself', () => {
  test('R63: whatever the loaded file has left open', async () => {
    const { source } = await opened();
    const open = await file(
      `setInterval(() => {}, 1000); export { default } from ${JSON.stringify(pathToFileURL(source).href)};`,
    );
    expect(await program(['expunge', '--data-source', open])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^expunged /) as string,
    });
  });

  describeWith('redis', 'with the application’s own Redis client', () => {
    test('R63: and its whole output arrives', async () => {
      const lent = await file(
        `import { createClient } from ${here('node_modules/redis/dist/index.js')};
         import { RedisVisitStore } from ${here('dist/esm/store/redis/index.js')};
         const client = await createClient({ url: ${JSON.stringify(redisUrl)} }).connect();
         export default new RedisVisitStore({ client, prefix: ${JSON.stringify(uniquePrefix())} });`,
      );
      const { source, store } = await opened();
      await store.create([newVisit(live), newVisit(live)]);
      expect(await program(['move', '--from', source, '--to', lent])).toEqual({
        code: 0,
        out: 'moved 2 visits\n',
        err: '',
      });
      expect(await program(['wipe', '--data-source', lent, '--json'])).toEqual({
        code: 0,
        out: '{"visits":0}\n',
        err: '',
      });
    });
  });
});
