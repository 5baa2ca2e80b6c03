// Private database servers for tests: on 127.0.0.1 and a free port, with fresh data in a folder of their own, as
// durable as they are in production. Built-in modules only, so that test/run.mjs can load it before anything is
// installed; the database drivers are loaded when the first server starts.
export * from './servers/installed.mjs';
export * from './servers/mariadb.mjs';
export * from './servers/memcached.mjs';
export * from './servers/postgres.mjs';
export * from './servers/redis.mjs';
export { temporaryFolder, unwatch, watch } from './servers/watched.mjs';
