import { Controller, Get, Post } from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  MovingVisitStore,
  Session,
  TypeOrmVisitStore,
  type NewVisitRecord,
  type VisitRecord,
  type VisitStore,
} from 'nest-visit';
import { describeVisitStore } from 'nest-visit/testing';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bytes, identityOf, newVisit, NOW, rekeyOf, saveOf, textOf } from '../../lib/testing/samples.js';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { describeDatabases, openDatabase, type OpenDatabase } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';

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
  const set = async (given: Partial<NewVisitRecord> = {}) => {
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

  test('brings everything along, and has ended where it was', async () => {
    const { from, to, moving, visit, find } = await set({ absoluteExpiry: NOW + 9_000_000, permanent: true });
    await from.rekey([rekeyOf(visit, { previousKeyUntil: NOW + 30_000 })]);
    const before = (await find(from))!;
    const moved = await find(moving);
    expect(moved).toEqual({ ...before, sessionVersion: before.sessionVersion + 1 });
    expect(await find(to)).toEqual(moved);
    expect(await find(from)).toMatchObject({ endedAt: NOW, endReason: 'moved', sessionData: null });
  });

  test('stays where it is while others use the old store alone; then it is found by all', async () => {
    const { from, to, moving, waiting, visit, find } = await set();
    expect(await find(waiting)).toMatchObject({ sessionVersion: 0 });
    expect(await waiting.save([saveOf(visit, { data: bytes('new') })])).toEqual([{ outcome: 'saved', version: 1 }]);
    expect(textOf((await find(from))!)).toBe('new');
    await find(moving);
    expect(textOf((await find(waiting))!)).toBe('new');
    expect(await waiting.save([saveOf(visit, { data: bytes('newer'), version: 2 })])).toEqual([{ outcome: 'saved', version: 3 }]);
    expect(textOf((await find(to))!)).toBe('newer');
  });

  test('leaves expired visits alone, and those that have ended', async () => {
    const { from, to, moving, find } = await set({ expiry: NOW - 1 });
    expect(await find(moving)).toMatchObject({ endedAt: null, expiry: NOW - 1 });
    expect(await find(to)).toBeNull();
    const other = newVisit();
    await from.create([other]);
    await from.end([other.id], { reason: 'logout', at: NOW });
    expect((await moving.find([other.id]))[0]).toMatchObject({ endReason: 'logout' });
  });

  test('loses no save, whenever it comes', async () => {
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

  test('does not come back, whenever it ends', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      const { from, to, moving, waiting, visit, find } = await set();
      after(method === 'create' ? to : from, method, () => waiting.end([visit.id], { reason: 'logout', at: NOW + 5, retiresKey: true }));
      await find(moving);
      expect(await find(moving), method).toMatchObject({
        endedAt: NOW + 5,
        endReason: 'logout',
        keyChanged: NOW + 5,
        previousKeyUntil: NOW + 5,
      });
    }
  });

  test('does not come back, whenever all visits of its user end', async () => {
    for (const method of ['find', 'save', 'create', 'end'] as const) {
      const { from, to, moving, waiting, find } = await set();
      after(method === 'create' ? to : from, method, () => waiting.endAllForUser('ann', { reason: 'revoked', at: NOW + 5 }));
      await find(moving);
      expect(await find(moving), method).toMatchObject({ endedAt: NOW + 5, endReason: 'revoked' });
      expect(await moving.endedAllAt('ann')).toBe(NOW + 5);
    }
  });

  test('keeps a new key and a new user, whenever they come', async () => {
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

  test('is moved to its end by the next one, when who moves it dies', async () => {
    for (const method of ['save', 'end'] as const) {
      const { from, moving, waiting, visit, find } = await set();
      after(from, method, () => Promise.reject(new Error('dead')));
      await expect(find(moving)).rejects.toThrow('dead');
      expect(
        (await waiting.listForUser('ann', NOW)).map((one) => textOf(one)),
        method,
      ).toEqual(['old']);
      expect(textOf((await find(waiting))!), method).toBe('old');
      expect(await find(from), method).toMatchObject({ endReason: 'moved' });
      expect((await waiting.listForUser('ann', NOW)).map(({ id }) => id)).toEqual([visit.id]);
    }
  });

  test('is for nobody what it was, once it has ended or has another key, however far its move has come', async () => {
    for (const who of ['waiting', 'moving'] as const) {
      for (const event of ['end', 'rekey'] as const) {
        const { from, to, visit, find, ...stores } = await set({ identity: null });
        const change = rekeyOf(visit, { identity: identityOf('ann') });
        const seen: unknown[] = [];
        const look = async () => seen.push([await stores[who].save([saveOf(visit)]), await find(stores[who])]);
        after(from, 'save', async () => {
          if (event === 'end') await stores.waiting.end([visit.id], { reason: 'logout', at: NOW + 5, retiresKey: true });
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

  test('does not outlive the visits of a user who signs in with it while it moves', async () => {
    const { from, to, moving, waiting, visit, find } = await set({ identity: null });
    after(to, 'create', async () => {
      // By somebody who has looked for the copy before it was there.
      await from.rekey([rekeyOf(visit, { identity: identityOf('ann') })]);
      after(from, 'end', () => waiting.endAllForUser('ann', { reason: 'revoked', at: NOW + 5 }));
    });
    expect(await find(moving)).toMatchObject({ endedAt: NOW + 5, endReason: 'revoked', identity: identityOf('ann') });
  });

  test('keeps its new key, when who moves it dies before the copy has it', async () => {
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

  test('is told of at the end of the list, and counted, when nobody uses it', async () => {
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
    expect(await to.listForUser('ann', NOW)).toHaveLength(1);
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

  @Post('login')
  login() {
    return this.identity.login('ann');
  }

  @Get('see')
  see() {
    return { count: this.session['count'], user: this.identity.userId };
  }
}

describeDatabases('Visits that move while they are used', (db) => {
  for (const direction of ['from', 'to'] as const) {
    test(`${direction} here ${direction === 'from' ? 'to' : 'from'} SQLite: nothing that was acknowledged is lost, nobody is signed out`, async () => {
      const other = await openDatabase('sqlite');
      onTestFinished(() => other.drop());
      const places = { here: await db.open(), there: other };
      const [from, to] = direction === 'from' ? [places.here, places.there] : [places.there, places.here];
      // Each process has connections of its own.
      const openStore = async (moves: boolean): Promise<MovingVisitStore> => {
        const open = async ({ options }: OpenDatabase): Promise<VisitStore> =>
          new TypeOrmVisitStore(await openMigrated(options), { owned: true });
        return new MovingVisitStore({ from: await open(from), to: await open(to), moves });
      };
      const apps: RunningApp[] = [];
      const start = async (moves: boolean): Promise<RunningApp> => {
        const platform = platforms[apps.length % platforms.length]!;
        const app = await startApp(platform, { store: await openStore(moves) }, { controllers: [CounterController] });
        onTestFinished(() => app.close());
        apps.push(app);
        return app;
      };
      await start(false);
      await start(false);
      const browsers = Array.from({ length: 12 }, () => apps[0]!.browser());
      for (const browser of browsers) expect((await browser.post('/add')).status).toBe(201);
      // The old processes go on for a while beside the new ones.
      await start(true);
      await start(true);

      const counts = browsers.map(() => 1);
      const use = async (browser: Browser, index: number): Promise<void> => {
        for (let step = 0; step < 12; step++) {
          if (step === 4 + (index % 5)) {
            expect((await browser.via(apps[step % apps.length]!).post('/login')).status).toBe(201);
            continue;
          }
          const tabs = [0, 1].map((tab) => browser.via(apps[(index + step + tab) % apps.length]!).post('/add'));
          for (const { status, text } of await Promise.all(tabs)) {
            // 503: too many wrote at the same moment, and this one did not get through.
            expect([201, 503], text).toContain(status);
            if (status === 201) counts[index]!++;
          }
        }
      };
      const mover = await openStore(true);
      onTestFinished(() => mover.close());
      const move = async (): Promise<void> => {
        for (let place: string | null = ''; place !== null;) place = (await mover.movePage({ after: place, limit: 3 })).next;
      };
      await Promise.all([...browsers.map(use), move()]);
      await move();

      for (const [index, browser] of browsers.entries()) {
        const { text } = await browser.via(apps[index % apps.length]!).get('/see');
        expect(JSON.parse(text)).toEqual({ count: counts[index], user: 'ann' });
      }
      expect(await mover.countLive()).toBe(0);
    });
  }
});
