// The database servers, private to one run and as durable as they are by default; each variant gets a database of its
// own.
import { join } from 'node:path';
import { startMariaDb, startMemcached, startPostgres, startRedis } from '../support/servers.mjs';

/**
 * @typedef {object} Database
 * @property {string} title with its version
 * @property {(name: string) => Promise<string>} create makes an empty database and gives its address
 * @property {() => Promise<number | undefined>} statements how many have been run since the start
 * @property {(sql: string, url: string) => Promise<object[]>} run
 * @property {() => Promise<void>} stop
 */

/** Every application keeps its ten open: more in all than servers take by default. */
const CONNECTIONS = 1000;

/** How statements are counted, for the report. */
export const COUNTED_BY = {
  mariadb: "MariaDB: `SHOW GLOBAL STATUS LIKE 'Questions'`",
  postgres:
    'PostgreSQL: the calls that `pg_stat_statements` has counted, or `xact_commit` of `pg_stat_database` where ' +
    'that is not installed',
};

const openers = {
  mariadb: openMariaDb,
  postgres: openPostgres,
  redis: openRedis,
  memcached: openMemcached,
  sqlite: (folder) => withoutServer('SQLite', (name) => join(folder, `${name}.sqlite`)),
  file: (folder) => withoutServer('a file', (name) => join(folder, `${name}.json`)),
  memory: () => withoutServer('memory', (name) => name),
};

/** @returns {Promise<Database>} */
export const openDatabase = (kind, folder) => openers[kind](folder);

async function openMariaDb() {
  const server = await startMariaDb({ args: [`--max-connections=${CONNECTIONS}`] });
  try {
    const { createConnection } = await import('mysql2/promise');
    const connection = await createConnection(server.url);
    const run = async (sql) => (await connection.query(sql))[0];
    const [{ version }] = await run('SELECT VERSION() AS version');
    let own = 0;
    return {
      title: `${server.name} ${/[\d.]+/.exec(version)[0]}`,
      async create(name) {
        await run(`CREATE DATABASE ${name} CHARACTER SET utf8mb4`);
        const url = new URL(server.url);
        url.pathname = `/${name}`;
        return url.href;
      },
      async statements() {
        own++;
        const [{ Value: count }] = await run("SHOW GLOBAL STATUS LIKE 'Questions'");
        return Number(count) - own;
      },
      async run(sql, url) {
        const other = await createConnection({ uri: url, multipleStatements: true });
        try {
          return (await other.query(sql))[0];
        } finally {
          await other.end();
        }
      },
      async stop() {
        connection.destroy();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function openPostgres() {
  let counts = true;
  const args = ['-c', `max_connections=${CONNECTIONS}`];
  const server = await startPostgres({ args: [...args, '-c', 'shared_preload_libraries=pg_stat_statements'] }).catch(
    () => {
      // That module is a package of its own on some systems.
      counts = false;
      return startPostgres({ args });
    },
  );
  try {
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: server.url });
    // It is told when the server stops.
    client.on('error', () => {});
    await client.connect();
    const run = async (sql) => (await client.query(sql)).rows;
    const [{ server_version: version }] = await run('SHOW server_version');
    if (counts) await run('CREATE EXTENSION pg_stat_statements');
    const count = counts
      ? 'SELECT sum(calls) AS count FROM pg_stat_statements ' +
        "WHERE dbid <> (SELECT oid FROM pg_database WHERE datname = 'visit')"
      : "SELECT sum(xact_commit + xact_rollback) AS count FROM pg_stat_database WHERE datname <> 'visit'";
    return {
      title: `PostgreSQL ${/[\d.]+/.exec(version)[0]}`,
      async create(name) {
        await run(`CREATE DATABASE ${name}`);
        const url = new URL(server.url);
        url.pathname = `/${name}`;
        return url.href;
      },
      statements: async () => Number((await run(count))[0].count),
      async run(sql, url) {
        const other = new pg.Client({ connectionString: url });
        await other.connect();
        try {
          return (await other.query(sql)).rows;
        } finally {
          await other.end();
        }
      },
      async stop() {
        await client.end();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** As docs/store-redis.md recommends it: a crash of the machine may cost the last second. */
async function openRedis() {
  const server = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'everysec'] });
  return {
    title: server.name,
    // One server for all, told apart by the prefix of their keys.
    create: async (name) => `${server.url}#${name}`,
    statements: async () => undefined,
    stop: () => server.stop(),
  };
}

async function openMemcached() {
  const server = await startMemcached();
  return {
    title: server.name,
    create: async (name) => `${server.url}#${name}`,
    statements: async () => undefined,
    stop: () => server.stop(),
  };
}

async function withoutServer(title, create) {
  return { title, create: async (name) => create(name), statements: async () => undefined, stop: async () => {} };
}
