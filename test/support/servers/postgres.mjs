import { spawnSync } from 'node:child_process';
import { chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPgBaseBackup, findPgBouncer, findPostgres } from './installed.mjs';
import { MAX_CONNECTIONS, runToEnd, startServer } from './server.mjs';
import { isRoot } from './watched.mjs';

/** The account to run PostgreSQL as, which refuses to run as root: undefined for our own. */
function postgresAccount() {
  if (!isRoot) return undefined;
  const accounts = readFileSync('/etc/passwd', 'utf8');
  const [, uid, gid] =
    /^postgres:[^:]*:(\d+):(\d+)/m.exec(accounts) ?? /^nobody:[^:]*:(\d+):(\d+)/m.exec(accounts) ?? [];
  if (!uid) throw new Error('PostgreSQL does not run as root, and there is neither a user "postgres" nor "nobody"');
  return { uid: Number(uid), gid: Number(gid) };
}

/**
 * Starts PostgreSQL. The URL names the user `postgres`, without a password, and the database `visit`. `args` are
 * further arguments of the server; no file of it gets longer than `largestFile` bytes, as on a disk that is full. With
 * `standbyOf`, the URL of another one, it is a copy of that and follows it.
 */
export async function startPostgres({ args: more = [], largestFile, standbyOf } = {}) {
  const programs = findPostgres();
  if (!programs) throw new Error('PostgreSQL is not installed');
  return startServer('postgres', async (folder) => {
    const data = join(folder, 'data');
    const account = postgresAccount();
    if (account) chownSync(folder, account.uid, account.gid);
    // No variable such as PGPORT or LC_ALL of whoever runs the tests may change the server or the language of its log.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/.test(name)));
    const options = { ...account, cwd: folder, env: { ...env, LC_ALL: 'C' } };
    const [program, args] = standbyOf
      ? [findPgBaseBackup(), ['-R', '-c', 'fast', '-d', serverOnly(standbyOf)]]
      : [programs.initdb, ['-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C', '--no-sync']];
    await runToEnd(program, ['-D', data, ...args], options);
    return {
      name: 'PostgreSQL',
      command: programs.postgres,
      args: (port) => {
        const listening = ['-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-N', String(MAX_CONNECTIONS)];
        // The path of a Unix socket must be short, and nobody needs one.
        return ['-D', data, ...listening, '-c', 'unix_socket_directories=', ...more];
      },
      options,
      largestFile,
      readyLine: 'database system is ready to accept',
      stopSignal: 'SIGINT',
      url: (port) => `postgres://postgres@127.0.0.1:${port}/visit`,
      async prepare(port) {
        if (standbyOf) return;
        const { default: pg } = await import('pg');
        const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres` });
        await client.connect();
        try {
          await client.query('CREATE DATABASE visit');
        } finally {
          await client.end();
        }
      },
      cleanUp: () => removeSharedMemory(data),
    };
  });
}

/**
 * Starts PgBouncer in front of a PostgreSQL, with few connections to it, so that clients take turns. The URL names the
 * same user and database as `server`. `mode` is its `pool_mode`.
 */
export async function startPgBouncer(server, mode) {
  const program = findPgBouncer();
  if (!program) throw new Error('PgBouncer is not installed');
  const target = new URL(server);
  return startServer('pgbouncer', (folder) => {
    const account = postgresAccount();
    const settings = join(folder, 'pgbouncer.ini');
    if (account) chownSync(folder, account.uid, account.gid);
    const destination = `host=${target.hostname} port=${target.port} user=${target.username}`;
    const writeSettings = (port) =>
      writeFileSync(
        settings,
        `[databases]\n* = ${destination}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ` +
          `${port}\nunix_socket_dir =\n` +
          `auth_type = any\npool_mode = ${mode}\ndefault_pool_size = 3\nmax_client_conn = 200\n`,
      );
    return {
      name: 'PgBouncer',
      command: program,
      args: (port) => (writeSettings(port), [settings]),
      options: { ...account, cwd: folder },
      readyLine: 'process up',
      stopSignal: 'SIGTERM',
      url: (port) => Object.assign(new URL(target), { port: String(port) }).href,
    };
  });
}

/** A URL without its database. */
const serverOnly = (url) => Object.assign(new URL(url), { pathname: '' }).href;

/** After SIGKILL, PostgreSQL's segment of shared memory stays until the next start from the same folder. */
function removeSharedMemory(data) {
  const pidFile = join(data, 'postmaster.pid');
  if (!existsSync(pidFile)) return;
  const segment = readFileSync(pidFile, 'utf8').split('\n')[6]?.trim().split(/\s+/)[1];
  if (segment) spawnSync('ipcrm', ['-m', segment]);
}
