import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import type { DataSourceOptions } from 'typeorm';
import { afterAll, describe } from 'vitest';
import { describeWith, has, mysqlUrl, postgresUrl, type Need } from './needs.js';
import { PATIENCE } from './patience.js';
import { temporaryFolder } from './servers.mjs';
import { ofToday } from './today.js';

export type DatabaseName = 'mariadb' | 'postgres' | 'sqlite';

/** A database of its own. */
export interface OpenDatabase {
  /** For a TypeORM DataSource; add entities and migrations. */
  readonly options: DataSourceOptions;
  /** Deletes the database, even if there are connections. May be called twice. */
  readonly drop: () => Promise<void>;
}

/** A kind of database that suites run on. */
export interface TestDatabase {
  readonly name: DatabaseName;
  /** False if the machine does not have the server. */
  readonly available: boolean;
  /** Creates a fresh, empty database. */
  readonly open: () => Promise<OpenDatabase>;
}

const openers: Record<DatabaseName, { need?: Need; open: () => Promise<OpenDatabase> }> = {
  mariadb: { need: 'mysql', open: openMariaDb },
  postgres: { need: 'postgres', open: openPostgres },
  sqlite: { open: openSqlite },
};

/** Their names. */
export const ALL_DATABASES: readonly DatabaseName[] = ['mariadb', 'postgres', 'sqlite'];

/** The databases that the library supports, to run the same suite on each. */
export const databases: readonly TestDatabase[] = ALL_DATABASES.map((name) => ({
  name,
  available: isAvailable(name),
  open: () => openDatabase(name),
}));

function isAvailable(name: DatabaseName): boolean {
  const { need } = openers[name];
  return need === undefined || has(need);
}

/** Creates a new, empty database. The caller drops it. */
export function openDatabase(name: DatabaseName): Promise<OpenDatabase> {
  return openers[name].open();
}

/**
 * Runs a suite on each database, as `<title> on mariadb` and so on; if a server is missing, see `describeWith`.
 * Databases that the suite opens with `db.open()` are dropped after it.
 *
 * @param names of the databases, if not all of them matter
 */
export function describeDatabases(
  title: string,
  suite: (db: TestDatabase) => void,
  names?: readonly DatabaseName[],
): void {
  for (const database of databases) {
    if (names && !names.includes(database.name)) continue;
    const { need } = openers[database.name];
    const define = (): void => {
      const opened: OpenDatabase[] = [];
      // Registered first, so it runs after the suite's own hooks have closed their connections.
      afterAll(async () => {
        await Promise.all(opened.map((one) => one.drop()));
      });
      suite({
        ...database,
        open: async () => {
          const one = await database.open();
          opened.push(one);
          return one;
        },
      });
    };
    const name = `${title} on ${database.name}`;
    if (need === undefined) describe(name, define);
    else describeWith(need, name, define);
  }
}

/**
 * Of these databases, the one that a suite runs on today, for suites of stores whose statements other stores send to all
 * databases: another one each day, and all of them in `npm run test:soak`. One whose server is missing has no turn.
 *
 * @param shift another number for each suite, so that they are not all on the same database
 */
export function databasesOfToday<Name extends DatabaseName>(shift: number, names: readonly Name[]): readonly Name[] {
  const present = names.filter(isAvailable);
  return ofToday(present.length > 0 ? present : names, shift);
}

function uniqueName(): string {
  return `visit_${randomBytes(8).toString('hex')}`;
}

/** Makes a function run once: later calls get the promise of the first one. */
function once(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => (running ??= work());
}

function urlOf(server: string | undefined, database: string): string {
  if (server === undefined)
    throw new Error('This database is not available here; run the suite through describeDatabases');
  const url = new URL(server);
  url.pathname = `/${database}`;
  return url.href;
}

async function openMariaDb(): Promise<OpenDatabase> {
  const name = uniqueName();
  const url = urlOf(mysqlUrl, name);
  let type: 'mariadb' | 'mysql' = 'mariadb';
  await askMariaDb(async (query) => {
    const version = JSON.stringify(await query('SELECT VERSION()'));
    if (!version.includes('MariaDB')) type = 'mysql';
    // Without a COLLATE: the default of the server, which ignores case.
    await query(`CREATE DATABASE ${name} CHARACTER SET utf8mb4`);
  });
  return {
    options: { type, url },
    drop: once(() =>
      askMariaDb(async (query) => {
        // A transaction that a test left open locks its tables; by default, the server waits for it for a day.
        await query(`SET lock_wait_timeout = ${PATIENCE / 1000}`);
        await query(`DROP DATABASE IF EXISTS ${name}`);
      }),
    ),
  };
}

async function askMariaDb(work: (query: (sql: string) => Promise<unknown>) => Promise<void>): Promise<void> {
  const connection = await createConnection(urlOf(mysqlUrl, ''));
  try {
    await work(async (sql) => (await connection.query(sql))[0]);
  } finally {
    await connection.end();
  }
}

async function openPostgres(): Promise<OpenDatabase> {
  const name = uniqueName();
  await askPostgres(`CREATE DATABASE ${name}`);
  return {
    options: { type: 'postgres', url: urlOf(postgresUrl, name) },
    // A pool of `pg` has ended before the server has heard of it. The server waits a few seconds for connections that
    // are about to go; one that it ends itself would be an error that nobody listens for any more.
    drop: once(async () => {
      const drop = `DROP DATABASE IF EXISTS ${name}`;
      await askPostgres(drop).catch(() => askPostgres(`${drop} WITH (FORCE)`));
    }),
  };
}

/** The part of `pg` that is used here; the package brings no types. */
interface Pg {
  Client: new (options: { connectionString?: string }) => {
    connect(): Promise<void>;
    query(sql: string): Promise<unknown>;
    end(): Promise<void>;
  };
}

const require = createRequire(import.meta.url);

async function askPostgres(sql: string): Promise<void> {
  const pg = require('pg') as Pg;
  const client = new pg.Client({ connectionString: postgresUrl });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

async function openSqlite(): Promise<OpenDatabase> {
  const folder = temporaryFolder('sqlite');
  return {
    options: {
      type: 'better-sqlite3',
      database: join(folder.path, 'visit.sqlite'),
      driver: require('libsql'),
      prepareDatabase: (connection: { pragma(text: string): unknown }): void =>
        void connection.pragma('synchronous = OFF'),
      enableWAL: true,
    },
    drop: once(() => folder.remove()),
  };
}
