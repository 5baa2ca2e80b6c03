import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { describe, expect, onTestFinished, test } from 'vitest';
import { newVisit } from '../../lib/testing/samples.js';
import { program, useCommands } from '../support/command.js';
import { openDatabase } from '../support/databases.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { uniquePrefix } from '../support/redis.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = (path: string): string => JSON.stringify(pathToFileURL(join(root, path)).href);

const { command, file } = useCommands();

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

const now = Date.now();
const live = {
  created: now,
  accessed: now,
  expiry: now + 86_400_000,
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
    expect(await program(['expunge', '--data-source', open, '--keep-days', 'x'])).toMatchObject({ code: 2 });
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
