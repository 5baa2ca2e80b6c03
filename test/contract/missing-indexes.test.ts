import { createVisitTables, KyselyVisitStore } from 'nest-visit/kysely';
import { DrizzleVisitStore } from 'nest-visit/drizzle';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { sql } from 'kysely';
import { expect, onTestFinished, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';
import { openDrizzle } from '../support/drizzle.js';
import { openKysely } from '../support/kysely.js';
import { openMigrated } from '../support/open-migrated.js';
import { openPrisma } from '../support/prisma-client.mjs';

interface Telling {
  missingIndexes(): Promise<string[]>;
}

describeDatabases('R63: Stores over SQL', (db) => {
  test('name each column that no index begins with', async () => {
    const database = await db.open();
    const dataSource = await openMigrated(database.options);
    const [kysely, drizzle] = [openKysely(db.name, database), openDrizzle(db.name, database)];
    onTestFinished(() => Promise.all([kysely.destroy(), drizzle.close(), dataSource.destroy()]).then(() => {}));
    const stores: Record<string, Telling> = {
      TypeORM: new TypeOrmVisitStore(dataSource),
      Kysely: new KyselyVisitStore({ db: kysely }),
      Drizzle: new DrizzleVisitStore(drizzle.db),
    };
    if (db.name !== 'sqlite') {
      const prisma = await openPrisma(db.name, (database.options as { url: string }).url);
      onTestFinished(() => prisma.$disconnect());
      stores['Prisma'] = new PrismaVisitStore(prisma);
    }
    const expectAll = async (expected: readonly string[]): Promise<void> => {
      for (const [name, store] of Object.entries(stores)) {
        // TypeORM puts schema or database before the name of a table.
        const missing = (await store.missingIndexes()).map((column) => column.split('.').slice(-2).join('.'));
        expect(missing, name).toEqual(expected);
      }
    };
    await expectAll([]);

    const runner = dataSource.createQueryRunner();
    for (const [name, column] of [
      ['visit', 'expiry'],
      ['visit_identity', 'user_id'],
    ] as const) {
      const table = await runner.getTable(name);
      await runner.dropIndex(
        table!,
        table!.indices.find(({ columnNames }) => columnNames[0] === column)!,
      );
    }
    // Of use to nobody who looks for this column alone.
    await runner.query('CREATE INDEX elsewhere ON visit (created, expiry)');
    await runner.release();
    await expectAll(['visit.expiry', 'visit_identity.user_id']);
  });

  if (db.name !== 'sqlite') {
    test('look in the given schema', async () => {
      const kysely = openKysely(db.name, await db.open());
      onTestFinished(() => kysely.destroy());
      await createVisitTables(kysely);
      const schema = `other_${process.pid}`;
      await sql`CREATE SCHEMA ${sql.id(schema)}`.execute(kysely);
      if (db.name === 'mariadb')
        onTestFinished(async () => void (await sql`DROP SCHEMA ${sql.id(schema)}`.execute(kysely)));
      await createVisitTables(kysely, { schema });
      const at =
        db.name === 'mariadb'
          ? sql`visit_ended_at_idx ON ${sql.id(schema, 'visit')}`
          : sql.id(schema, 'visit_ended_at_idx');
      await sql`DROP INDEX ${at}`.execute(kysely);
      expect(await new KyselyVisitStore({ db: kysely }).missingIndexes()).toEqual([]);
      expect(await new KyselyVisitStore({ db: kysely, schema }).missingIndexes()).toEqual([`${schema}.visit.ended_at`]);
    });
  }
});
