import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { vi } from 'vitest';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { findMariaDb, findPostgres, startMariaDb, startPostgres, type TestServer } from '../support/servers.mjs';
import { ofToday } from '../support/today.js';

type Row = Record<string, unknown>;

/** A separate connection, besides those of the application. */
export interface Session {
  query(sql: string): Promise<Row[]>;
  close(): Promise<void>;
}

/** A database server that a test can break; the application connects to it without administrator privileges. */
export interface FaultServer {
  readonly name: 'mariadb' | 'postgres';
  readonly server: TestServer;
  /** For a TypeORM DataSource. */
  readonly dataSource: { type: 'mariadb' | 'postgres'; url: string };
  /** As the administrator, or as the application. */
  connect(as?: 'operator' | 'application'): Promise<Session>;
  /** As the administrator, with a connection for this one query. */
  ask(sql: string): Promise<Row[]>;
  setReadOnly(on: boolean): Promise<void>;
  /** Closes the connections of the application, from the side of the server. Returns their number. */
  dropConnections(): Promise<number>;
  /** Refuses new connections of the application, and closes its existing ones. */
  refuseConnections(on: boolean): Promise<void>;
  /** Resolves when a statement of the application waits for a lock of this session. */
  isWaitedFor(holder: Session): Promise<void>;
  /** How often the server has rolled something back because of a deadlock. */
  deadlocks(): Promise<number>;
  /** Leaves no space for more data, until the returned function is called. */
  fill(): Promise<() => Promise<void>>;
  /** Suspends the processes of the server, until the returned function is called. */
  hang(): Promise<() => Promise<void>>;
  stop(): Promise<void>;
}

/** Whether all threads of a process have stopped, according to the system. */
function standsStill(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  if (!existsSync(tasks)) return true;
  try {
    return readdirSync(tasks).every((task) => /^State:\tT/m.test(readFileSync(join(tasks, task, 'status'), 'utf8')));
  } catch {
    // One has ended in the meantime.
    return false;
  }
}

/** Suspends processes. The shell resumes them when its stdin closes, even if this process is killed. */
async function standStill(pids: readonly number[]): Promise<() => Promise<void>> {
  const script = 'kill -STOP "$@"; echo stopped; read line; kill -CONT "$@"';
  const shell = spawn('/bin/sh', ['-c', script, 'sh', ...pids.map(String)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  await once(shell.stdout, 'data');
  // Threads stop one after the other, each when it is scheduled next.
  await vi.waitUntil(() => pids.every(standsStill), { timeout: PATIENCE, interval: 5 });
  return async () => {
    const ended = once(shell, 'exit');
    shell.stdin.end();
    await ended;
  };
}

const APPLICATION = 'app';
const MOST_CONNECTIONS = 100;
/** In bytes, on PostgreSQL. Its log is written in files of this size, which must remain writable. */
const LARGEST_FILE = 16 * 2 ** 20;

function asApplication(url: string): string {
  const address = new URL(url);
  address.username = APPLICATION;
  return address.href;
}

async function startFaultyMariaDb(): Promise<FaultServer> {
  const server = await startMariaDb({
    // The second option: a wait for a lock must end within a test; the default is 50.
    args: [`--max-connections=${MOST_CONNECTIONS}`, '--innodb-lock-wait-timeout=1'],
  });
  const urls = { operator: server.url, application: asApplication(server.url) };
  const hogs: Session[] = [];
  const connect = async (as: keyof typeof urls = 'operator'): Promise<Session> => {
    const connection = await createConnection(urls[as]);
    // Emitted when the server closes the connection; the current or next query reports it.
    connection.on('error', () => {});
    return { query: async (sql) => (await connection.query(sql))[0] as Row[], close: async () => connection.destroy() };
  };
  const ask = asking(connect);
  await ask(`CREATE USER '${APPLICATION}'@'127.0.0.1'`);
  await ask(`GRANT ALL PRIVILEGES ON visit.* TO '${APPLICATION}'@'127.0.0.1'`);
  const dropConnections = async (): Promise<number> => {
    const rows = await ask(`SELECT id FROM information_schema.processlist WHERE user = '${APPLICATION}'`);
    // A connection that has ended in the meantime is an error.
    await Promise.all(rows.map(({ id }) => ask(`KILL ${Number(id)}`).catch(() => {})));
    return rows.length;
  };
  return {
    name: 'mariadb',
    server,
    dataSource: { type: 'mariadb', url: urls.application },
    connect,
    ask,
    dropConnections,
    setReadOnly: async (on) => void (await ask(`SET GLOBAL read_only = ${on ? 1 : 0}`)),
    async refuseConnections(on) {
      if (!on) {
        await hogs[0]?.query(`SET GLOBAL max_connections = ${MOST_CONNECTIONS}`);
        await Promise.all(hogs.splice(0).map((hog) => hog.close()));
        return;
      }
      // The minimum is ten connections. Administrators have one more, so that this connection can stay, too.
      const operator = await connect();
      hogs.push(operator);
      await operator.query('SET GLOBAL max_connections = 10');
      const places: unknown[] = [];
      while (hogs.length < 10) {
        try {
          const hog = await connect('application');
          hogs.push(hog);
          places.push((await hog.query('SELECT CONNECTION_ID() AS id'))[0]!['id']);
        } catch {
          // Full: close the connections of others.
          const rows = await operator.query(
            `SELECT id FROM information_schema.processlist WHERE user = '${APPLICATION}'`,
          );
          for (const { id } of rows.filter((row) => !places.includes(row['id'])))
            await operator.query(`KILL ${Number(id)}`).catch(() => {});
        }
      }
    },
    async isWaitedFor() {
      const sql = "SELECT COUNT(*) AS n FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
      // InnoDB updates this view only if it was not read within the last tenth of a second.
      await vi.waitUntil(async () => Number((await ask(sql))[0]!['n']) > 0, { timeout: PATIENCE, interval: 250 });
    },
    deadlocks: async () => Number((await ask("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"))[0]!['Value']),
    // Simulates a full disk: with a real one, InnoDB may end the server itself.
    async fill() {
      const refuse = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table visit is full'";
      const grows = 'LENGTH(NEW.session_data) > COALESCE(LENGTH(OLD.session_data), 0)';
      await ask(`CREATE TRIGGER full_for_insert BEFORE INSERT ON visit FOR EACH ROW ${refuse}`);
      await ask(
        `CREATE TRIGGER full_for_update BEFORE UPDATE ON visit FOR EACH ROW IF ${grows} THEN ${refuse}; END IF`,
      );
      return async () => {
        await ask('DROP TRIGGER full_for_insert');
        await ask('DROP TRIGGER full_for_update');
      };
    },
    hang: () => standStill([server.pid]),
    stop: () => server.stop(),
  };
}

/** The part of `pg` that is used here; the package brings no types. */
interface Pg {
  Client: new (options: { connectionString: string }) => {
    connect(): Promise<void>;
    query(sql: string): Promise<{ rows: Row[] }>;
    on(event: 'error', listener: () => void): void;
    end(): Promise<void>;
  };
}

const pg = createRequire(import.meta.url)('pg') as Pg;

async function startFaultyPostgres(): Promise<FaultServer> {
  const server = await startPostgres({ args: ['-c', 'deadlock_timeout=50ms'], largestFile: LARGEST_FILE });
  const urls = { operator: server.url, application: asApplication(server.url) };
  const connect = async (as: keyof typeof urls = 'operator'): Promise<Session> => {
    const client = new pg.Client({ connectionString: urls[as] });
    client.on('error', () => {});
    await client.connect();
    return { query: async (sql) => (await client.query(sql)).rows, close: () => client.end() };
  };
  const ask = asking(connect);
  await ask(`CREATE ROLE ${APPLICATION} LOGIN`);
  await ask(`ALTER DATABASE visit OWNER TO ${APPLICATION}`);
  const dropConnections = async (): Promise<number> =>
    (await ask(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${APPLICATION}'`)).length;
  return {
    name: 'postgres',
    server,
    dataSource: { type: 'postgres', url: urls.application },
    connect,
    ask,
    dropConnections,
    async setReadOnly(on) {
      await ask(`ALTER SYSTEM SET default_transaction_read_only = ${on ? 'on' : 'off'}`);
      await ask('SELECT pg_reload_conf()');
    },
    async refuseConnections(on) {
      await ask(`ALTER ROLE ${APPLICATION} CONNECTION LIMIT ${on ? 0 : -1}`);
      if (on) await dropConnections();
    },
    async isWaitedFor(holder) {
      const [own] = await holder.query('SELECT pg_backend_pid() AS pid');
      const pid = Number(own!['pid']);
      const sql = `SELECT COUNT(*) AS n FROM pg_stat_activity WHERE ${pid} = ANY (pg_blocking_pids(pid))`;
      await vi.waitUntil(async () => Number((await ask(sql))[0]!['n']) > 0, { timeout: PATIENCE });
    },
    deadlocks: async () =>
      Number((await ask("SELECT deadlocks FROM pg_stat_database WHERE datname = 'visit'"))[0]!['deadlocks']),
    async fill() {
      const others = "'-', 0, 0, 0, 0, FALSE, 0 FROM generate_series(1, 1000)";
      const columns = 'id, user_agent, key_hash, key_changed, created, accessed, expiry, permanent, session_version';
      const ballast = `INSERT INTO visit (${columns}) SELECT md5(random()::text), repeat('x', 250), ${others}`;
      for (let isFull = false; !isFull;) {
        isFull = await ask(ballast).then(
          () => false,
          (error: Error) => {
            if (error.message.includes('File too large')) return true;
            throw error;
          },
        );
      }
      return async () => {
        await ask("DELETE FROM visit WHERE key_hash = '-'");
        await ask('VACUUM visit');
      };
    },
    async hang() {
      const session = await connect();
      // First the process that starts the others.
      const resumeFirst = await standStill([server.pid]);
      const rows = await session.query('SELECT pid FROM pg_stat_activity');
      const resumeOthers = await standStill(rows.map(({ pid }) => Number(pid)));
      return async () => {
        await resumeOthers();
        await resumeFirst();
        await session.close();
      };
    },
    stop: () => server.stop(),
  };
}

function asking(connect: () => Promise<Session>): (sql: string) => Promise<Row[]> {
  return async (sql) => {
    const session = await connect();
    try {
      return await session.query(sql);
    } finally {
      await session.close();
    }
  };
}

const KINDS = {
  mariadb: { missing: findMariaDb() ? [] : ['MariaDB, installed'], start: startFaultyMariaDb },
  postgres: { missing: findPostgres() ? [] : ['PostgreSQL, installed'], start: startFaultyPostgres },
};

/**
 * Runs a suite for a kind of server. It needs its own server, even if the tests were given an existing one, which must
 * not be broken.
 */
export function describeFaultServer(
  title: string,
  name: FaultServer['name'],
  suite: (start: () => Promise<FaultServer>) => void,
): void {
  const { missing, start } = KINDS[name];
  describeUnlessMissing(missing, `${title} on ${name}`, () => suite(start));
}

/** The same on one kind of server each day, and on each in `npm run test:soak`. */
export function describeFaultServerOfToday(
  title: string,
  suite: (name: FaultServer['name'], start: () => Promise<FaultServer>) => void,
): void {
  for (const name of ofToday(['mariadb', 'postgres'] as const, title.length))
    describeFaultServer(title, name, (start) => suite(name, start));
}
