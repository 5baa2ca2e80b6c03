import { setTimeout as pause } from 'node:timers/promises';
import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startApps, type AppProcess } from './app-process.js';
import { Books } from './books.js';
import { describeServerOfToday } from './servers.js';
import { openMigrated } from '../support/open-migrated.js';
import { isSoak } from '../support/soak.js';
import { Dice, SEED, Visitor } from './visitor.js';

const VISITORS = isSoak ? 240 : 120;
const SECONDS = isSoak ? 90 : 4;
/** The pause between the actions of a visitor. */
const THINKING = 60;
const USERS = Array.from({ length: VISITORS / 2 }, (_, i) => `user ${i}`);

/** The actions of visitors and their frequency. Requests of one line are in flight at the same time. */
const habits: readonly { often: number; act: (visitor: Visitor, others: Others) => Promise<void> }[] = [
  { often: 40, act: async (visitor, { books, dice }) => several(dice, () => books.add(visitor)) },
  { often: 12, act: async (visitor, { books }) => together(...KEYS.map((key) => () => books.set(visitor, key))) },
  {
    often: 10,
    act: async (visitor, { books }) => {
      const token = await books.leaveToken(visitor);
      await together(...[1, 2, 3].map(() => () => books.take(visitor, token)));
    },
  },
  { often: 8, act: async (visitor, { books }) => books.who(visitor) },
  { often: 8, act: async (visitor, { books, dice }) => books.login(visitor, dice.pick(USERS)) },
  {
    often: 4,
    act: async (visitor, { books, dice }) => {
      const user = dice.pick(USERS);
      await together(
        () => books.add(visitor),
        () => books.login(visitor, user),
        () => books.add(visitor),
        () => books.set(visitor, KEYS[0]!),
      );
    },
  },
  {
    often: 2,
    act: async (visitor, { books, dice }) => {
      const user = dice.pick(USERS);
      await together(
        () => books.login(visitor, user),
        () => books.login(visitor, user),
      );
    },
  },
  {
    often: 4,
    act: async (visitor, { books, dice }) => {
      const keepVisit = dice.roll() < 0.5;
      await together(
        () => books.add(visitor),
        () => books.logout(visitor, keepVisit),
        () => books.add(visitor),
      );
    },
  },
  {
    often: 4,
    act: async (visitor, { books }) =>
      together(
        () => books.add(visitor),
        () => books.renew(visitor),
        () => books.set(visitor, KEYS[1]!),
        () => books.add(visitor),
      ),
  },
  { often: 4, act: async (visitor, others) => others.books.endOther(visitor, others.someone()) },
  { often: 1, act: async (visitor, { books, dice }) => books.endAll(visitor, dice.pick(USERS)) },
];

const KEYS = ['a', 'b', 'c'];

interface Others {
  readonly books: Books;
  readonly dice: Dice;
  someone(): Visitor;
}

async function together(...requests: (() => Promise<unknown>)[]): Promise<void> {
  await Promise.all(requests.map((request) => request()));
}

const several = (dice: Dice, request: () => Promise<unknown>): Promise<void> =>
  together(...Array.from({ length: 1 + dice.below(4) }, () => request));

describeServerOfToday('Four processes', (db) => {
  let dataSource: DataSource;
  let apps: AppProcess[] = [];

  beforeAll(async () => {
    const { options } = await db.open();
    dataSource = await openMigrated(options);
    apps = await startApps(
      (['express', 'fastify', 'express', 'fastify'] as const).map((platform) => ({
        platform,
        dataSource: options,
        hasSlowClock: true,
        // All background writes happen frequently.
        visits: { touch: { interval: 200, resolution: 1 } },
      })),
    );
  });
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.end('SIGKILL')));
    await dataSource?.destroy();
  });

  test(`R31, R51, B1, B8, B17: ${VISITORS} browsers with random requests for ${SECONDS} s lose nothing`, async () => {
    const dice = new Dice(SEED);
    const books = new Books();
    const visitors = Array.from({ length: VISITORS }, () => new Visitor(() => dice.pick(apps).address));
    const all = habits.flatMap((habit) => Array<typeof habit>(habit.often).fill(habit));
    const until = performance.now() + SECONDS * 1000;
    await Promise.all(
      visitors.map(async (visitor) => {
        while (performance.now() < until && books.complaints.length === 0) {
          // Browsers load a page before they submit its forms. Without this, the first four requests would create four
          // visits.
          if (visitor.key === null) await books.add(visitor);
          await dice.pick(all).act(visitor, { books, dice, someone: () => dice.pick(visitors) });
          // Users pause to read; requests without pauses are part of the load tests.
          await pause(dice.below(2 * THINKING));
        }
      }),
    );

    const rows = await dataSource.getRepository(Visit).find();
    const announced = (
      await Promise.all(apps.map((app) => app.tell<{ id: string; reason: string }[]>('/ends')))
    ).flat();
    await books.close({ visitors, rows, announced, addressOf: () => dice.pick(apps).address });
    expect(books.complaints, `VISIT_TEST_SEED=${SEED}`).toEqual([]);
    console.log(`${db.name}: ${books.summary}`);
  });

  test.each([
    ['by update()', '/add'],
    ['by get() and set() with exclusive access', '/add-plainly'],
  ])('B14, R51, R52: a counter of 5 clients × 30 requests ends at 151 %s', async (_how, path) => {
    const dice = new Dice(SEED);
    const clients = Array.from({ length: 5 }, (_, i) => {
      let turn = i;
      return new Visitor(() => apps[turn++ % apps.length]!.address);
    });
    const { given } = await clients[0]!.post(path);
    for (const client of clients) client.key = given!;
    const values: unknown[] = [];
    await Promise.all(
      clients.map(async (client) => {
        for (let request = 0; request < 30; request++) {
          const { status, body, text } = await client.post(path);
          expect(status, text).toBe(201);
          values.push(body!['value']);
        }
      }),
    );
    expect(values.toSorted((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 150 }, (_, i) => i + 2));
    expect((await dice.pick(clients).get('/data')).body).toMatchObject({ data: { n: 151 } });
  });
});
