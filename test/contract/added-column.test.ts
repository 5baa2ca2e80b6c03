import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Keyv } from 'keyv';
import ts from 'typescript';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type * as KeyvStore from '../../lib/store/keyv/keyv-visit.store.js';
import type * as MemoryStore from '../../lib/store/memory/memory-visit.store.js';
import type * as PrismaRows from '../../lib/store/prisma/visit.rows.js';
import type * as RedisHash from '../../lib/store/redis/visit.hash.js';
import type * as Seal from '../../lib/store/sealed-cookie/visit.seal.js';
import type * as Entities from '../../lib/store/typeorm/entities.js';
import type * as Migrations from '../../lib/store/typeorm/migrations/index.js';
import type * as TypeOrmStore from '../../lib/store/typeorm/typeorm-visit.store.js';
import type { VisitRecord, VisitStore } from '../../lib/store/visit.store.js';
import { openDatabase } from '../support/databases.js';

// A visit gets another column, in the three places that name columns: the record, the list, a migration.

const root = fileURLToPath(new URL('../..', import.meta.url));
const path = (file: string): string => join(root, 'lib/store', file);

const MIGRATION = `
import type { MigrationInterface, QueryRunner } from 'typeorm';

class AddNickname1790000000001 implements MigrationInterface {
  readonly name = 'AddNickname1790000000001';

  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query('ALTER TABLE "visit" ADD "nickname" varchar(40)');
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query('ALTER TABLE "visit" DROP COLUMN "nickname"');
  }
}
`;

type Places = 'record' | 'list' | 'migration';

/** The files that change, as they are with what is said in these places. */
function changed(...places: readonly Places[]): Map<string, string> {
  const texts = new Map<string, string>();
  const change = (file: string, what: string, into: string): void => {
    const before = texts.get(path(file)) ?? readFileSync(path(file), 'utf8');
    expect(before).toContain(what);
    texts.set(path(file), before.replace(what, into));
  };
  if (places.includes('record')) {
    const last = '  readonly identity: IdentityRecord | null;\n';
    change('visit.store.ts', last, `  readonly nickname: string | null;\n${last}`);
  }
  if (places.includes('list')) {
    const last = "  sessionVersion: { kind: 'count', since: 1 },\n";
    change('visit.columns.ts', last, `${last}  nickname: { kind: 'text', length: 40, nullable: true, since: 2 },\n`);
  }
  if (places.includes('migration')) {
    const list = 'export const visitMigrations = [CreateVisit1790000000000];';
    change(
      'typeorm/migrations/index.ts',
      list,
      `${MIGRATION}export const visitMigrations = [CreateVisit1790000000000, AddNickname1790000000001];`,
    );
  }
  return texts;
}

/** All of `lib` as JavaScript, with what is said in all three places. */
function writeJavaScript(folder: string): void {
  const texts = changed('record', 'list', 'migration');
  const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022, experimentalDecorators: true };
  for (const file of readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    const source = join(root, 'lib', file);
    const { outputText } = ts.transpileModule(texts.get(source) ?? readFileSync(source, 'utf8'), { compilerOptions });
    const target = join(folder, file.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText);
  }
}

/** What was read already. */
const unchanged = new Map<string, ts.SourceFile | undefined>();

/** What the compiler says of the list, with what is said in these places. */
function complaints(...places: readonly Places[]): string[] {
  const texts = changed(...places);
  const host = ts.createCompilerHost({});
  const readFile = host.readFile.bind(host);
  host.readFile = (file) => texts.get(file) ?? readFile(file);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getSourceFile = (file, target) => {
    if (texts.has(file)) return ts.createSourceFile(file, texts.get(file)!, target);
    if (!unchanged.has(file)) unchanged.set(file, getSourceFile(file, target));
    return unchanged.get(file);
  };
  const strict = { strict: true, noEmit: true, types: [], module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022 };
  const program = ts.createProgram([path('visit.columns.ts')], strict, host);
  const found = program.getSemanticDiagnostics(program.getSourceFile(path('visit.columns.ts')));
  return found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '));
}

describe('Another column of a visit', () => {
  let folder: string;

  beforeAll(() => {
    mkdirSync(join(root, 'artifacts'), { recursive: true });
    folder = mkdtempSync(join(root, 'artifacts/added-column-'));
    writeJavaScript(folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const load = async <Module>(file: string): Promise<Module> => (await import(pathToFileURL(join(folder, 'store', file)).href)) as Module;

  const NOW = Date.UTC(2026, 5, 1);
  const visit = {
    previousKeyHash: null,
    previousKeyUntil: null,
    keyChanged: NOW,
    endedAt: null,
    endReason: null,
    sessionVersion: 0,
    id: 'a'.repeat(32),
    keyHash: 'b'.repeat(64),
    created: NOW,
    accessed: NOW,
    expiry: NOW + 60_000,
    absoluteExpiry: null,
    permanent: false,
    remoteAddress: null,
    userAgent: null,
    sessionData: new TextEncoder().encode('data'),
    identity: null,
    nickname: 'Zoë',
  };
  async function expectKept(store: VisitStore): Promise<void> {
    await store.create([visit]);
    await store.touch([{ id: visit.id, accessed: NOW + 1, expiry: NOW + 90_000 }]);
    const guard = { id: visit.id, keyHash: visit.keyHash, now: NOW };
    expect(await store.save([{ ...guard, version: 0, data: null }])).toMatchObject([{ outcome: 'saved' }]);
    expect(await store.rekey([{ ...guard, newKeyHash: 'c'.repeat(64), previousKeyUntil: null }])).toMatchObject([{ outcome: 'done' }]);
    expect(await store.find([visit.id])).toMatchObject([{ nickname: 'Zoë', keyHash: 'c'.repeat(64) }]);
    await store.close();
  }

  test('is missed by the compiler where the record or the list is without it', () => {
    expect(complaints('record', 'list')).toEqual([]);
    for (const place of ['record', 'list'] as const) expect(complaints(place).join('\n'), place).toContain('nickname');
  });

  test('is kept in memory and in a Keyv', async () => {
    const { MemoryVisitStore } = await load<typeof MemoryStore>('memory/memory-visit.store.js');
    await expectKept(new MemoryVisitStore());
    const { KeyvVisitStore } = await load<typeof KeyvStore>('keyv/keyv-visit.store.js');
    await expectKept(new KeyvVisitStore({ keyv: new Keyv({ throwOnErrors: true }), shared: false, durable: false, evicts: false }));
  });

  test('is kept by TypeORM, in a database that was migrated', async () => {
    const { visitEntities } = await load<typeof Entities>('typeorm/entities.js');
    const { visitMigrations } = await load<typeof Migrations>('typeorm/migrations/index.js');
    const { TypeOrmVisitStore } = await load<typeof TypeOrmStore>('typeorm/typeorm-visit.store.js');
    const database = await openDatabase('sqlite');
    const all = { ...database.options, entities: visitEntities, migrations: visitMigrations, migrationsRun: true };
    const dataSource = await new DataSource(all).initialize();
    await expectKept(new TypeOrmVisitStore(dataSource, { owned: true }));
    await database.drop();
  });

  test('is in the hash of Redis, the rows of Prisma and the seal; what was stored before has none', async () => {
    const { FIELDS, fieldsOf, recordOf } = await load<typeof RedisHash>('redis/visit.hash.js');
    const flat = fieldsOf(visit);
    const hash = new Map(flat.flatMap((field, index) => (index % 2 ? [] : [[String(field), Buffer.from(flat[index + 1]!)] as const])));
    const read = () =>
      recordOf(
        visit.id,
        FIELDS.map((field) => hash.get(field) ?? null),
      );
    expect(read()).toEqual({ ...visit, sessionData: Buffer.from('data') });
    hash.delete('nickname');
    expect(read()).toMatchObject({ id: visit.id, nickname: null });

    const prisma = await load<typeof PrismaRows>('prisma/visit.rows.js');
    expect(prisma.VISIT_FIELDS).toHaveProperty('nickname', true);
    const row = prisma.visitData(visit);
    // The compiled type of a row does not have the column that this test adds.
    expect(prisma.recordOf(row as never)).toEqual(visit);

    const { VisitSeal, encodeVisit } = await load<typeof Seal>('sealed-cookie/visit.seal.js');
    const { createSecretKey } = await import('node:crypto');
    const seal = new VisitSeal([createSecretKey(Buffer.alloc(32, 7))]);
    const opened = async (record: object) => seal.open(await seal.seal(encodeVisit({ record: record as VisitRecord, revision: 3 })));
    expect(await opened(visit)).toEqual({ record: visit, revision: 3 });
    const ours = await import('../../lib/store/sealed-cookie/visit.seal.js');
    const before = await seal.seal(ours.encodeVisit({ record: visit, revision: 3 }));
    expect(await seal.open(before)).toEqual({ record: { ...visit, nickname: null }, revision: 3 });
  });
});
