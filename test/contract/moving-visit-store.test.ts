import { Controller, Get, Param, Post } from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  MovingVisitStore,
  Session,
  type VisitRecord,
  type VisitStore,
} from 'nest-visit';
import { TypeOrmVisitStore } from 'nest-visit/typeorm';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { RedisVisitStore } from 'nest-visit/redis';
import { describeVisitStore } from 'nest-visit/testing';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytes, identityOf, newVisit, NOW, rekeyOf, saveOf, textOf } from '../../lib/testing/samples.js';
import { platforms, startApp, type PlatformName, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { openDatabase, type DatabaseName } from '../support/databases.js';
import { describeWith, redisClusterUrls, redisUrl, type Need } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { openPrisma } from '../support/prisma-client.mjs';
import { uniquePrefix } from '../support/redis.js';
import { isSoak } from '../support/soak.js';
import { isForToday } from '../support/today.js';
import { endAllOf, listAll } from '../../lib/testing/many.js';

const clock = { now: () => NOW };

/** Two of them may stand for the same memory. */
class SharedStore extends MemoryVisitStore {
  override readonly capabilities = { ...new MemoryVisitStore().capabilities, shared: true };
}

describeVisitStore(
  'A store that moves',
  () => {
    const stores = { from: new SharedStore(), to: new SharedStore(), clock };
    return { store: new MovingVisitStore(stores), second: new MovingVisitStore(stores) };
  },
  { runner: { describe, test } },
);

describeVisitStore(
  'A store that is about to move',
  () => {
    const stores = { from: new SharedStore(), to: new SharedStore(), moves: false, clock };
    return { store: new MovingVisitStore(stores), second: new MovingVisitStore(stores) };
  },
  { runner: { describe, test } },
);

/** Runs `then` once, after the named method of the store has been called and before its caller goes on. */
function after(store: VisitStore, method: 'save' | 'create' | 'end' | 'find', then: () => Promise<unknown>): void {
  const original = store[method].bind(store) as (...args: unknown[]) => Promise<unknown>;
  Object.defineProperty(store, method, {
    configurable: true,
    value: async (...args: unknown[]) => {
      delete (store as unknown as Record<string, unknown>)[method];
      const result = await original(...args);
      await then();
      return result;
    },
  });
}

describe('A visit that moves', () => {
  const set = async (given: Partial<VisitRecord> = {}) => {
    const [from, to] = [new MemoryVisitStore(), new MemoryVisitStore()];
    const [moving, waiting] = [true, false].map((moves) => new MovingVisitStore({ from, to, moves, clock })) as [
      MovingVisitStore,
      MovingVisitStore,
    ];
    const visit = newVisit({ sessionData: bytes('old'), identity: identityOf('ann'), ...given });
    await from.create([visit]);
    const find = async (store: VisitStore): Promise<VisitRecord | null> => (await store.find([visit.id]))[0] ?? null;
    return { from, to, moving, waiting, visit, find };
  };

  test('keeps all its data, and has ended in the old store', async () => {
    const { from, to, moving, visit, find } = await set({ absoluteExpiry: NOW + 9_000_000, permanent: true });
    await from.rekey([rekeyOf(visit, { previousKeyUntil: NOW + 30_000 })]);
    const before = (await find(from))!;
    const moved = await find(moving);
    expect(moved).toEqual({ ...before, sessionVersion: before.sessionVersion + 1 });
    expect(await find(to)).toEqual(moved);
    expect(await find(from)).toMatchObject({ endedAt: NOW, endReason: 'moved', sessionData: null });
  });

  test('stays in the old store while other processes use only that; then all find it', async () => {
    const { from, to, moving, waiting, visit, find } = await set();
    expect(await find(waiting)).toMatchObject({ sessionVersion: 0 });
    expect(await waiting.save([saveOf(visit, { data: bytes('new') })])).toEqual([{ outcome: 'saved', version: 1 }]);
    expect(textOf((await find(from))!)).toBe('new');
    await find(moving);
    expect(textOf((await find(waiting))!)).toBe('new');
    expect(await waiting.save([saveOf(visit, { data: bytes('newer'), version: 2 })])).toEqual([
      { outcome: 'saved', version: 3 },
    ]);
    expect(textOf((await find(to))!)).toBe('newer');
  });

  test('is not one that has expired or ended', async () => {
    const { from, to, moving, find } = await set({ expiry: NOW - 1 });
    expect(await find(moving)).toMatchObject({ endedAt: null, expiry: NOW - 1 });
    expect(await find(to)).toBeNull();
    const other = newVisit();
    await from.create([other]);
    await from.end([other.id], { reason: 'logout', at: NOW });
    expect((await moving.find([other.id]))[0]).toMatchObject({ endReason: 'logout' });
  });

  test('loses no save at any step', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      for (const who of ['waiting', 'moving'] as const) {
        const { from, to, visit, find, ...stores } = await set();
        let saved: unknown;
        after(method === 'create' ? to : from, method, async () => {
          for (let version = 0; ;) {
            const [result] = await stores[who].save([saveOf(visit, { data: bytes('new'), version })]);
            saved = result!.outcome;
            if (result!.outcome !== 'conflict') break;
            version = result!.version;
          }
        });
        await find(stores.moving);
        expect(saved, `${who} after ${method}`).toBe('saved');
        expect(textOf((await find(stores.moving))!), `${who} after ${method}`).toBe('new');
        expect((await find(from))?.endReason, `${who} after ${method}`).toBe('moved');
      }
    }
  });

  test('does not come back if it ends at any step', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      const { from, to, moving, waiting, visit, find } = await set();
      after(method === 'create' ? to : from, method, () =>
        waiting.end([visit.id], { reason: 'logout', at: NOW + 5, retiresKey: true }),
      );
      await find(moving);
      expect(await find(moving), method).toMatchObject({
        endedAt: NOW + 5,
        endReason: 'logout',
        keyChanged: NOW + 5,
        previousKeyUntil: NOW + 5,
      });
    }
  });

  test('does not come back if all visits of its user end at any step', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      const { from, to, moving, waiting, find } = await set();
      after(method === 'create' ? to : from, method, () =>
        endAllOf(waiting, 'ann', { reason: 'revoked', at: NOW + 5 }),
      );
      await find(moving);
      expect(await find(moving), method).toMatchObject({ endedAt: NOW + 5, endReason: 'revoked' });
      expect(await moving.revokedAt('ann')).toBe(NOW + 5);
    }
  });

  test('keeps a new key and a new user, at any step', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      const { from, to, moving, waiting, visit, find } = await set({ identity: null });
      const change = rekeyOf(visit, { identity: identityOf('bob'), expiry: NOW + 9_000_000 });
      let done: unknown;
      after(method === 'create' ? to : from, method, async () => {
        [done] = await waiting.rekey([change]);
      });
      await find(moving);
      expect(done, method).toEqual({ outcome: 'done' });
      const { keyHash, previousKeyHash, previousKeyUntil, identity, expiry } = (await find(moving))!;
      expect({ keyHash, previousKeyHash, previousKeyUntil, identity, expiry }, method).toEqual({
        keyHash: change.newKeyHash,
        previousKeyHash: visit.keyHash,
        previousKeyUntil: null,
        identity: identityOf('bob'),
        expiry: NOW + 9_000_000,
      });
    }
  });

  test('is completed by the next process if the one that moves it dies', async () => {
    for (const method of ['save', 'end'] as const) {
      const { from, moving, waiting, visit, find } = await set();
      after(from, method, () => Promise.reject(new Error('dead')));
      await expect(find(moving)).rejects.toThrow('dead');
      expect(
        (await listAll(waiting, 'ann', NOW)).map(({ id }) => id),
        method,
      ).toEqual([visit.id]);
      expect(textOf((await find(waiting))!), method).toBe('old');
      expect(await find(from), method).toMatchObject({ endReason: 'moved' });
      expect((await listAll(waiting, 'ann', NOW)).map(({ id }) => id)).toEqual([visit.id]);
    }
  });

  test('cannot be used as before once it has ended or has a new key, at any step of its move', async () => {
    for (const who of ['waiting', 'moving'] as const) {
      for (const event of ['end', 'rekey'] as const) {
        const { from, to, visit, find, ...stores } = await set({ identity: null });
        const change = rekeyOf(visit, { identity: identityOf('ann') });
        const seen: unknown[] = [];
        const look = async () => seen.push([await stores[who].save([saveOf(visit)]), await find(stores[who])]);
        after(from, 'save', async () => {
          if (event === 'end')
            await stores.waiting.end([visit.id], { reason: 'logout', at: NOW + 5, retiresKey: true });
          else expect(await stores.waiting.rekey([change])).toEqual([{ outcome: 'done' }]);
        });
        after(to, 'create', look);
        await find(stores.moving);
        await look();
        const [refusal, record] =
          event === 'end'
            ? ['ended', { endReason: 'logout' }]
            : ['retired', { endedAt: null, keyHash: change.newKeyHash, identity: identityOf('ann') }];
        const expected = [[{ outcome: 'refused', reason: refusal }], expect.objectContaining(record)];
        expect(seen, `${who}, ${event}`).toEqual([expected, expected]);
      }
    }
  });

  test('ends with the visits of a user who signs in with it while it moves', async () => {
    const { from, to, moving, waiting, visit, find } = await set({ identity: null });
    after(to, 'create', async () => {
      // By somebody who has looked for the copy before it was there.
      await from.rekey([rekeyOf(visit, { identity: identityOf('ann') })]);
      after(from, 'end', () => endAllOf(waiting, 'ann', { reason: 'revoked', at: NOW + 5 }));
    });
    expect(await find(moving)).toMatchObject({ endedAt: NOW + 5, endReason: 'revoked', identity: identityOf('ann') });
  });

  test('keeps its new key if the process that moves it dies before the copy has the key', async () => {
    const { from, to, moving, waiting, visit, find } = await set();
    const change = rekeyOf(visit);
    after(to, 'create', async () => {
      await from.rekey([change]);
      after(from, 'end', () => Promise.reject(new Error('dead')));
    });
    await expect(find(moving)).rejects.toThrow('dead');
    expect(await waiting.save([saveOf(visit, { version: 1 })])).toEqual([{ outcome: 'refused', reason: 'retired' }]);
    expect(await find(waiting)).toMatchObject({ endedAt: null, keyHash: change.newKeyHash });
  });

  test('is not changed if both stores hold the same visits', async () => {
    const store = new MemoryVisitStore();
    expect(() => new MovingVisitStore({ from: store, to: store })).toThrow('are the same store of visits');
    const database = await openDatabase('sqlite');
    onTestFinished(() => database.drop());
    const source = await openMigrated(database.options);
    onTestFinished(() => source.destroy());
    const [from, to] = [new TypeOrmVisitStore(source), new TypeOrmVisitStore(source)];
    const visit = newVisit({ sessionData: bytes('kept') });
    await from.create([visit]);
    const moving = new MovingVisitStore({ from, to, clock });
    for (const work of [
      () => moving.find([visit.id]),
      () => moving.save([saveOf(visit)]),
      () => moving.movePage({ after: '', limit: 10 }),
    ]) {
      await expect(work()).rejects.toMatchObject({
        code: 'VISIT_OPTION',
        message: expect.stringContaining('are the same store of visits') as string,
      });
    }
    expect((await from.find([visit.id]))[0]).toMatchObject({
      endedAt: null,
      sessionData: Buffer.from('kept'),
      sessionVersion: 0,
    });
  });

  test('is listed and counted when it is not in use', async () => {
    const { from, to, moving } = await set();
    await from.create(Array.from({ length: 24 }, () => newVisit()));
    expect(await moving.countLive()).toBe(25);
    let moved = 0;
    for (let place: string | null = ''; place !== null;) {
      const page: { moved: number; next: string | null } = await moving.movePage({ after: place, limit: 10 });
      moved += page.moved;
      place = page.next;
    }
    expect(moved).toBe(25);
    expect(await moving.countLive()).toBe(0);
    expect(await listAll(to, 'ann', NOW)).toHaveLength(1);
  });
});

@Controller()
class CounterController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
  ) {}

  @Post('add')
  add() {
    return this.session.update('count', (count: number | undefined) => (count ?? 0) + 1);
  }

  @Post('login/:user')
  login(@Param('user') user: string) {
    return this.identity.login(user);
  }

  @Post('logout')
  logout() {
    return this.identity.logout();
  }

  @Get('see')
  see() {
    return { count: this.session['count'] ?? null, user: this.identity.userId };
  }
}

/**
 * A place for visits that begins empty and goes after the test. What it gives opens a store with connections of its
 * own, as each process does.
 */
interface Place {
  readonly name: string;
  readonly need?: Need;
  readonly make: () => Promise<() => Promise<VisitStore>>;
}

function typeOrmOn(name: DatabaseName, need?: Need): Place {
  const make = async () => {
    const { options, drop } = await openDatabase(name);
    onTestFinished(drop);
    return async () => new TypeOrmVisitStore(await openMigrated(options), { owned: true });
  };
  return { name: `TypeORM on ${name}`, ...(need && { need }), make };
}

function prismaOn(name: 'mariadb' | 'postgres', need: Need): Place {
  const make = async () => {
    const { options, drop } = await openDatabase(name);
    onTestFinished(drop);
    await (await openMigrated(options)).destroy();
    return async () => {
      const prisma = await openPrisma(name, (options as { url: string }).url);
      onTestFinished(() => prisma.$disconnect());
      return new PrismaVisitStore(prisma);
    };
  };
  return { name: `Prisma on ${name}`, need, make };
}

const sqlite = typeOrmOn('sqlite');
const mariadb = typeOrmOn('mariadb', 'mysql');
const postgres = typeOrmOn('postgres', 'postgres');

const redis: Place = {
  name: 'Redis',
  need: 'redis',
  make: async () => {
    const prefix = uniquePrefix();
    return async () => new RedisVisitStore({ connection: redisUrl!, prefix });
  },
};

const redisCluster: Place = {
  name: 'a cluster of Redis',
  need: 'redisCluster',
  make: async () => {
    const prefix = uniquePrefix();
    return async () =>
      new RedisVisitStore({ connection: { rootNodes: redisClusterUrls!.map((url) => ({ url })) }, prefix });
  },
};

/** From where to where: each place once on either side, as far as there are two sides to it. */
const pairs: (readonly [Place, Place])[] = [
  [sqlite, sqlite],
  [mariadb, sqlite],
  [sqlite, postgres],
  [postgres, redis],
  [redis, mariadb],
  [redisCluster, postgres],
  [prismaOn('mariadb', 'mysql'), redis],
];
if (isSoak) {
  pairs.push(
    [sqlite, mariadb],
    [postgres, sqlite],
    [mariadb, redisCluster],
    [mariadb, prismaOn('postgres', 'postgres')],
  );
}

/** What happens to a visit while it moves. */
const events = ['none', 'login', 'logout'] as const;

/** Visits that each of them begins, so that everybody meets every event. */
const ROUNDS = events.length;

for (const [turn, places] of pairs.entries()) {
  if (turn > 0 && !isForToday(turn, 3)) continue;
  const [source, target] = places;
  const needs = [...new Set(places.flatMap(({ need }) => need ?? []))];
  // Two with the mover alone, and two without. More of them meet at the same moment only where stores are servers.
  const visitors = isSoak || needs.length > 0 ? 6 : 4;
  describeWith(needs, `Visits that move while they are used, from ${source.name} to ${target.name}`, () => {
    test('no acknowledged write is lost, nobody is signed out, and signed-out users stay so', async () => {
      const [from, to] = [await source.make(), await target.make()];
      const start = async (moves: boolean, platform: PlatformName): Promise<RunningApp> => {
        const store = new MovingVisitStore({ from: await from(), to: await to(), moves });
        const app = await startApp(platform, { store }, { controllers: [CounterController] });
        onTestFinished(() => app.close());
        return app;
      };
      // The old processes go on for a while beside the new ones.
      const [olds, news]: [RunningApp[], RunningApp[]] = [[], []];
      for (const platform of platforms) {
        olds.push(await start(false, platform));
        news.push(await start(true, platform));
      }
      const apps = [...olds, ...news];
      /** Sign-ins and sign-outs that are not answered yet. */
      const underway = new Set<Promise<unknown>>();
      const slow = await to();
      const create = slow.create.bind(slow);
      // While it waits, much can happen to what it is about to copy.
      slow.create = async (visits) => {
        await Promise.all(underway);
        return create(visits);
      };
      const mover = new MovingVisitStore({ from: await from(), to: slow });
      onTestFinished(() => mover.close());
      const move = async (): Promise<void> => {
        for (let place: string | null = ''; place !== null;)
          place = (await mover.movePage({ after: place, limit: 3 })).next;
      };

      const stales: Browser[] = [];
      const seenBy = async (browser: Browser, { address }: RunningApp): Promise<unknown> =>
        JSON.parse((await browser.via({ address }).get('/see')).text);
      const expectNobody = async (stale: Browser, seers = apps): Promise<void> => {
        for (const seen of await Promise.all(seers.map((app) => seenBy(stale.clone(), app))))
          expect(seen).toEqual({ count: null, user: null });
      };

      const use = async (user: string, index: number): Promise<() => Promise<void>> => {
        const browser = olds[0]!.browser();
        let count = 0;
        const add = async (app: RunningApp, { isLate = false } = {}): Promise<void> => {
          const { status, text } = await browser.via(app).post('/add');
          // 503: too many wrote at the same moment, and this one did not get through; 409: the key is not valid any
          // more.
          expect(isLate ? [201, 409, 503] : [201, 503], text).toContain(status);
          if (status === 201) count++;
        };
        const expectAll = async (seen: object): Promise<void> => {
          for (const app of apps) expect(await seenBy(browser, app)).toEqual(seen);
        };
        /** What ends the key that the browser has. */
        const change = async (path: string, app: RunningApp): Promise<void> => {
          const stale = browser.clone();
          const answer = browser.via(app).post(path);
          underway.add(answer);
          const { status, text } = await answer.finally(() => underway.delete(answer));
          expect(status, text).toBe(201);
          stales.push(stale);
          await expectNobody(stale);
        };
        for (let round = 0; round < ROUNDS; round++) {
          const [old, otherOld] = (round % 2 ? olds : olds.toReversed()) as [RunningApp, RunningApp];
          const any = (offset: number): RunningApp => apps[(index + round + offset) % apps.length]!;
          const event = events[(index + round) % events.length]!;
          count = 0;
          // By one request: the next visitor's mover is near.
          if (event === 'logout') expect((await browser.via(old).post(`/login/${user}`)).status).toBe(201);
          else await add(old);
          // Every other time it is the mover alone that moves the visit.
          const adding = [otherOld, index % 2 ? otherOld : news[round % 2]!].map((app) =>
            add(app, { isLate: event !== 'none' }),
          );
          const happening = event === 'none' ? add(old) : change(event === 'login' ? `/login/${user}` : '/logout', old);
          await Promise.all([happening, ...adding, move()]);
          if (event === 'logout') continue;
          if (event === 'none') await change(`/login/${user}`, any(0));
          await Promise.all([add(any(1)), add(any(2))]);
          await expectAll({ count, user });
          if (round < ROUNDS - 1) await change('/logout', any(3));
        }
        return () => expectAll(browser.jar.size > 0 ? { count, user } : { count: null, user: null });
      };
      const uses = await Promise.allSettled(Array.from({ length: visitors }, (_, index) => use(`user${index}`, index)));
      const ends = uses.map((one) => {
        if (one.status === 'rejected') throw one.reason;
        return one.value;
      });
      await move();
      for (const expectEnd of ends) await expectEnd();
      expect(await mover.countLive()).toBe(0);
      await Promise.all(stales.map((stale) => expectNobody(stale, [news[0]!])));
    });
  });
}
