import { describeDatabases, type OpenDatabase, type TestDatabase } from './databases.js';
import { createPrismaTables, openPrisma, type TestPrisma } from './prisma-client.mjs';

export interface PrismaDatabase {
  readonly name: 'mariadb' | 'postgres';
  /** A new database without tables. */
  open(): Promise<OpenDatabase>;
  /** A client with its own connections, and these options of its adapter. The caller disconnects it. */
  connect(database: OpenDatabase, adapter?: object): Promise<TestPrisma>;
  /** Creates the tables as `prisma migrate` does from the documented models. */
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
        createTables: (prisma) => createPrismaTables(name, prisma),
      });
    },
    ['mariadb', 'postgres'] satisfies TestDatabase['name'][],
  );
}
