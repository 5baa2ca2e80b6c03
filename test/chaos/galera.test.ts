import { setTimeout as pause } from 'node:timers/promises';
import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openMigrated } from '../support/open-migrated.js';
import { describeUnlessMissing } from '../support/needs.js';
import { isSoak } from '../support/soak.js';
import { isForToday } from '../support/today.js';
import { startApps, type AppProcess } from './app-process.js';
import { Books } from './books.js';
import { missingForGalera, startGalera, type GaleraCluster } from './galera-cluster.js';
import { Load } from './load.js';
import { Dice, idOf, SEED, Visitor } from './visitor.js';

const VISITORS = 60;
const SECONDS = isSoak ? 90 : 4;
/** The pause between the actions of a visitor. */
const THINKING = 60;
const USERS = Array.from({ length: 30 }, (_, i) => `user ${i}`);
/** The counter of rollbacks because another node has written the same row. */
const CONFLICTS = ['wsrep_local_cert_failures', 'wsrep_local_bf_aborts'];

type Request = () => Promise<unknown>;

/** The actions of visitors and their frequency; these requests are in flight at the same time. */
const habits: readonly { often: number; act: (visitor: Visitor, others: Others) => Request[] }[] = [
  { often: 40, act: (visitor, { books, dice }) => Array<Request>(1 + dice.below(3)).fill(() => books.add(visitor)) },
  { often: 15, act: (visitor, { books }) => ['a', 'b', 'c'].map((key) => () => books.set(visitor, key)) },
  { often: 8, act: (visitor, { books }) => [() => books.who(visitor)] },
  {
    often: 8,
    act: (visitor, { books }) => [
      async () => {
        const token = await books.leaveToken(visitor);
        await Promise.all([1, 2, 3].map(() => books.take(visitor, token)));
      },
    ],
  },
  {
    often: 12,
    act: (visitor, { books, dice }) => {
      const user = dice.pick(USERS);
      return [() => books.add(visitor), () => books.login(visitor, user), () => books.set(visitor, 'a')];
    },
  },
  {
    often: 5,
    act: (visitor, { books, dice }) => {
      const keepVisit = dice.roll() < 0.5;
      return [() => books.add(visitor), () => books.logout(visitor, keepVisit), () => books.add(visitor)];
    },
  },
  {
    often: 5,
    act: (visitor, { books }) => [() => books.add(visitor), () => books.renew(visitor), () => books.set(visitor, 'b')],
  },
  { often: 4, act: (visitor, others) => [() => others.books.endOther(visitor, others.someone())] },
  { often: 1, act: (visitor, { books, dice }) => [() => books.endAll(visitor, dice.pick(USERS))] },
];

interface Others {
  readonly books: Books;
  readonly dice: Dice;
  someone(): Visitor;
}

// Every second day: three servers and as many applications are much for one suite.
describe.runIf(isForToday(1, 2))('Three nodes of a Galera cluster', () => {
  describeUnlessMissing(missingForGalera(), 'with an application on each', () => {
    let cluster: GaleraCluster;
    let dataSource: DataSource;
    let apps: AppProcess[] = [];
    const dice = new Dice(SEED);

    beforeAll(async () => {
      // Without this, a node may not have the acknowledged writes of other nodes yet.
      cluster = await startGalera({ args: ['--wsrep-sync-wait=1'] });
      // A server would retry a single statement itself; here, all but the third leave that to the library.
      for (const node of cluster.nodes.slice(0, 2)) await node.ask('SET GLOBAL wsrep_retry_autocommit = 0');
      dataSource = await openMigrated(cluster.nodes[0]!.dataSource);
      apps = await startApps(
        cluster.nodes.map(({ dataSource: node }, index) => ({
          platform: index % 2 ? 'fastify' : 'express',
          dataSource: node,
          hasSlowClock: true,
          // All background writes happen frequently.
          visits: { touch: { interval: 200, resolution: 1 } },
        })),
      );
    });
    afterAll(async () => {
      await Promise.all(apps.map((app) => app.end('SIGKILL')));
      await dataSource?.destroy();
      await cluster?.stop();
    });

    const conflicts = async (): Promise<number> => {
      const counts = await Promise.all(CONFLICTS.map((counter) => cluster.sum(counter)));
      return counts.reduce((total, count) => total + count, 0);
    };

    /** Visits that live with a sign-in from before the moment when all visits of their user were ended. */
    const survivors = (): Promise<unknown[]> =>
      cluster.nodes[0]!.ask(`SELECT v.id, i.user_id FROM visit v
      JOIN visit_identity i ON i.visit_id = v.id
      JOIN visit_revocation r ON r.user_hash = CONVERT(SHA2(i.user_id, 256) USING ascii)
      WHERE v.ended_at IS NULL AND i.authenticated_at <= r.ended_at`);

    /** Clients that send their requests to one node after the other, each beginning with another one. */
    const aroundTheCluster = (count: number): Visitor[] =>
      Array.from({ length: count }, (_, i) => {
        let turn = i;
        return new Visitor(() => apps[turn++ % apps.length]!.address);
      });

    test('B14, R51: a counter of 5 clients × 30 requests over three nodes ends at 151', async () => {
      const clients = aroundTheCluster(5);
      const { given } = await clients[0]!.post('/add');
      for (const client of clients) client.key = given!;
      const values: number[] = [];
      await Promise.all(
        clients.map(async (client) => {
          for (let request = 0; request < 30; request++) {
            const { status, body, text } = await client.post('/add');
            expect(status, text).toBe(201);
            values.push(body!['value'] as number);
          }
        }),
      );
      expect(values.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 150 }, (_, i) => i + 2));
      expect((await dice.pick(clients).get('/data')).body).toMatchObject({ data: { n: 151 } });
    });

    test('B21, B36: transactions that other nodes refuse are retried without an error', async () => {
      const before = await conflicts();
      const rounds = isSoak ? 25 : 10;
      for (let round = 0; round < rounds; round++) {
        const clients = aroundTheCluster(3);
        const { given } = await clients[0]!.post('/add');
        for (const client of clients) client.key = given!;
        const writes = await Promise.all([
          ...clients.map((client) => client.post('/add')),
          ...clients.map((client, index) => client.post('/set', { key: `of ${index}`, value: round })),
        ]);
        for (const { status, text } of writes) expect(status, text).toBe(201);
        const { body } = await clients[1]!.get('/data');
        expect(body).toMatchObject({ data: { n: 4, 'of 0': round, 'of 1': round, 'of 2': round } });
        // A transaction of two statements.
        const logins = await Promise.all(clients.map((client) => client.post('/login', { user: 'somebody' })));
        for (const { status, text } of logins) expect(status, text).toBe(201);
        for (const client of clients) expect((await client.get('/who')).body).toMatchObject({ user: 'somebody' });
      }
      const seen = (await conflicts()) - before;
      expect(seen).toBeGreaterThan(0);
      console.log(`galera: ${seen} conflicts in ${rounds} rounds`);
    });

    test('B1, B3, R31: writes acknowledged by one node are visible on the next, however late it is', async () => {
      let turn = 0;
      const [newcomer, writer, user, leaver] = Array.from(
        { length: 4 },
        () => new Visitor(() => apps[turn]!.address),
      ) as [Visitor, Visitor, Visitor, Visitor];
      for (const visitor of [writer, user, leaver]) await visitor.post('/login', { user: 'somebody' });
      const node = await cluster.nodes[1]!.fallBehind();
      let replies;
      try {
        await newcomer.post('/set', { key: 'x', value: 1 });
        await writer.post('/set', { key: 'x', value: 1 });
        await user.post('/login', { user: 'somebody' });
        const { key } = leaver;
        await leaver.post('/logout');
        leaver.key = key;
        expect(await node.ask(`SELECT id FROM visit WHERE id = '${idOf(newcomer.key!)}'`)).toEqual([]);
        turn = 1;
        replies = Promise.all([newcomer.get('/data'), writer.post('/add'), user.get('/who'), leaver.get('/who')]);
        // Long enough for them to arrive there; otherwise, the test proves less.
        await pause(300);
      } finally {
        await node.catchUp();
      }
      const [known, counted, recognized, gone] = await replies;
      expect(known).toMatchObject({ status: 200, given: undefined, body: { id: idOf(newcomer.key!), data: { x: 1 } } });
      expect(counted).toMatchObject({ status: 201, given: undefined, body: { value: 1 } });
      expect((await writer.get('/data')).body).toMatchObject({ user: 'somebody', data: { x: 1, n: 1 } });
      expect(recognized).toMatchObject({
        status: 200,
        given: undefined,
        body: { id: idOf(user.key!), user: 'somebody' },
      });
      expect(gone).toMatchObject({ status: 200, body: { user: null } });
      expect(gone.body!['id']).not.toBe(idOf(leaver.key!));
    });

    test('B7: no sign-in on one node survives when another node ends all visits of the user', async () => {
      const refused = new Map<unknown, number>();
      for (let round = 0; round < (isSoak ? 40 : 15); round++) {
        const user = `leaves in round ${round}`;
        const visitors = aroundTheCluster(4);
        await Promise.all(visitors.map((visitor) => visitor.post('/add')));
        const replies = await Promise.all(
          visitors.map(async (visitor, index) => {
            await pause(dice.below(10));
            return index < 3 ? visitor.post('/login', { user }) : visitor.post('/end-all', { user });
          }),
        );
        for (const { status, text, body } of replies) {
          expect([201, 409], text).toContain(status);
          if (status !== 201) refused.set(body!['code'], (refused.get(body!['code']) ?? 0) + 1);
        }
      }
      console.log(`galera: refused were ${JSON.stringify([...refused])}`);
      expect(await survivors()).toEqual([]);
    });

    test(`R31, R51, B1, B8, B17: ${VISITORS} browsers with random requests for ${SECONDS} s lose nothing`, async () => {
      const before = await conflicts();
      const books = new Books();
      const visitors = Array.from({ length: VISITORS }, () => new Visitor(() => dice.pick(apps).address));
      const others = { books, dice, someone: () => dice.pick(visitors) };
      const all = habits.flatMap((habit) => Array<typeof habit>(habit.often).fill(habit));
      const known = new Set((await dataSource.getRepository(Visit).find()).map(({ id }) => id));
      const until = performance.now() + SECONDS * 1000;
      await Promise.all(
        visitors.map(async (visitor) => {
          while (performance.now() < until && books.complaints.length === 0) {
            // Browsers load a page before they submit its forms. Without this, the first four requests would create four
            // visits.
            if (visitor.key === null) await books.add(visitor);
            await Promise.all(
              dice
                .pick(all)
                .act(visitor, others)
                .map((request) => request()),
            );
            await pause(dice.below(2 * THINKING));
          }
        }),
      );

      const rows = (await dataSource.getRepository(Visit).find()).filter(({ id }) => !known.has(id));
      const ends = (await Promise.all(apps.map((app) => app.tell<{ id: string; reason: string }[]>('/ends')))).flat();
      const announced = ends.filter(({ id }) => !known.has(id));
      await books.close({ visitors, rows, announced, addressOf: () => dice.pick(apps).address });
      expect(books.complaints, `VISIT_TEST_SEED=${SEED}`).toEqual([]);
      expect(await survivors()).toEqual([]);
      console.log(`galera: ${books.summary}, ${(await conflicts()) - before} conflicts`);
    });

    test('B18, B19, R31: a node is killed: the others keep all acknowledged writes, and it rejoins', async () => {
      const [first, second, third] = cluster.nodes;
      // As a load balancer does.
      const inUse = [...apps];
      const load = await new Load(inUse).begin();
      try {
        await load.thrives(2);
        await third!.kill();
        await load.suffers(10);
        // It removes an application that is not ready; the others wait until the remaining nodes have agreed that they
        // are the cluster.
        const [cutOff] = inUse.splice(2);
        await Promise.all([first!.isMemberOf(2), second!.isMemberOf(2)]);
        await load.thrives(2);
        const failures = load.failures;
        await load.thrives();
        expect(load.failures).toBe(failures);

        await third!.restart();
        await third!.isMemberOf(3);
        inUse.push(cutOff!);
        await load.thrives();
      } finally {
        await load.finish();
      }
      // Each node has all data.
      for (const app of apps) {
        inUse.splice(0, inUse.length, app);
        await load.settle();
      }
      console.log(`galera: ${load.failures} requests failed while a node was away`);
    });
  });
});
