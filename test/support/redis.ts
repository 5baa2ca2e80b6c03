import { randomBytes } from 'node:crypto';
import { createClient, createCluster } from 'redis';
import { afterAll } from 'vitest';
import {
  RedisVisitStore,
  type RedisVisitClient,
  type RedisVisitCluster,
  type RedisVisitStoreOptions,
} from 'nest-visit/redis';
import { describeWith, redisClusterUrls, redisUrl } from './needs.js';

/** A server or a cluster that suites run on. */
export interface TestRedis {
  readonly name: 'redis' | 'redis cluster';
  /** A new connected client, which is closed after the suite. */
  readonly connect: () => Promise<RedisVisitClient | RedisVisitCluster>;
  /** A store with its own client, and without visits unless the prefix has been used before. */
  readonly open: (options?: Partial<RedisVisitStoreOptions>) => Promise<RedisVisitStore>;
  /** Sends a command for one key. */
  readonly send: (key: string, ...args: string[]) => Promise<unknown>;
}

/** A key prefix that no other test has. */
export function uniquePrefix(): string {
  return `nest-visit-test-${randomBytes(8).toString('hex')}:`;
}

/** Runs a suite on a server and on a cluster; if one is missing, see `describeWith`. */
export function describeRedis(title: string, suite: (redis: TestRedis) => void): void {
  describeWith('redis', `${title} on redis`, () => suite(testRedis('redis')));
  describeWith('redisCluster', `${title} on a redis cluster`, () => suite(testRedis('redis cluster')));
}

function testRedis(name: TestRedis['name']): TestRedis {
  const opened: { destroy(): void }[] = [];
  // Registered first, so it runs after the suite's own hooks.
  afterAll(() => opened.forEach((client) => client.destroy()));
  const connect = async () => {
    const client =
      name === 'redis'
        ? createClient({ url: redisUrl! })
        : createCluster({ rootNodes: redisClusterUrls!.map((url) => ({ url })) });
    client.on('error', () => {});
    await client.connect();
    opened.push(client);
    return client;
  };
  let own: Promise<RedisVisitClient | RedisVisitCluster> | undefined;
  return {
    name,
    connect,
    open: async (options = {}) => new RedisVisitStore({ client: await connect(), prefix: uniquePrefix(), ...options }),
    send: async (key, ...args) => {
      const client = await (own ??= connect());
      return 'masters' in client ? client.sendCommand(key, false, args) : client.sendCommand(args);
    },
  };
}
