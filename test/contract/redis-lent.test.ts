import { createClient, createCluster } from 'redis';
import { RedisVisitStore } from 'nest-visit/redis';
import { expect, onTestFinished, test } from 'vitest';
import { newVisit } from '../../lib/testing/samples.js';
import { describeWith, redisClusterUrls, redisUrl } from '../support/needs.js';
import { openAccess } from '../support/open-access.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { uniquePrefix } from '../support/redis.js';

const STORE_TIMEOUT = 2000;
/** As the page on Redis says. */
const LASTING = {
  pingInterval: 200,
  socket: { socketTimeout: 600, reconnectStrategy: (retries: number) => Math.min(50 * (retries + 1), 1000) },
  disableOfflineQueue: true,
};

interface Lent {
  readonly client: ConstructorParameters<typeof RedisVisitStore>[0]['client'];
  readonly proxies: readonly Proxy[];
}

async function lendClient(): Promise<Lent> {
  const proxy = await startProxy(redisUrl!);
  const client = createClient({ url: proxy.url, ...LASTING });
  client.on('error', () => {});
  await client.connect();
  onTestFinished(() => client.destroy());
  return { client, proxies: [proxy] };
}

async function lendCluster(): Promise<Lent> {
  const urls = redisClusterUrls!;
  const proxies = await Promise.all(urls.map((url) => startProxy(url)));
  const portOf = (url: string): number => Number(new URL(url).port);
  const client = createCluster({
    rootNodes: urls.map((url) => ({ url })),
    nodeAddressMap: Object.fromEntries(
      urls.map((url, node) => [`127.0.0.1:${portOf(url)}`, { host: '127.0.0.1', port: portOf(proxies[node]!.url) }]),
    ),
    defaults: LASTING,
  });
  client.on('error', () => {});
  await client.connect();
  onTestFinished(() => client.destroy());
  return { client, proxies };
}

function describeLent(title: string, lend: () => Promise<Lent>): void {
  test(`R67, B44: ${title} with broken connections reconnects, with the documented options`, async () => {
    const { client, proxies } = await lend();
    onTestFinished(async () => void (await Promise.all(proxies.map((proxy) => proxy.close()))));
    const store = new RedisVisitStore({ client: client!, prefix: uniquePrefix() });
    await store.check();
    store.setDeadline(STORE_TIMEOUT);
    const access = openAccess(store, STORE_TIMEOUT);
    const visits = Array.from({ length: 12 }, () => newVisit());
    await store.create(visits);
    const found = async (): Promise<string[]> => {
      const all = await Promise.all(visits.map(({ id }) => access.find(id).then((one) => one?.id, String)));
      return all.map(String);
    };
    const ids = visits.map(({ id }) => id);
    expect(await found()).toEqual(ids);
    for (const proxy of proxies) proxy.goSilent();
    expect((await found()).filter((text) => ids.includes(text))).toEqual([]);
    for (const proxy of proxies) proxy.comeBack();
    await expect.poll(found).toEqual(ids);
  });
}

describeWith('redis', 'A Redis client of the application', () => describeLent('one', lendClient));
describeWith('redisCluster', 'A Redis cluster client of the application', () => describeLent('one', lendCluster));
