import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileFunction } from 'node:vm';
import * as library from 'nest-visit';
import * as kit from 'nest-visit/store-kit';
import { describeVisitStore } from 'nest-visit/testing';
import { Pool } from 'pg';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { expungeAll } from '../../lib/testing/cleanup.js';
import { endAll } from '../../lib/testing/many.js';
import { complaintsAbout } from '../support/compiler.js';
import { describeDatabases } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { documentedFiles, transpiled } from '../support/documented-store.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const files = documentedFiles();

function load<Exports>(text: string): Exports {
  const exports = {};
  const known: Record<string, object> = { 'nest-visit': library, 'nest-visit/store-kit': kit };
  const require = (name: string) => known[name] ?? expect.fail(`it imports ${name}`);
  compileFunction(transpiled(text, ts.ModuleKind.CommonJS), ['require', 'exports'])(require, exports);
  return exports as Exports;
}

describe('docs/writing-a-store.md', () => {
  test('R66: begins with a complete store, and shows how to test it', () => {
    expect([...files.keys()]).toEqual([
      'map-visit.store.ts',
      'pg-visit.store.ts',
      'map-visit.store.test.ts',
      'map-visit.store.spec.ts',
    ]);
  });

  test('R66: its code compiles under strict rules', async () => {
    // CommonJS, as Jest has it, may leave the end of a file's name out.
    await mkdir(join(root, 'artifacts'), { recursive: true });
    const folder = await mkdtemp(join(root, 'artifacts/documented-store-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    for (const [name, text] of files)
      await writeFile(join(folder, name), text.replace(/'\.\/[\w.-]+\.store'/, "'./map-visit.store.js'"));
    await writeFile(join(folder, 'wrong.ts'), 'export const one: string = 1;\n');
    // As for the author of a store, the types of the package are those of its build.
    const config = { extends: '../../tsconfig.json', compilerOptions: { paths: {} }, include: ['.'] };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
    const complaints = (await complaintsAbout(folder)).trim().split('\n');
    expect(complaints).toEqual([
      expect.stringMatching(/wrong\.ts\(1,14\): error TS2322: Type 'number' is not assignable to type 'string'\./),
    ]);
  });

  const { MapVisitStore } = load<{ MapVisitStore: new () => library.VisitStore }>(files.get('map-visit.store.ts')!);
  describeVisitStore('the store of the page', () => ({ store: new MapVisitStore() }), { runner: { describe, test } });
});

describeDatabases(
  'The store over SQL of docs/writing-a-store.md',
  (db) => {
    const { PgVisitStore } = load<{ PgVisitStore: new (pool: Pool) => library.VisitStore }>(
      files.get('pg-visit.store.ts')!,
    );
    const pools: Pool[] = [];
    let open: () => library.VisitStore;
    beforeAll(async () => {
      const { options } = await db.open();
      await (await openMigrated(options)).destroy();
      const { url } = options as { url: string };
      open = () => {
        const pool = new Pool({ connectionString: url });
        pools.push(pool);
        return new PgVisitStore(pool);
      };
    });
    afterAll(() => Promise.all(pools.map((pool) => pool.end())));

    let fixture: { store: library.VisitStore; second: library.VisitStore; reopen: () => library.VisitStore };
    beforeAll(() => void (fixture = { store: open(), second: open(), reopen: () => open() }));
    const emptied = async (): Promise<typeof fixture> => {
      await endAll(fixture.store, { reason: 'test', at: 0 });
      await expungeAll({ store: fixture.store }, { before: 8_640_000_000_000_000, limit: 10_000 });
      return fixture;
    };

    // Its races are those of the statements, which other stores run more often.
    describeVisitStore('it', emptied, {
      runner: { describe, test },
      rounds: 2,
      capabilities: { atomic: true, revocable: true, shared: true, durable: true },
    });

    test('reports what tables lack, and its remedy works', async () => {
      const { options } = await db.open();
      const pool = new Pool({ connectionString: (options as { url: string }).url });
      pools.push(pool);
      await expect(new PgVisitStore(pool).check()).rejects.toMatchObject({
        code: 'VISIT_SCHEMA',
        message: expect.stringContaining('run the migration that creates the tables of visits') as string,
      });
    });
  },
  ['postgres'],
);
