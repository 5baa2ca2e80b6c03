import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { find, findMariaDb } from './installed.mjs';
import { MAX_CONNECTIONS, runToEnd, startServer } from './server.mjs';
import { isRoot } from './watched.mjs';

/**
 * Starts MariaDB, or MySQL where that is what is installed. The URL names the user `root`, without a password, and the
 * database `visit`. `args` are further arguments of the server.
 */
export async function startMariaDb({ args: more = [] } = {}) {
  const program = findMariaDb();
  if (!program) throw new Error('Neither MariaDB nor MySQL is installed');
  return startServer('mariadb', async (folder) => {
    const data = join(folder, 'data');
    const asRoot = isRoot ? ['--user=root'] : [];
    const isMariaDb = spawnSync(program, ['--no-defaults', '--version'], { encoding: 'utf8' }).stdout?.includes(
      'MariaDB',
    );
    // A server clears its folder for temporary files when it starts: shared, it would take those of others.
    const temporary = join(folder, 'tmp');
    mkdirSync(temporary);
    const common = ['--no-defaults', ...asRoot, `--datadir=${data}`, `--tmpdir=${temporary}`];
    if (isMariaDb) {
      const install = find(['mariadb-install-db', 'mysql_install_db']);
      if (!install) throw new Error(`${program} is installed, but mariadb-install-db is not`);
      await runToEnd(install, [...common, '--auth-root-authentication-method=normal', '--skip-test-db']);
    } else {
      await runToEnd(program, [...common, '--initialize-insecure']);
    }

    // Read at every start, before the server answers. MySQL has no root@127.0.0.1 of its own.
    const initial = join(folder, 'init.sql');
    const user = "'root'@'127.0.0.1'";
    writeFileSync(
      initial,
      `CREATE USER IF NOT EXISTS ${user};\nGRANT ALL PRIVILEGES ON *.* TO ${user} WITH GRANT OPTION;\n` +
        'CREATE DATABASE IF NOT EXISTS visit CHARACTER SET utf8mb4;\n',
    );
    return {
      name: isMariaDb ? 'MariaDB' : 'MySQL',
      command: program,
      args: (port) => [
        ...common,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        `--socket=${join(folder, 'socket')}`,
        `--pid-file=${join(folder, 'pid')}`,
        `--init-file=${initial}`,
        '--skip-name-resolve',
        '--character-set-server=utf8mb4',
        `--max-connections=${MAX_CONNECTIONS}`,
        // MySQL's second protocol listens on a port of its own.
        ...(isMariaDb ? [] : ['--mysqlx=OFF']),
        ...more,
      ],
      options: { cwd: folder },
      readyLine: 'ready for connections',
      stopSignal: 'SIGTERM',
      url: (port) => `mysql://root@127.0.0.1:${port}/visit`,
    };
  });
}
