export { RedisVisitStore, type RedisVisitStoreOptions } from './redis-visit.store.js';
export type { RedisVisitClient, RedisVisitCluster, RedisVisitConnection } from './redis.connection.js';
