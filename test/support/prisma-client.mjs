// The Prisma client that the documentation's models make, for tests and for the benchmark.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { transpile } from './transpile.mjs';

const run = promisify(execFile);
const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));

export async function documentedPrisma() {
  const page = await readFile(join(root, 'docs/store-prisma.md'), 'utf8');
  const block = (language) => {
    const text = new RegExp(`^   \`\`\`${language}\\n([^]*?)^   \`\`\``, 'm').exec(page)?.[1];
    if (!text) throw new Error(`docs/store-prisma.md has no block of ${language}`);
    return text.replaceAll(/^ {3}/gm, '');
  };
  return { schema: block('prisma'), module: block('ts') };
}

export async function prismaClientFile(provider) {
  const { schema } = await documentedPrisma();
  const text =
    `generator client {\n  provider            = "prisma-client"\n  output              = "client"\n  importFileExtension = "js"\n}\n\n` +
    `datasource db {\n  provider = "${provider}"\n}\n\n${schema}`;
  const { version } = require('prisma/package.json');
  const name = createHash('sha256').update(`${version}\n${text}`).digest('hex').slice(0, 16);
  // In a folder that git ignores; not among temporary files, because the client must find its packages.
  const place = join(root, 'artifacts', 'prisma', name);
  const file = join(place, 'client', 'client.js');
  if (existsSync(file)) return file;
  await mkdir(dirname(place), { recursive: true });
  const draft = await mkdtemp(`${place}-`);
  await writeFile(join(draft, 'schema.prisma'), text);
  const cli = join(dirname(require.resolve('prisma/package.json')), 'build/index.js');
  await run(process.execPath, [cli, 'generate', '--schema', join(draft, 'schema.prisma')], {
    cwd: draft,
    // Generating needs no engine, yet the command downloads one where none is named.
    env: {
      ...process.env,
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      CHECKPOINT_DISABLE: '1',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
    },
  });
  await compile(join(draft, 'client'));
  // Another process may have been faster.
  await rename(draft, place).catch(async (error) => {
    await rm(draft, { recursive: true });
    if (!existsSync(file)) throw error;
  });
  return file;
}

/**
 * Prisma writes TypeScript, which only newer versions of Node run; what it says about types is of use to tests, and
 * stays.
 */
async function compile(folder) {
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.ts'));
  for (const file of files) {
    const source = await readFile(join(folder, file), 'utf8');
    await writeFile(join(folder, file.replace(/ts$/, 'js')), transpile(file, source));
  }
}

export async function openPrisma(kind, url, { adapter = {}, ...options } = {}) {
  const { PrismaClient } = await import(
    pathToFileURL(await prismaClientFile(kind === 'mariadb' ? 'mysql' : 'postgresql')).href
  );
  return new PrismaClient({ ...options, adapter: await adapterFor(kind, url, adapter) });
}

async function adapterFor(kind, url, options) {
  if (kind === 'postgres') {
    const { PrismaPg } = await import('@prisma/adapter-pg');
    return new PrismaPg({ connectionString: url, ...options });
  }
  const { PrismaMariaDb } = await import('@prisma/adapter-mariadb');
  const { hostname, port, username, password, pathname } = new URL(url);
  return new PrismaMariaDb({
    host: hostname,
    port: Number(port),
    user: username,
    password,
    database: pathname.slice(1),
    ...options,
  });
}

export async function createPrismaTables(kind, prisma) {
  const quote = (sql) => (kind === 'mariadb' ? sql.replaceAll('"', '`') : sql);
  const end = kind === 'mariadb' ? ' DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci' : '';
  const bytes = kind === 'mariadb' ? 'LONGBLOB' : 'BYTEA';
  const statements = [
    `CREATE TABLE "visit" (
      "id" VARCHAR(32) NOT NULL, "key_hash" VARCHAR(64) NOT NULL, "previous_key_hash" VARCHAR(64) NULL, "previous_key_until" BIGINT NULL,
      "key_changed" BIGINT NOT NULL, "created" BIGINT NOT NULL, "accessed" BIGINT NOT NULL, "expiry" BIGINT NOT NULL,
      "absolute_expiry" BIGINT NULL, "ended_at" BIGINT NULL, "end_reason" VARCHAR(32) NULL, "permanent" BOOLEAN NOT NULL,
      "remote_address" VARCHAR(45) NULL, "user_agent" VARCHAR(255) NULL, "session_data" ${bytes} NULL, "session_version" INTEGER NOT NULL,
      "lock_owner" VARCHAR(32) NULL, "locked_until" BIGINT NULL, PRIMARY KEY ("id"))${end}`,
    `CREATE TABLE "visit_identity" ("visit_id" VARCHAR(32) NOT NULL, "user_id" VARCHAR(255) NOT NULL, "created" BIGINT NOT NULL,
      "authenticated_at" BIGINT NOT NULL, PRIMARY KEY ("visit_id"))${end}`,
    'CREATE TABLE "visit_revocation" ("user_hash" VARCHAR(64) NOT NULL, "ended_at" BIGINT NOT NULL, PRIMARY KEY ' +
      `("user_hash"))${end}`,
    `CREATE INDEX "visit_expiry_idx" ON "visit" ("expiry")`,
    `CREATE INDEX "visit_ended_at_idx" ON "visit" ("ended_at")`,
    `CREATE INDEX "visit_identity_user_id_idx" ON "visit_identity" ("user_id")`,
    `CREATE INDEX "visit_revocation_ended_at_idx" ON "visit_revocation" ("ended_at")`,
    `ALTER TABLE "visit_identity" ADD CONSTRAINT "visit_identity_visit_id_fkey" FOREIGN KEY ("visit_id") REFERENCES "visit" ("id")
      ON DELETE CASCADE ON UPDATE NO ACTION`,
  ];
  for (const statement of statements) await prisma.$executeRawUnsafe(quote(statement));
}
