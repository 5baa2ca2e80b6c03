import { describeDatabases, type DatabaseName, type OpenDatabase } from './databases.js';
import { createPrismaTables, openPrisma, type TestPrisma } from './prisma-client.mjs';

export interface PrismaDatabase {
  readonly name: Exclude<DatabaseName, 'sqlite'>;
  /** A new database without tables. */
  open(): Promise<OpenDatabase>;
  /** A client with its own connections, and these options of its adapter. The caller disconnects it. */
  connect(database: OpenDatabase, adapter?: object): Promise<TestPrisma>;
  /** Creates the tables as `prisma migrate` does from the documented models. */
  createTables(prisma: TestPrisma): Promise<void>;
}

/** The databases that `PrismaVisitStore` supports, and tests run on. */
export const PRISMA_DATABASES: readonly PrismaDatabase['name'][] = ['mariadb', 'postgres'];

/** Runs a suite on each of these databases. */
export function describePrisma(
  title: string,
  suite: (db: PrismaDatabase) => void,
  names: readonly PrismaDatabase['name'][] = PRISMA_DATABASES,
): void {
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
    names,
  );
}
