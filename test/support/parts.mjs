import {
  findChromium,
  findGalera,
  findMariaDb,
  findMemcached,
  findPgBouncer,
  findPostgres,
  findRedis,
  startMariaDb,
  startMemcached,
  startPostgres,
  startRedis,
  startRedisCluster,
} from './servers.mjs';

/**
 * What suites need and a machine may lack. Each is found, or named by a variable of the environment; `start` starts one
 * for all suites to share, which does not wait for the disk: what speaks of durability has one of its own.
 */
export const parts = [
  {
    name: 'MariaDB or MySQL',
    variable: 'VISIT_TEST_MYSQL_URL',
    example: 'mysql://root@127.0.0.1:3306/visit',
    find: findMariaDb,
    start: () => startMariaDb({ args: ['--innodb-flush-log-at-trx-commit=0', '--innodb-doublewrite=0'] }),
    // The server alone: the package mariadb-server would also run one as a service of the system.
    packages: ['mariadb-server-core', 'mariadb-client-core'],
  },
  {
    name: 'PostgreSQL',
    variable: 'VISIT_TEST_POSTGRES_URL',
    example: 'postgres://postgres@127.0.0.1:5432/visit',
    find: findPostgres,
    start: () =>
      startPostgres({
        args: ['fsync=off', 'full_page_writes=off', 'deadlock_timeout=50ms'].flatMap((setting) => ['-c', setting]),
      }),
    packages: ['postgresql'],
  },
  {
    name: 'Redis or Valkey',
    variable: 'VISIT_TEST_REDIS_URL',
    example: 'redis://127.0.0.1:6379',
    find: findRedis,
    start: startRedis,
    packages: ['redis-server'],
  },
  {
    name: 'Redis or Valkey, for a cluster',
    variable: 'VISIT_TEST_REDIS_CLUSTER_URLS',
    example: 'redis://127.0.0.1:7000,redis://127.0.0.1:7001',
    find: findRedis,
    start: startRedisCluster,
    packages: ['redis-server'],
  },
  {
    name: 'memcached',
    variable: 'VISIT_TEST_MEMCACHED_URL',
    example: '127.0.0.1:11211',
    find: findMemcached,
    start: startMemcached,
    packages: ['memcached'],
  },
  {
    name: 'Chromium or Chrome',
    variable: 'VISIT_TEST_CHROMIUM',
    example: '/usr/bin/chromium',
    find: findChromium,
    // The second is used beside the first where it is there.
    packages: ['chromium', 'chromium-headless-shell'],
  },
  {
    name: 'Galera, for clusters of MariaDB',
    variable: 'VISIT_TEST_GALERA',
    example: '/usr/lib/galera/libgalera_smm.so',
    find: findGalera,
    packages: ['galera-4'],
  },
  {
    name: 'PgBouncer, a pooler for PostgreSQL',
    variable: 'VISIT_TEST_PGBOUNCER',
    example: '/usr/sbin/pgbouncer',
    find: findPgBouncer,
    packages: ['pgbouncer'],
  },
];
