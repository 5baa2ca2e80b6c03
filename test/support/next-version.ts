import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { transpile } from './transpile.mjs';

// The next version of the library: the current one, with a new column of visits. It is added in the three places that
// list columns.

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A file of `lib/store`. */
export const storeFile = (file: string): string => join(root, 'lib/store', file);

/** The migration of the next version. */
export const NEXT_MIGRATION = 'AddNickname1790000000001';

const MIGRATION = `
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { addColumn, addIndex, dropColumn, dropIndex } from './online.js';

class ${NEXT_MIGRATION} implements MigrationInterface {
  readonly name = '${NEXT_MIGRATION}';

  async up(queryRunner: QueryRunner): Promise<void> {
    await addColumn(queryRunner, 'visit', { name: 'nickname', type: 'varchar', length: '40', isNullable: true });
    await addIndex(queryRunner, 'visit', ['nickname']);
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await dropIndex(queryRunner, 'visit', ['nickname']);
    await dropColumn(queryRunner, 'visit', 'nickname');
  }
}
`;

export type Place = 'record' | 'list' | 'migration';
const PLACES: readonly Place[] = ['record', 'list', 'migration'];

/** The changed files, with the new column in these places. */
export function changedFiles(places: readonly Place[] = PLACES): Map<string, string> {
  const texts = new Map<string, string>();
  const change = (file: string, what: string, into: string): void => {
    const before = texts.get(storeFile(file)) ?? readFileSync(storeFile(file), 'utf8');
    if (!before.includes(what)) throw new Error(`${file} does not say ${what}`);
    texts.set(storeFile(file), before.replace(what, into));
  };
  if (places.includes('record')) {
    const last = '  readonly identity: IdentityRecord | null;\n';
    change('visit.store.ts', last, `  readonly nickname: string | null;\n${last}`);
  }
  if (places.includes('list')) {
    const last = "  sessionVersion: { kind: 'count', since: 1 },\n";
    const added = "  nickname: { kind: 'text', length: 40, nullable: true, indexed: true, since: 2 },\n";
    change('visit.columns.ts', last, `${last}${added}`);
  }
  if (places.includes('migration')) {
    const list = 'export const visitMigrations = [CreateVisit1790000000000];';
    change(
      'typeorm/migrations/index.ts',
      list,
      `${MIGRATION}export const visitMigrations = [CreateVisit1790000000000, ${NEXT_MIGRATION}];`,
    );
  }
  return texts;
}

/** The next version, built. */
export interface NextVersion {
  /** A module of `lib/store`. */
  load<Module>(file: string): Promise<Module>;
  remove(): void;
}

/** Creates it where it finds its packages, in a folder that git ignores. A module is built when it is first loaded. */
export function buildNextVersion(): NextVersion {
  mkdirSync(join(root, 'artifacts'), { recursive: true });
  const folder = mkdtempSync(join(root, 'artifacts/next-version-'));
  const texts = changedFiles();
  const built = new Set<string>();
  /** Builds a file of `lib`, named without its extension, and all that it imports. */
  const build = (module: string): void => {
    if (built.has(module)) return;
    built.add(module);
    const source = join(root, 'lib', `${module}.ts`);
    const code = transpile(source, texts.get(source) ?? readFileSync(source, 'utf8'));
    const target = join(folder, `${module}.js`);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, code);
    for (const [, imported] of code.matchAll(/(?:from |import |import\()["'](\.[^"']+)\.js["']/g))
      build(join(dirname(module), imported!));
  };
  return {
    load: async <Module>(file: string) => {
      build(join('store', file.replace(/\.js$/, '')));
      return (await import(pathToFileURL(join(folder, 'store', file)).href)) as Module;
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
