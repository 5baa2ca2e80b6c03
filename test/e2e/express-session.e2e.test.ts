import { EventEmitter } from 'node:events';
import { MemoryVisitStore, type VisitStore } from 'nest-visit';
import { visitSessionStore, type VisitSessionStore } from 'nest-visit/express-session';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { created } from 'nest-visit/store-kit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeDatabases } from '../support/databases.js';
import { ManualClock } from '../support/manual-clock.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { WatchedStore } from '../support/watched-store.js';

class Base extends EventEmitter {
  readonly isOfTheirs = true;
}

/** The same calls with promises. A second call of a callback is an error. */
function promised(store: VisitSessionStore) {
  const ask = <T>(call: (callback: (error: unknown, value?: T) => void) => void): Promise<T> =>
    new Promise((resolve, reject) => {
      let isCalled = false;
      call((error, value) => {
        expect(isCalled).toBe(false);
        isCalled = true;
        if (error) reject(error);
        else resolve(value as T);
      });
      expect(isCalled, 'called before the call has returned').toBe(false);
    });
  return {
    get: (id: string) => ask<Record<string, any> | null>((callback) => store.get(id, callback)),
    set: (id: string, session: object) => ask<void>((callback) => store.set(id, session, callback)),
    destroy: (id: string) => ask<void>((callback) => store.destroy(id, callback)),
    touch: (id: string, session: object) => ask<void>((callback) => store.touch(id, session, callback)),
    all: () => ask<Record<string, any>[]>((callback) => store.all(callback)),
    length: () => ask<number>((callback) => store.length(callback)),
    clear: () => ask<void>((callback) => store.clear(callback)),
  };
}

const clock = new ManualClock();
const cookie = { originalMaxAge: null, expires: null, path: '/' };
const lasting = (ms: number) => ({ cookie: { ...cookie, originalMaxAge: ms, expires: new Date(clock.now() + ms) } });
let ids = 0;
const newId = (): string => `random-${++ids}`;
const on = (store: VisitStore) =>
  promised(visitSessionStore(Base, { store, clock, timeout: '1h', storeTimeout: PATIENCE }));

function suite(open: () => VisitStore): void {
  let store: VisitStore;
  let sessions: ReturnType<typeof promised>;
  beforeAll(() => {
    store = open();
    sessions = on(store);
  });

  test('returns what was set, as JSON, and null for unknown ids', async () => {
    const id = newId();
    expect(await sessions.get(id)).toBe(null);
    await sessions.set(id, { cookie, cart: ['one'], at: new Date(0), gone: undefined });
    expect(await sessions.get(id)).toEqual({ cookie, cart: ['one'], at: '1970-01-01T00:00:00.000Z' });
    await sessions.set(id, { cookie, cart: [] });
    expect(await sessions.get(id)).toEqual({ cookie, cart: [] });
    await sessions.set(id, { plain: true });
    expect(await sessions.get(id)).toEqual({ plain: true });
  });

  test('a destroyed session never comes back, even if it is saved or touched later', async () => {
    const id = newId();
    await sessions.set(id, { cookie, user: 'ann' });
    await sessions.destroy(id);
    await Promise.all([sessions.set(id, { cookie, user: 'ann' }), sessions.touch(id, { cookie })]);
    expect(await sessions.get(id)).toBe(null);
    await sessions.destroy(id);
    await sessions.destroy(newId());
  });

  test('a session lives as long as its cookie or the option says; touches and shorter lifetimes count', async () => {
    const [plain, short, touched, shortened] = [newId(), newId(), newId(), newId()];
    await sessions.set(plain, { cookie });
    await sessions.set(short, { ...lasting(60_000) });
    await sessions.set(touched, { ...lasting(60_000) });
    await sessions.set(shortened, { ...lasting(86_400_000) });
    clock.advance(50_000);
    const after = lasting(60_000);
    await sessions.touch(touched, after);
    await sessions.set(shortened, { ...lasting(5000) });
    expect((await sessions.get(touched))!['cookie'].expires).toEqual(after.cookie.expires);
    clock.advance(20_000);
    const live = async (id: string): Promise<boolean> => (await sessions.get(id)) !== null;
    expect([await live(plain), await live(short), await live(touched), await live(shortened)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    await sessions.set(short, { ...lasting(60_000) });
    await sessions.touch(short, { ...lasting(60_000) });
    expect(await live(short)).toBe(false);
    clock.advance(3_600_000);
    expect(await live(plain)).toBe(false);
  });

  test('the last of concurrent set() calls wins, also for a new session', async () => {
    const id = newId();
    for (const round of [1, 2]) {
      await Promise.all(
        Array.from({ length: 8 }, (_, index) => sessions.set(id, { cookie, value: `${round} ${index}` })),
      );
      expect((await sessions.get(id))!['value']).toBe(`${round} 7`);
    }
    const other = on(store);
    await Promise.all(
      Array.from({ length: 8 }, (_, index) => (index % 2 ? other : sessions).set(id, { cookie, value: index })),
    );
    expect((await sessions.get(id))!['value']).toBeGreaterThanOrEqual(0);
  });

  test('all, length and clear apply only to these sessions', async () => {
    await sessions.clear();
    const now = clock.now();
    const visit = created({ id: 'a'.repeat(32), keyHash: 'b'.repeat(64), created: now, expiry: now + 3_600_000 });
    await store.create([visit]);
    await sessions.set(newId(), { cookie, name: 'one' });
    await sessions.set(newId(), { cookie, name: 'two' });
    expect((await sessions.all()).map(({ name }) => name as string).sort((a, b) => (a < b ? -1 : 1))).toEqual([
      'one',
      'two',
    ]);
    expect(await sessions.length()).toBe(2);
    await sessions.clear();
    expect([await sessions.length(), (await store.find([visit.id]))[0]?.endedAt]).toEqual([0, null]);
  });

  test('session ids are not stored', async () => {
    const id = newId();
    await sessions.set(id, { cookie });
    const { visits } = await store.pages!.liveVisits({ after: '', limit: 100, now: clock.now() });
    expect(visits.length).toBeGreaterThan(0);
    expect(JSON.stringify(visits)).not.toContain(id);
  });
}

describe('Sessions of express-session in memory', () => {
  suite(() => new MemoryVisitStore());
});

describeDatabases('Sessions of express-session', (db) => {
  let dataSource: Awaited<ReturnType<typeof openMigrated>>;
  beforeAll(async () => {
    dataSource = await openMigrated((await db.open()).options);
  });
  afterAll(() => dataSource?.destroy());
  suite(() => new TypeOrmVisitStore(dataSource));
});

describe('A store for express-session', () => {
  test('is a Store of express-session', () => {
    const store = visitSessionStore(Base, { store: new MemoryVisitStore() });
    expect([store instanceof Base, store.isOfTheirs, typeof store.on]).toEqual([true, true, 'function']);
  });

  test('requires a store of visits, and valid durations', () => {
    const sealed = new SealedCookieVisitStore({ secrets: [Buffer.alloc(32, 1).toString('base64')] });
    const invalid = expect.objectContaining({ code: 'VISIT_OPTION' }) as Error;
    const store = new MemoryVisitStore();
    for (const options of [
      { store: sealed },
      {},
      { store: {} },
      { store, timeout: 'soon' },
      { store, timeout: '36501d' },
      // A timer of Node would end such a wait at once.
      { store, storeTimeout: 2 ** 31 },
    ])
      expect(() => visitSessionStore(Base, options as never)).toThrow(invalid);
    expect(() => visitSessionStore(Base, { store, timeout: '36500d', storeTimeout: 2 ** 31 - 1 })).not.toThrow();
  });

  test('passes errors to the callback, and throws none without a callback', async () => {
    const watched = new WatchedStore();
    const store = visitSessionStore(Base, { store: watched.store, clock, storeTimeout: PATIENCE });
    const sessions = promised(store);
    await sessions.set('a', { cookie });
    watched.away();
    store.set('a', { cookie });
    store.destroy('a');
    const away = { status: 'rejected', reason: { code: 'VISIT_STORE_UNAVAILABLE' } };
    const calls = [
      sessions.get('a'),
      sessions.set('a', { cookie }),
      sessions.destroy('a'),
      sessions.touch('a', { cookie }),
      sessions.all(),
    ];
    expect(await Promise.allSettled(calls)).toMatchObject(calls.map(() => away));
    watched.pass();
    const endless: Record<string, unknown> = { cookie };
    endless['self'] = endless;
    await expect(sessions.set('a', endless)).rejects.toMatchObject({ code: 'SESSION_VALUE' });
    expect(await sessions.get('a')).toEqual({ cookie });
  });
});
