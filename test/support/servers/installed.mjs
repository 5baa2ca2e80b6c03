import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const POSTGRES_HOME = '/usr/lib/postgresql';
/** Of PostgreSQL the newest version, where Debian keeps several. */
const postgresFolders = existsSync(POSTGRES_HOME)
  ? readdirSync(POSTGRES_HOME)
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(POSTGRES_HOME, version, 'bin'))
  : [];
const PREFIXES = ['/usr', '/usr/local', '/opt/homebrew'];
const PROGRAMS = [
  ...PREFIXES.flatMap((prefix) => [`${prefix}/bin`, `${prefix}/sbin`]),
  '/usr/libexec',
  ...postgresFolders,
];
const CHROME_ON_MAC = '/Applications/Google Chrome.app/Contents/MacOS';
const LIBRARIES = PREFIXES.flatMap((prefix) =>
  [
    'lib/galera',
    'lib/galera-4',
    'lib64/galera',
    'lib64/galera-4',
    'lib',
    'lib64',
    'lib/x86_64-linux-gnu',
    'lib/aarch64-linux-gnu',
  ].map((folder) => `${prefix}/${folder}`),
);

/**
 * The file with the first of these names that is installed, or undefined. Looked for on the PATH and then in `folders`;
 * with VISIT_TEST_PATH set only in the folders that it names.
 */
export function find(names, folders = PROGRAMS) {
  const only = process.env.VISIT_TEST_PATH;
  const searched = (only ?? [process.env.PATH, ...folders].join(delimiter)).split(delimiter).filter(Boolean);
  return names.flatMap((name) => searched.map((folder) => join(folder, name))).find(isUsable);
}

function isUsable(file) {
  try {
    accessSync(file, file.endsWith('.so') ? constants.R_OK : constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export const findMariaDb = () => find(['mariadbd', 'mysqld']);
export const findRedis = () => find(['redis-server', 'valkey-server']);
/** The library that makes MariaDB a node of a cluster. */
export const findGalera = () => process.env.VISIT_TEST_GALERA || find(['libgalera_smm.so'], LIBRARIES);

export const findPgBouncer = () => process.env.VISIT_TEST_PGBOUNCER || find(['pgbouncer']);

export const findMemcached = () => find(['memcached']);
export const findChromium = () =>
  find(
    ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'Google Chrome'],
    [...PROGRAMS, CHROME_ON_MAC],
  );

export function findPostgres() {
  const [postgres, initdb] = [find(['postgres']), find(['initdb'])];
  return postgres && initdb ? { postgres, initdb } : undefined;
}

/** What copies a server of PostgreSQL. */
export const findPgBaseBackup = () => find(['pg_basebackup']);
