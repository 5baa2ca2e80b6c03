import { Logger } from '@nestjs/common';
import { RedisVisitStore } from 'nest-visit/redis';
import { createCluster } from 'redis';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { openAccess } from '../support/open-access.js';
import { slotOf } from '../../lib/store/redis/cluster.nodes.js';
import { bytes, newVisit, saveOf } from '../../lib/testing/samples.js';
import { describeUnlessMissing } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { startProxy } from '../support/proxy.js';
import { uniquePrefix } from '../support/redis.js';
import { findRedis, startRedisCluster, type TestCluster } from '../support/servers.mjs';

Logger.overrideLogger(false);

/** Not as short as it could be: those that are served must be, on a busy machine, too. */
const STORE_TIMEOUT = 4000;
const NODES = [0, 1, 2];
/** The one that goes away. */
const AWAY = 1;
const ROUNDS = 3;

/** By the shares that `startRedisCluster` gives. */
const nodeOf = (key: string): number => Math.floor(slotOf(key) / Math.ceil(16_384 / NODES.length));

describeUnlessMissing(
  findRedis() ? [] : ['redis-server or valkey-server'],
  'R67, R28, B44: One node of a Redis cluster',
  () => {
    let cluster: TestCluster;
    beforeAll(async () => {
      // By default, a cluster refuses everything when a part of it is missing.
      cluster = await startRedisCluster({ args: ['--cluster-require-full-coverage', 'no'] });
    });
    afterAll(() => cluster?.stop());

    const rootNodes = (): { url: string }[] => cluster.nodes.map(({ url }) => ({ url }));

    async function open(whose: 'own' | 'lent') {
      const prefix = uniquePrefix();
      const nodeOfVisit = ({ id }: { id: string }): number => nodeOf(`${prefix}visit:{${id}}`);
      const nodeOfSet = ({ id }: { id: string }): number => nodeOf(`${prefix}current:{${id[0]}}`);
      /** So many new visits on each node, whose sets are not on the one that goes away. */
      const visitsOnEach = (count: number) =>
        NODES.flatMap((node) => {
          const visits = [];
          while (visits.length < count) {
            const visit = newVisit();
            if (nodeOfVisit(visit) === node && nodeOfSet(visit) !== AWAY) visits.push(visit);
          }
          return visits;
        });
      let store: RedisVisitStore;
      if (whose === 'own') store = new RedisVisitStore({ connection: { rootNodes: rootNodes() }, prefix });
      else {
        const client = createCluster({ rootNodes: rootNodes() });
        client.on('error', () => {});
        await client.connect();
        onTestFinished(() => client.destroy());
        store = new RedisVisitStore({ client, prefix });
      }
      store.setDeadline(STORE_TIMEOUT);
      await store.check();
      onTestFinished(() => store.close());
      const access = openAccess(store, STORE_TIMEOUT);
      return { access, visitsOnEach, isAway: (visit: { id: string }): boolean => nodeOfVisit(visit) === AWAY };
    }

    const standsStill = async (): Promise<() => Promise<void>> => {
      const { pid } = cluster.nodes[AWAY]!;
      process.kill(pid, 'SIGSTOP');
      const goOn = async (): Promise<void> => void process.kill(pid, 'SIGCONT');
      onTestFinished(goOn);
      return goOn;
    };
    const isKilled = async (): Promise<() => Promise<void>> => {
      const node = cluster.nodes[AWAY]!;
      await node.kill();
      let back: Promise<void> | undefined;
      const comeBack = (): Promise<void> => (back ??= node.restart());
      onTestFinished(comeBack);
      return comeBack;
    };

    describe.each([
      ['hangs', standsStill],
      ['was killed', isKilled],
    ])('that %s', (_, goAway) => {
      test.each(['own', 'lent'] as const)('fails only the visits on it, with a client that is %s', async (whose) => {
        const { access, visitsOnEach, isAway } = await open(whose);
        const visits = visitsOnEach(8);
        await Promise.all(visits.map((visit) => access.create(visit)));
        const comeBack = await goAway();
        let version = 0;
        const served = visits.filter((visit) => !isAway(visit));
        const refusedOf = async <T extends { id: string }>(
          those: readonly T[],
          act: (one: T) => Promise<unknown>,
        ): Promise<string[]> => {
          const results = await Promise.allSettled(those.map(act));
          for (const result of results)
            if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
          return those.filter((_one, index) => results[index]!.status === 'rejected').map(({ id }) => id);
        };
        const lost = visits.filter(isAway).map(({ id }) => id);
        for (let round = 0; round < ROUNDS; round++) {
          const made = visitsOnEach(3);
          const refused = await Promise.all([
            refusedOf(visits, ({ id }) => access.find(id)),
            refusedOf(visits, (visit) => access.save(saveOf(visit, { version, data: bytes('x') }))),
            refusedOf(made, (visit) => access.create(visit)),
          ]);
          expect(refused).toEqual([lost, lost, made.filter(isAway).map(({ id }) => id)]);
          version++;
        }
        // A cluster that lost its memory, too, answers: the visits are not there any more.
        await comeBack();
        await expect.poll(() => refusedOf(visits, ({ id }) => access.find(id)), { timeout: PATIENCE }).toEqual([]);
        const found = await Promise.all(served.map(({ id }) => access.find(id)));
        expect(found.map((visit) => visit?.sessionVersion)).toEqual(served.map(() => ROUNDS));
      });
    });

    test.each([
      ['has lost in silence', false],
      ['loses, as it does the next one,', true],
    ])('whose connection the network %s is reached by a new one', async (_, losesNext) => {
      const proxies = await Promise.all(cluster.nodes.map(({ url }) => startProxy(url)));
      onTestFinished(async () => void (await Promise.all(proxies.map((proxy) => proxy.close()))));
      const placeOf = (url: string) => ({ host: '127.0.0.1', port: Number(new URL(url).port) });
      const nodeAddressMap = Object.fromEntries(
        cluster.nodes.map(({ port }, node) => [`127.0.0.1:${port}`, placeOf(proxies[node]!.url)]),
      );
      const prefix = uniquePrefix();
      const store = new RedisVisitStore({ connection: { rootNodes: rootNodes(), nodeAddressMap }, prefix });
      store.setDeadline(STORE_TIMEOUT);
      await store.check();
      onTestFinished(() => store.close());
      const visits = Array.from({ length: 20 }, () => newVisit());
      const other = new RedisVisitStore({ connection: { rootNodes: rootNodes() }, prefix });
      onTestFinished(() => other.close());
      await other.create(visits);
      const ids = visits.map(({ id }) => id);
      const found = (): Promise<unknown> => store.find(ids).then((all) => all.map((visit) => visit?.id), String);
      await expect.poll(found, { timeout: PATIENCE }).toEqual(ids);
      const lost = proxies[AWAY]!;
      lost.goSilent();
      const before = lost.open;
      if (!losesNext) lost.comeBack();
      expect(await found()).toContain('Error');
      if (losesNext)
        await expect.poll(async () => (await found(), lost.open), { timeout: PATIENCE }).toBeGreaterThan(before);
      lost.comeBack();
      await expect.poll(found, { timeout: PATIENCE }).toEqual(ids);
    });

    test('locates keys as the cluster does', async () => {
      const client = createCluster({ rootNodes: rootNodes() });
      await client.connect();
      onTestFinished(() => client.destroy());
      for (const key of [
        '123456789',
        'a{b}c',
        'a{}c',
        'a{b',
        '{a}{b}',
        'ä{ö}ü',
        'visit:{0123456789abcdef0123456789abcdef}',
      ])
        expect(slotOf(key), key).toBe(Number(await client.sendCommand(undefined, true, ['CLUSTER', 'KEYSLOT', key])));
    });
  },
);
