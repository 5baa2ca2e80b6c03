import { afterAll } from 'vitest';
import { openDatabase, type DatabaseName, type OpenDatabase } from '../support/databases.js';
import { describeWith, type Need } from '../support/needs.js';

const SERVERS: readonly { name: Exclude<DatabaseName, 'sqlite'>; need: Need }[] = [
  { name: 'mariadb', need: 'mysql' },
  { name: 'postgres', need: 'postgres' },
];

/** Runs a suite on each database that several processes can share. Databases that it opens are dropped after it. */
export function describeServers(
  title: string,
  suite: (db: { name: DatabaseName; open(): Promise<OpenDatabase> }) => void,
): void {
  for (const { name, need } of SERVERS) {
    describeWith(need, `${title} on ${name}`, () => {
      const opened: OpenDatabase[] = [];
      // Registered first, so it runs after the suite's own hooks have closed their connections.
      afterAll(() => Promise.all(opened.map((one) => one.drop())));
      suite({
        name,
        open: async () => {
          const database = await openDatabase(name);
          opened.push(database);
          return database;
        },
      });
    });
  }
}
