import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { MemoryVisitStore, VisitPlugin, VisitService, VisitStore, type EndedVisit } from 'nest-visit';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { created } from '../../lib/store/visit.record.js';
import { newHash, newId } from '../../lib/testing/samples.js';
import { describeStacks, startApp } from '../support/app.js';
import { InlineApp } from '../support/inline-handlers.js';
import { PATIENCE } from '../support/patience.js';
import { isSoak } from '../support/soak.js';
import { WatchedStore } from '../support/watched-store.js';

/** Of one user: several batches, the last of which has a single visit. */
const MANY = isSoak ? 10_000 : 1_001;
const BATCH = 500;

const told: string[] = [];
const hook: { fails?: string | undefined } = {};

@VisitPlugin({ onError: 'throw' })
class Listener {
  onVisitEnded({ id }: EndedVisit): void {
    told.push(id);
    if (hook.fails === id) throw new Error('a plugin fails');
  }
}

beforeEach(() => {
  told.length = 0;
  hook.fails = undefined;
});

/** Visits of a user, each used later than the one before. */
async function make(store: VisitStore, userId: string, count: number, now = Date.now()): Promise<string[]> {
  const visits = Array.from({ length: count }, (_, index) => {
    const identity = { userId, created: now, authenticatedAt: now };
    return created({
      id: newId(),
      keyHash: newHash(),
      created: now,
      accessed: now + index,
      expiry: now + 9e8,
      identity,
    });
  });
  for (let done = 0; done < count; done += BATCH) await store.create(visits.slice(done, done + BATCH));
  return visits.map(({ id }) => id);
}

describeStacks('Many visits of a user', (stack) => {
  test('R42: end by a few statements for each batch, and plugins are called once for each visit', async () => {
    const app = await stack.start({ providers: [Listener] });
    const [visits, store] = [app.app.get(VisitService), app.app.get(VisitStore)];
    const user = randomUUID();
    const ids = await make(store, user, MANY, stack.clock.now());
    const [others] = await make(store, randomUUID(), 1, stack.clock.now());
    const statements = await stack.statements(async () =>
      expect(await visits.endAllForUser(user, 'disabled')).toBe(MANY),
    );
    // Remember, look, and for each batch an UPDATE, which may be a transaction.
    expect(statements.length).toBeLessThanOrEqual(2 + 4 * Math.ceil(MANY / BATCH));
    expect(told.toSorted()).toEqual(ids.toSorted());
    expect(await visits.listForUser(user)).toEqual([]);
    expect(await visits.find(others!)).toMatchObject({ endedAt: null });
    expect(await visits.endAllForUser(user)).toBe(0);
  });

  test('R42: are listed in pages, of a thousand by default', async () => {
    const app = await stack.start({ providers: [Listener] });
    const visits = app.app.get(VisitService);
    const user = randomUUID();
    const newestFirst = (await make(app.app.get(VisitStore), user, 1_100, stack.clock.now())).toReversed();
    const ids = (list: readonly { id: string }[]): string[] => list.map(({ id }) => id);
    expect(ids(await visits.listForUser(user))).toEqual(newestFirst.slice(0, 1000));
    expect(ids(await visits.listForUser(user, { limit: 2000 }))).toEqual(newestFirst);
    const page = await visits.listForUser(user, { limit: 700 });
    expect(ids(page)).toEqual(newestFirst.slice(0, 700));
    const { id, accessed } = page.at(-1)!;
    expect(ids(await visits.listForUser(user, { limit: 700, after: { id, accessed } }))).toEqual(
      newestFirst.slice(700),
    );
    await visits.endAllForUser(user);
  });

  test('R43, ASVS 7.1.2: end at a sign-in beyond the default limit of a thousand, the oldest first', async () => {
    const app = await stack.start({ providers: [Listener] });
    const [visits, store] = [app.app.get(VisitService), app.app.get(VisitStore)];
    const user = randomUUID();
    const [older, newer] = [
      await make(store, user, 600, stack.clock.now()),
      await make(store, user, 999, stack.clock.now() + 1),
    ];
    stack.clock.advance(1000);
    const { visit } = await visits.create({ userId: user });
    expect(told.toSorted()).toEqual(older.toSorted());
    const left = (await visits.listForUser(user, { limit: 2000 })).map(({ id }) => id);
    expect(left.toSorted()).toEqual([...newer, visit.id].toSorted());
    await visits.endAllForUser(user);
  });
});

test.each([
  { what: 'by default', identity: undefined, atSignIn: 1 },
  { what: 'without a bound', identity: { maxVisitsPerUser: false }, atSignIn: 0 },
] as const)(
  'R43: $what, a sign-in counts visits $atSignIn times, and other requests do not',
  async ({ identity, atSignIn }) => {
    const watched = new WatchedStore();
    const app = await InlineApp.start('express', { store: watched.store, identity });
    onTestFinished(() => app.running.close());
    const counted = (): number => watched.calls.filter((method) => method === 'listForUser').length;
    const browser = app.browser();
    await app.ask(browser, ({ identity: own }) => own.login('ann'));
    expect(counted()).toBe(atSignIn);
    await app.ask(browser, ({ session }) => void (session['cart'] = 1));
    await app.ask(browser, ({ identity: own }) => own.logout({ keepVisit: true }));
    expect(counted()).toBe(atSignIn);
  },
);

test('R43: if visits cannot be listed, there is no limit by default', async () => {
  const store = Object.assign(new MemoryVisitStore(), { users: undefined });
  const app = await startApp('express', { store }, {});
  onTestFinished(() => app.close());
  const visits = app.app.get(VisitService);
  await expect(visits.create({ userId: 'ann' })).resolves.toBeDefined();
  expect(visits.describePolicy().maxVisitsPerUser).toBeNull();
});

test.each([
  { limit: 0 },
  { limit: 1.5 },
  { after: { id: 'x', accessed: new Date() } },
  { after: { id: newId(), accessed: 5 as never } },
])('R42: a list with %j is refused', async (options) => {
  const app = await startApp('express', { store: new MemoryVisitStore() }, {});
  onTestFinished(() => app.close());
  await expect(app.app.get(VisitService).listForUser('ann', options)).rejects.toMatchObject({ code: 'VISIT_OPTION' });
});

describe.each(['endAllForUser', 'endAll'] as const)('Ending many visits with %s', (method) => {
  const USER = 'ann';
  const end = (visits: VisitService): Promise<number> =>
    method === 'endAll' ? visits.endAll() : visits.endAllForUser(USER);

  async function start(storeTimeout: number) {
    const watched = new WatchedStore();
    const app = await InlineApp.start('express', { store: watched.store, storeTimeout }, { providers: [Listener] });
    onTestFinished(() => app.close());
    const ids = await make(watched.inner, USER, MANY);
    const left = async (): Promise<number> =>
      (await watched.inner.find(ids)).filter((visit) => visit?.endedAt === null).length;
    /** The batch with this number waits for `release`. */
    const holdBatch = (number: number) => {
      const { held, release } = watched.hold(method);
      const { around } = watched;
      let calls = 0;
      watched.around = (call, go) => (call.method === method && ++calls === number ? around(call, go) : go());
      return { held, release };
    };
    return { app, watched, ids, left, holdBatch, visits: app.running.app.get(VisitService) };
  }

  const expectAllTold = async (ids: readonly string[]): Promise<void> => {
    if (method === 'endAllForUser')
      await expect.poll(() => told.toSorted(), { timeout: PATIENCE }).toEqual(ids.toSorted());
  };

  test.each([1, 2])('R42: continues if batch %d takes longer than the caller’s deadline', async (number) => {
    const { visits, ids, left, holdBatch } = await start(50);
    const { held, release } = holdBatch(number);
    await expect(end(visits)).rejects.toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    await held;
    expect(await left()).toBe(MANY - (number - 1) * BATCH);
    release();
    await expect.poll(left, { timeout: PATIENCE }).toBe(0);
    await expectAllTold(ids);
  });

  test('R42: continues when the request that started it has ended', async () => {
    const { app, ids, left, holdBatch } = await start(PATIENCE);
    const { held, release } = holdBatch(2);
    const gone = new AbortController();
    let closed!: Promise<unknown>;
    const path = app.path(({ visits, raw }) => {
      closed = once(raw, 'close');
      return end(visits);
    });
    const answer = fetch(app.running.address + path, { signal: gone.signal }).catch(() => undefined);
    await held;
    gone.abort();
    await answer;
    await closed;
    release();
    await expect.poll(left, { timeout: PATIENCE }).toBe(0);
    await expectAllTold(ids);
  });

  test('R42: a failed batch is retried if an earlier one has ended visits; otherwise nothing has changed', async () => {
    const { visits, watched, ids, left } = await start(PATIENCE);
    const failAt = (number: number): void => {
      let calls = 0;
      watched.around = async (call, go) => {
        if (call.method === method && ++calls === number) throw new Error('the connection is gone');
        return go();
      };
    };
    failAt(1);
    await expect(end(visits)).rejects.toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    expect(await left()).toBe(MANY);
    failAt(2);
    await expect(end(visits)).rejects.toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    await expect.poll(left, { timeout: PATIENCE }).toBe(0);
    await expectAllTold(ids);
  });
});

test('R42: a plugin that fails for one of many stops neither the end nor the other calls', async () => {
  const store = new MemoryVisitStore();
  const app = await startApp('express', { store }, { providers: [Listener] });
  onTestFinished(() => app.close());
  const ids = await make(store, 'ann', MANY);
  hook.fails = ids[3];
  await expect(app.app.get(VisitService).endAllForUser('ann')).rejects.toThrow('a plugin fails');
  expect(told).toHaveLength(MANY);
  expect(await app.app.get(VisitService).listForUser('ann')).toEqual([]);
});
