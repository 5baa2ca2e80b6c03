import { describeDatabases, type OpenDatabase, type TestDatabase } from './databases.js';
import { openPrisma, type TestPrisma } from './prisma-client.mjs';

export interface PrismaDatabase {
  readonly name: 'mariadb' | 'postgres';
  /** A fresh database without tables. */
  open(): Promise<OpenDatabase>;
  /** A client with connections of its own, and these options of its adapter. Whoever opens it disconnects it. */
  connect(database: OpenDatabase, adapter?: object): Promise<TestPrisma>;
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
        connect: ({ options }, adapter) =>
          openPrisma(name, (options as { url: string }).url, { adapter, log: [{ level: 'query', emit: 'event' }] }),
        createTables: (prisma) => createTables(name, prisma),
      });
    },
    ['mariadb', 'postgres'] satisfies TestDatabase['name'][],
  );
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
