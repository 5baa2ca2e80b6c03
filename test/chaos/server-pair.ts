import { createRequire } from 'node:module';
import { appendFileSync, chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { vi } from 'vitest';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import {
  findMariaDb,
  findPgBaseBackup,
  findPostgres,
  startMariaDb,
  startPostgres,
  type TestServer,
} from '../support/servers.mjs';
import { ofToday } from '../support/today.js';

/** Two servers, one of which replicates the other, including all acknowledged writes. */
export interface ServerPair {
  /** The URL of the primary, without administrator privileges. */
  readonly url: string;
  readonly type: 'mariadb' | 'postgres';
  /** They swap roles, as in maintenance: the old primary continues, and is read-only. */
  swap(): Promise<void>;
  /** The primary is killed, and the other server replaces it. */
  failOver(): Promise<void>;
  stop(): Promise<void>;
}

const APPLICATION = 'app';

function asApplication(url: string): string {
  const address = new URL(url);
  address.username = APPLICATION;
  return address.href;
}

const until = (condition: () => Promise<boolean>): Promise<boolean> =>
  vi.waitUntil(condition, { timeout: PATIENCE, interval: 50 });

async function askMariaDb(server: TestServer, ...statements: string[]): Promise<string> {
  const connection = await createConnection(server.url);
  try {
    let value = '';
    for (const statement of statements) {
      const [rows] = await connection.query(statement);
      value = Array.isArray(rows) && rows.length > 0 ? String(Object.values(rows[0] as object)[0]) : '';
    }
    return value;
  } finally {
    await connection.end();
  }
}

/** With binary logs; an acknowledgement waits until the replica has the write, too (semi-synchronous). */
async function startMariaDbPair(): Promise<ServerPair> {
  const start = (id: number): Promise<TestServer> =>
    startMariaDb({
      args: [
        `--server-id=${id}`,
        '--log-bin=log',
        '--binlog-format=ROW',
        '--log-slave-updates',
        '--rpl-semi-sync-slave-enabled=ON',
        `--rpl-semi-sync-master-timeout=${PATIENCE}`,
      ],
    });
  const servers = await Promise.all([start(1), start(2)]);
  let [first, second] = servers;
  const clients =
    "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Rpl_semi_sync_master_clients'";
  const follow = async (follower: TestServer, leader: TestServer, position: string): Promise<void> => {
    await askMariaDb(leader, 'SET GLOBAL rpl_semi_sync_master_enabled = 1');
    await askMariaDb(
      follower,
      `SET GLOBAL gtid_slave_pos = '${position}'`,
      `CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = ${leader.port}, MASTER_USER = 'root', ` +
        'MASTER_USE_GTID = slave_pos',
      'START SLAVE',
    );
    await until(async () => (await askMariaDb(leader, clients)) === '1');
  };
  const lead = (server: TestServer): Promise<string> =>
    askMariaDb(server, 'STOP SLAVE', 'RESET SLAVE ALL', 'SET GLOBAL read_only = 0');
  for (const server of servers) {
    await askMariaDb(
      server,
      `CREATE USER '${APPLICATION}'@'127.0.0.1'`,
      `GRANT ALL PRIVILEGES ON visit.* TO '${APPLICATION}'@'127.0.0.1'`,
      'RESET MASTER',
    );
  }
  await askMariaDb(second, 'SET GLOBAL read_only = 1');
  await follow(second, first, '');
  return {
    type: 'mariadb',
    get url() {
      return asApplication(first.url);
    },
    async swap() {
      await askMariaDb(first, 'SET GLOBAL read_only = 1');
      const position = await askMariaDb(first, 'SELECT @@gtid_binlog_pos');
      await askMariaDb(second, `SELECT MASTER_GTID_WAIT('${position}', ${PATIENCE / 1000})`);
      await lead(second);
      await askMariaDb(first, 'SET GLOBAL rpl_semi_sync_master_enabled = 0');
      [first, second] = [second, first];
      await follow(second, first, position);
    },
    async failOver() {
      await first.kill();
      // It must apply what it has received.
      await askMariaDb(second, 'STOP SLAVE IO_THREAD');
      await until(async () => (await slaveState(second)).includes('has read all relay log'));
      await lead(second);
      [first, second] = [second, first];
    },
    stop: async () => void (await Promise.all(servers.map((server) => server.stop()))),
  };
}

/** The state of the thread that applies received writes. */
async function slaveState(server: TestServer): Promise<string> {
  const connection = await createConnection(server.url);
  try {
    const [rows] = (await connection.query('SHOW SLAVE STATUS')) as unknown as [{ Slave_SQL_Running_State: string }[]];
    return rows[0]!.Slave_SQL_Running_State;
  } finally {
    await connection.end();
  }
}

/** The part of `pg` that is used here; the package brings no types. */
interface Pg {
  Client: new (options: { connectionString: string }) => {
    connect(): Promise<void>;
    query(sql: string): Promise<{ rows: Record<string, unknown>[] }>;
    end(): Promise<void>;
  };
}

const pg = createRequire(import.meta.url)('pg') as Pg;

async function askPostgres(server: TestServer, ...statements: string[]): Promise<string> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    let value = '';
    for (const statement of statements) value = String(Object.values((await client.query(statement)).rows[0] ?? {})[0]);
    return value;
  } finally {
    await client.end();
  }
}

/** With streaming; an acknowledgement waits until the standby has the write, too (synchronous). */
async function startPostgresPair(): Promise<ServerPair> {
  let first = await startPostgres();
  await askPostgres(first, `CREATE ROLE ${APPLICATION} LOGIN`, `ALTER DATABASE visit OWNER TO ${APPLICATION}`);
  let second = await startPostgres({ standbyOf: first.url });
  const servers = [first, second];
  const isFollowed = async (): Promise<void> => {
    const streams = "SELECT COUNT(*) FROM pg_stat_replication WHERE state = 'streaming'";
    await until(async () => (await askPostgres(first, streams)) === '1');
    await askPostgres(first, "ALTER SYSTEM SET synchronous_standby_names = '*'", 'SELECT pg_reload_conf()');
  };
  const lead = async (server: TestServer): Promise<void> => {
    // A former primary would wait for a standby that no longer exists.
    const alone = ["ALTER SYSTEM SET synchronous_standby_names = ''", 'SELECT pg_reload_conf()'];
    await askPostgres(server, ...alone, 'SELECT pg_promote(true, 180)');
  };
  await isFollowed();
  return {
    type: 'postgres',
    get url() {
      return asApplication(first.url);
    },
    async swap() {
      const data = join(first.folder, 'data');
      const { uid, gid } = statSync(data);
      const settings = join(data, 'postgresql.auto.conf');
      appendFileSync(settings, `primary_conninfo = 'host=127.0.0.1 port=${second.port} user=postgres'\n`);
      writeFileSync(join(data, 'standby.signal'), '');
      chownSync(join(data, 'standby.signal'), uid, gid);
      // It sends all of its data before it stops, and is a standby from then on.
      await first.restart();
      await lead(second);
      [first, second] = [second, first];
      await isFollowed();
    },
    async failOver() {
      await first.kill();
      await lead(second);
      [first, second] = [second, first];
    },
    stop: async () => void (await Promise.all(servers.map((server) => server.stop()))),
  };
}

const KINDS = {
  mariadb: { missing: findMariaDb()?.endsWith('mariadbd') ? [] : ['MariaDB, installed'], start: startMariaDbPair },
  postgres: {
    missing: findPostgres() && findPgBaseBackup() ? [] : ['PostgreSQL with pg_basebackup, installed'],
    start: startPostgresPair,
  },
};

/** Runs a suite for one kind of pair each day, and for each in `npm run test:soak`. */
export function describeServerPairOfToday(title: string, suite: (start: () => Promise<ServerPair>) => void): void {
  for (const [name, { missing, start }] of ofToday(Object.entries(KINDS), title.length))
    describeUnlessMissing(missing, `${title} of ${name}`, () => suite(start));
}
