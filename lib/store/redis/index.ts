/**
 * Visits in Redis or Valkey.
 *
 * @module nest-visit/redis
 */

export { RedisVisitStore, type RedisVisitStoreOptions } from './redis-visit.store.js';
export type { RedisVisitClient, RedisVisitCluster, RedisVisitConnection } from './redis.connection.js';
