import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { PrismaMariaDb } from '@prisma/adapter-mariadb';
import { PrismaPg } from '@prisma/adapter-pg';
import type { PrismaVisitClient } from 'nest-visit/prisma';
import { describeDatabases, type OpenDatabase, type TestDatabase } from './databases.js';

const run = promisify(execFile);
const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));

type Provider = 'mysql' | 'postgresql';

/** The part of a generated client that tests use themselves. */
export interface TestPrisma extends PrismaVisitClient {
  $executeRawUnsafe(sql: string): Promise<number>;
  $queryRawUnsafe<T>(sql: string): Promise<T>;
  $on(event: 'query', listener: (event: { query: string }) => void): void;
  $disconnect(): Promise<void>;
}

type ClientClass = new (options: { adapter: unknown; log?: unknown }) => TestPrisma;

/** The blocks of the documentation: what it tells users to write is what the tests use. */
export async function documentedPrisma(): Promise<{ schema: string; module: string }> {
  const page = await readFile(join(root, 'docs/stores.md'), 'utf8');
  const block = (language: string): string => {
    const text = new RegExp(`^   \`\`\`${language}\\n([^]*?)^   \`\`\``, 'm').exec(page.slice(page.indexOf('## With Prisma')))?.[1];
    if (!text) throw new Error(`docs/stores.md has no block of ${language} under "With Prisma"`);
    return text.replaceAll(/^ {3}/gm, '');
  };
  return { schema: block('prisma'), module: block('ts') };
}

/**
 * The folder of a client that is generated from the documentation's models, in a folder that git ignores; made where it is
 * not there yet. Not among temporary files, because the client must find its packages.
 */
export async function generatePrisma(provider: Provider): Promise<string> {
  const { schema } = await documentedPrisma();
  const text =
    `generator client {\n  provider = "prisma-client"\n  output   = "client"\n}\n\n` +
    `datasource db {\n  provider = "${provider}"\n}\n\n${schema}`;
  const { version } = require('prisma/package.json') as { version: string };
  const name = createHash('sha256').update(`${version}\n${text}`).digest('hex').slice(0, 16);
  const place = join(root, 'artifacts', 'prisma', name);
  if (existsSync(place)) return join(place, 'client');
  await mkdir(dirname(place), { recursive: true });
  const draft = await mkdtemp(`${place}-`);
  await writeFile(join(draft, 'schema.prisma'), text);
  const cli = join(dirname(require.resolve('prisma/package.json')), 'build/index.js');
  await run(process.execPath, [cli, 'generate', '--schema', join(draft, 'schema.prisma')], {
    cwd: draft,
    // Generating needs no engine, yet the command downloads one where none is named.
    env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1', PRISMA_HIDE_UPDATE_MESSAGE: '1' },
  });
  // Another process may have been faster.
  await rename(draft, place).catch(async (error: unknown) => {
    await rm(draft, { recursive: true });
    if (!existsSync(place)) throw error;
  });
  return join(place, 'client');
}

export interface PrismaDatabase {
  readonly name: 'mariadb' | 'postgres';
  /** A fresh database without tables. */
  open(): Promise<OpenDatabase>;
  /** A client with connections of its own. Whoever opens it disconnects it. */
  connect(database: OpenDatabase, more?: object): Promise<TestPrisma>;
  /** The tables as `prisma migrate` makes them of the documented models. */
  createTables(prisma: TestPrisma): Promise<void>;
}

/** Runs a suite on each database that `PrismaVisitStore` supports. */
export function describePrisma(title: string, suite: (db: PrismaDatabase) => void): void {
  describeDatabases(
    title,
    (db) => {
      const name = db.name as PrismaDatabase['name'];
      suite({
        name,
        open: db.open,
        connect: (database, more) => connect(name, database, more),
        createTables: (prisma) => createTables(name, prisma),
      });
    },
    ['mariadb', 'postgres'] satisfies TestDatabase['name'][],
  );
}

async function connect(name: PrismaDatabase['name'], { options }: OpenDatabase, more: object = {}): Promise<TestPrisma> {
  const { url } = options as { url: string };
  const folder = await generatePrisma(name === 'mariadb' ? 'mysql' : 'postgresql');
  const { PrismaClient } = (await import(pathToFileURL(join(folder, 'client.ts')).href)) as { PrismaClient: ClientClass };
  const adapter =
    name === 'mariadb' ? new PrismaMariaDb({ ...mariaDbOptions(url), ...more }) : new PrismaPg({ connectionString: url, ...more });
  return new PrismaClient({ adapter, log: [{ level: 'query', emit: 'event' }] });
}

function mariaDbOptions(url: string) {
  const { hostname, port, username, password, pathname } = new URL(url);
  return { host: hostname, port: Number(port), user: username, password, database: pathname.slice(1) };
}

async function createTables(name: PrismaDatabase['name'], prisma: TestPrisma): Promise<void> {
  const quote = (sql: string): string => (name === 'mariadb' ? sql.replaceAll('"', '`') : sql);
  const end = name === 'mariadb' ? ' DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci' : '';
  const bytes = name === 'mariadb' ? 'LONGBLOB' : 'BYTEA';
  const statements = [
    `CREATE TABLE "visit" (
      "id" VARCHAR(32) NOT NULL, "key_hash" VARCHAR(64) NOT NULL, "previous_key_hash" VARCHAR(64) NULL, "previous_key_until" BIGINT NULL,
      "key_changed" BIGINT NOT NULL, "created" BIGINT NOT NULL, "accessed" BIGINT NOT NULL, "expiry" BIGINT NOT NULL,
      "absolute_expiry" BIGINT NULL, "ended_at" BIGINT NULL, "end_reason" VARCHAR(32) NULL, "permanent" BOOLEAN NOT NULL,
      "remote_address" VARCHAR(45) NULL, "user_agent" VARCHAR(255) NULL, "session_data" ${bytes} NULL, "session_version" INTEGER NOT NULL,
      "lock_owner" VARCHAR(32) NULL, "locked_until" BIGINT NULL, PRIMARY KEY ("id"))${end}`,
    `CREATE TABLE "visit_identity" ("visit_id" VARCHAR(32) NOT NULL, "user_id" VARCHAR(255) NOT NULL, "created" BIGINT NOT NULL,
      "authenticated_at" BIGINT NOT NULL, PRIMARY KEY ("visit_id"))${end}`,
    `CREATE TABLE "visit_revocation" ("user_hash" VARCHAR(64) NOT NULL, "ended_at" BIGINT NOT NULL, PRIMARY KEY ("user_hash"))${end}`,
    `CREATE INDEX "visit_expiry_idx" ON "visit" ("expiry")`,
    `CREATE INDEX "visit_ended_at_idx" ON "visit" ("ended_at")`,
    `CREATE INDEX "visit_identity_user_id_idx" ON "visit_identity" ("user_id")`,
    `CREATE INDEX "visit_revocation_ended_at_idx" ON "visit_revocation" ("ended_at")`,
    `ALTER TABLE "visit_identity" ADD CONSTRAINT "visit_identity_visit_id_fkey" FOREIGN KEY ("visit_id") REFERENCES "visit" ("id")
      ON DELETE CASCADE ON UPDATE NO ACTION`,
  ];
  for (const statement of statements) await prisma.$executeRawUnsafe(quote(statement));
}
