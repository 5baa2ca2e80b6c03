import { createClient } from 'redis';
import { RedisVisitStore } from 'nest-visit/redis';
import { expect, onTestFinished, test, vi } from 'vitest';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy } from '../support/proxy.js';
import { findRedis, startRedis, type TestServer } from '../support/servers.mjs';
import { Crowd } from './crowd.js';

/** Longer than any call that is answered, even on a busy machine. */
const STORE_TIMEOUT = 3000;

async function connect(server: TestServer) {
  const client = createClient({ url: server.url });
  client.on('error', () => {});
  await client.connect();
  onTestFinished(() => client.destroy());
  return client;
}

type Client = Awaited<ReturnType<typeof connect>>;

const until = (condition: () => Promise<boolean>): Promise<boolean> =>
  vi.waitUntil(condition, { timeout: PATIENCE, interval: 20 });

/** Replicates the server at this address; resolves when it has all of its data. */
async function follow(follower: Client, leader: Client, address: string): Promise<void> {
  const { hostname, port } = new URL(address);
  await follower.replicaOf(hostname, Number(port));
  await until(async () => (await follower.info('replication')).includes('master_link_status:up'));
  await until(async () => (await leader.wait(1, 1000)) === 1);
}

describeUnlessMissing(findRedis() ? [] : ['redis-server or valkey-server'], 'A Redis and its replica', () => {
  test('B44, B45: they swap roles under load without loss; after a kill, the replica has its data', async () => {
    const servers = await Promise.all([startRedis(), startRedis()]);
    onTestFinished(async () => void (await Promise.all(servers.map((server) => server.stop()))));
    const [first, second] = servers;
    const [one, other] = [await connect(first), await connect(second)];
    await follow(other, one, first.url);
    // The server that its name points to.
    const proxy = await startProxy(first.url);
    onTestFinished(() => proxy.close());
    const crowd = await Crowd.gather(() => new RedisVisitStore({ connection: proxy.url }), STORE_TIMEOUT);

    await crowd.during(async () => {
      await crowd.reaches(({ served }) => served >= 5);
      // Writes wait until the replica has all of them. The old primary keeps its connections, and is read-only from
      // then on.
      proxy.lead(second.url);
      await one.sendCommand(['FAILOVER']);
      await until(async () => (await one.info('replication')).includes('role:slave'));
      await crowd.reaches(({ served }) => served >= 5);
    });
    await crowd.settle();
    expect((await other.info('replication')).includes('role:master')).toBe(true);

    // Every replica lags behind for a moment, and acknowledgements do not wait for it. This one is disconnected.
    const line = await startProxy(second.url);
    onTestFinished(() => line.close());
    await follow(one, other, line.url);
    const before = await Promise.all(crowd.visitors.map((visitor) => visitor.stored()));
    line.goSilent();
    const counted = await Promise.all(crowd.visitors.map((visitor) => visitor.count()));
    expect(counted).toEqual(before.map((n) => n + 1));
    await crowd.during(async () => {
      await second.kill();
      await crowd.reaches(({ refused }) => refused >= 2);
    });
    await one.sendCommand(['REPLICAOF', 'NO', 'ONE']);
    proxy.lead(first.url);
    // Only writes that it had not yet received are lost, as documented for this store.
    expect(await Promise.all(crowd.visitors.map((visitor) => visitor.stored()))).toEqual(before);
    await crowd.during(() => crowd.reaches(({ served }) => served >= 5));
    expect(await Promise.all(crowd.visitors.map((visitor) => visitor.stored()))).not.toContain(0);
  });
});
