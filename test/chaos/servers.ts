import { afterAll } from 'vitest';
import { openDatabase, type DatabaseName, type OpenDatabase } from '../support/databases.js';
import { describeWith, type Need } from '../support/needs.js';
import { ofToday } from '../support/today.js';

const SERVERS: readonly { name: Exclude<DatabaseName, 'sqlite'>; need: Need }[] = [
  { name: 'mariadb', need: 'mysql' },
  { name: 'postgres', need: 'postgres' },
];

type Suite = (db: { name: DatabaseName; open(): Promise<OpenDatabase> }) => void;

/** Runs a suite on each database that several processes can share. Databases that it opens are dropped after it. */
export function describeServers(title: string, suite: Suite): void {
  describeOn(SERVERS, title, suite);
}

/** The same on one of them each day, and on all of them in `npm run test:soak`: for what takes many processes. */
export function describeServerOfToday(title: string, suite: Suite): void {
  // Not all suites on the same one.
  describeOn(ofToday(SERVERS, title.length), title, suite);
}

function describeOn(servers: typeof SERVERS, title: string, suite: Suite): void {
  for (const { name, need } of servers) {
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
