import { Logger } from '@nestjs/common';
import { SessionDataError, VisitEndedError, VisitStoreUnavailableError } from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { WatchedStore } from '../support/ways.js';

/** `request.session`, as code knows it that was written for another library. */
type Shared = Record<string, any>;

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** By its callback. */
const called = (act: (done: (error?: unknown) => void) => void): Promise<unknown> =>
  new Promise((resolve, reject) => act((error) => (error ? reject(error) : resolve('called'))));

/** What a call throws, or what its promise is rejected with. */
async function errorOf(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe.each(platforms)('The session of a request under %s, for third-party code,', (platform) => {
  const clock = new ManualClock();
  const store = new WatchedStore();
  const options = { store, clock };
  let app: InlineApp;
  let browser: Browser;

  beforeAll(async () => (app = await InlineApp.start(platform, options)));
  afterAll(() => app.close());
  beforeEach(() => {
    browser = app.browser();
    clock.advance(1000);
  });

  const ask = <T>(handler: (session: Shared, tools: Tools) => T | Promise<T>): Promise<T> =>
    app.ask(browser, (tools) => handler(tools.request.session as Shared, tools));

  const data = () => app.ask(browser, ({ session }) => Object.fromEntries(session.entries()));

  describe('regenerates:', () => {
    test('the old session is replaced before the callback, and changes in it are saved', async () => {
      await ask((session) => (session['cart'] = ['apple']));
      const before = browser.clone();
      const seen = await ask(async (session, { request }) => {
        const id = session['id'] as string;
        await called((done) => session['regenerate'](done));
        const now = request.session as Shared;
        now['name'] = 'ann';
        await called((done) => now['save'](done));
        return {
          isNew: now !== session,
          id,
          newId: now['id'],
          data: Object.keys(now),
          old: { id: session['id'], cart: session['cart'] },
        };
      });
      expect(seen).toEqual({
        isNew: true,
        id: expect.stringMatching(/^[0-9a-f]{32}$/),
        newId: expect.not.stringContaining(seen.id),
        data: ['name', 'cookie'],
        old: { id: seen.id, cart: ['apple'] },
      });
      expect(await data()).toEqual({ name: 'ann' });
      browser = before;
      expect(await data()).toEqual({});
    });

    test('values assigned from the old session are kept, and no others', async () => {
      await ask((session) => void Object.assign(session, { cart: ['apple'], save2: 1 }));
      await ask(async (session, { request }) => {
        await session['regenerate']();
        for (const name in session) (request.session as Shared)[name] = session[name];
      });
      expect(await data()).toEqual({ cart: ['apple'], save2: 1 });
    });

    test('the cookie of the old session is kept if it is assigned with the rest, as Passport does', async () => {
      await ask((session) => (session['cart'] = ['apple']));
      const answer = await app.call(browser, async ({ request }) => {
        const before = request.session as Shared;
        before['cookie'].maxAge = 7 * DAY;
        await before['regenerate']();
        for (const name in before) (request.session as Shared)[name] = before[name];
      });
      expect([answer.status, answer.cookies.length]).toEqual([200, 1]);
      expect(answer.cookies[0]).toMatch(new RegExp(`max-age=${(7 * DAY) / 1000};`, 'i'));
      expect(await data()).toEqual({ cart: ['apple'] });
      expect(await app.ask(browser, ({ visits }) => visits.current().permanent)).toBe(true);
    });

    test('can keep some keys, with a promise or a callback', async () => {
      await ask((session) => void Object.assign(session, { a: 1, b: { c: 2 }, d: 3 }));
      await ask((session) => session['regenerate'](['a', 'b', 'none']));
      expect(await data()).toEqual({ a: 1, b: { c: 2 } });
      await ask((session) => called((done) => session['regenerate'](['b'], done)));
      expect(await data()).toEqual({ b: { c: 2 } });
    });

    test('an empty one stores nothing', async () => {
      const answer = await app.call(browser, ({ request }) =>
        called((done) => (request.session as Shared)['regenerate'](done)),
      );
      expect(answer.cookies).toEqual([]);
      await ask((session) => (session['a'] = 1));
      await ask((session) => session['regenerate']());
      expect(browser.jar.size).toBe(0);
    });

    test('a replaced session is detached: saving it is refused, and writing to it has no effect', async () => {
      await ask((session) => (session['a'] = 1));
      const errors = await ask(async (session, { request }) => {
        await session['regenerate']();
        session['a'] = 2;
        (request.session as Shared)['b'] = 3;
        return [await errorOf(() => session['save']()), await errorOf(() => called((done) => session['reload'](done)))];
      });
      expect(errors).toEqual([expect.any(VisitEndedError), expect.any(VisitEndedError)]);
      expect(await data()).toEqual({ b: 3 });
    });
  });

  describe('destroys:', () => {
    test('the session is removed at once; the visit has ended at the callback, and the cookie is cleared', async () => {
      await ask((session) => (session['cart'] = ['apple']));
      const stolen = browser.clone();
      const seen = await ask(async (session, { request }) => {
        const destroyed = called((done) => session['destroy'](done));
        const atOnce = request.session as unknown;
        await destroyed;
        return { atOnce, afterwards: request.session as unknown, readable: session['cart'] };
      });
      expect(seen).toEqual({ atOnce: undefined, afterwards: undefined, readable: ['apple'] });
      expect(browser.jar.size).toBe(0);
      browser = stolen;
      expect(await data()).toEqual({});
    });

    test('assigning something afterwards begins a new one', async () => {
      await ask((session) => (session['a'] = 1));
      await ask(async (session, { request }) => {
        await session['destroy']();
        request.session = { b: 2 };
        return (request.session as Shared)['save']();
      });
      expect(await data()).toEqual({ b: 2 });
    });
  });

  describe('saves and loads:', () => {
    test('the callback is called after the save; without a callback, there is a promise', async () => {
      const other = await ask(async (session) => {
        session['n'] = 1;
        await called((done) => session['save'](done));
        session['n'] = 2;
        return (session['save']() as Promise<void>).then(() => 'promised');
      });
      expect(other).toBe('promised');
      expect(await ask((session) => session['n'])).toBe(2);
    });

    test('an error is passed to the callback', async () => {
      const error = await ask(async (session) => {
        session['f'] = () => 1;
        const failed = await errorOf(() => called((done) => session['save'](done)));
        delete session['f'];
        return failed;
      });
      expect(error).toBeInstanceOf(SessionDataError);
    });

    test('an unavailable store is reported to each callback and each promise', async () => {
      await ask((session) => (session['n'] = 1));
      const acts = ['regenerate', 'save', 'reload', 'destroy'];
      for (const isCallback of [true, false]) {
        for (const act of acts) {
          const error = await ask(async (session) => {
            if (act === 'save') session['n'] = 2;
            store.isAway = true;
            try {
              return await errorOf(() => (isCallback ? called((done) => session[act](done)) : session[act]()));
            } finally {
              store.isAway = false;
              delete session['n'];
            }
          });
          expect(error, act).toBeInstanceOf(VisitStoreUnavailableError);
          await ask((session) => (session['n'] = 1));
        }
      }
    });

    test('the stored data is loaded again', async () => {
      await ask((session) => (session['n'] = 1));
      const seen = await ask(async (session) => {
        session['n'] = 5;
        await called((done) => session['reload'](done));
        return session['n'] as number;
      });
      expect(seen).toBe(1);
    });

    test('`save` is on the prototype, and takes a callback', async () => {
      const lengths = await ask((session) => {
        const prototype = Object.getPrototypeOf(session) as Record<string, { length: number }>;
        return ['save', 'reload', 'destroy'].map((name) => prototype[name]!.length);
      });
      expect(lengths).toEqual([1, 1, 1]);
    });

    test('touch() returns the session itself', async () => {
      expect(await ask((session) => session['touch']() === session && session['resetMaxAge']() === session)).toBe(true);
    });
  });

  describe('lists and names:', () => {
    test('only data and cookie are listed', async () => {
      const seen = await ask((session) => {
        session['a'] = 1;
        const inLoop: string[] = [];
        for (const name in session) inLoop.push(name);
        return {
          keys: Object.keys(session),
          inLoop,
          json: JSON.parse(JSON.stringify(session)) as object,
          copy: Object.keys({ ...session }),
        };
      });
      expect(seen).toEqual({
        keys: ['a', 'cookie'],
        inLoop: ['a', 'cookie'],
        copy: ['a', 'cookie'],
        json: {
          a: 1,
          cookie: { originalMaxAge: null, expires: null, secure: false, httpOnly: true, path: '/', sameSite: 'lax' },
        },
      });
    });

    test('every other name is free for data, including those of Session methods', async () => {
      const names = [
        'flash',
        'size',
        'has',
        'delete',
        'pop',
        'clear',
        'keys',
        'entries',
        'update',
        'take',
        'data',
        'options',
        'req',
      ];
      const [ofFastify, ofAll] = [['delete', 'data', 'options'], ['req']];
      const untaken = names.filter(
        (name) => !ofAll.includes(name) && !(platform === 'fastify' && ofFastify.includes(name)),
      );
      expect(await ask((session) => untaken.filter((name) => session[name] !== undefined || name in session))).toEqual(
        [],
      );
      await ask((session) => {
        for (const name of names) session[name] = { [name]: 1 };
      });
      const seen = await ask((session, tools) => {
        tools.session.set('mine', 1);
        return {
          others: names.map((name) => session[name] as unknown),
          ours: names.map((name) => tools.session.get(name) as unknown),
          has: tools.session.has('flash') && session['get']('size') !== undefined,
          json: Object.keys(JSON.parse(JSON.stringify(session)) as object),
        };
      });
      expect(seen).toEqual({
        others: names.map((name) => ({ [name]: 1 })),
        ours: names.map((name) => ({ [name]: 1 })),
        has: true,
        json: [...names, 'mine', 'cookie'],
      });
      await ask((session) => {
        for (const name of names) delete session[name];
      });
      expect(await data()).toEqual({ mine: 1 });
    });

    test.runIf(platform === 'fastify')('sessions of Fastify return their data, and accept cookie options', async () => {
      const answer = await app.call(browser, ({ request }) => {
        const session = request.session as Shared;
        session['a'] = { b: 1 };
        session['options']({ maxAge: MINUTE });
        return [session['data'](), session['sessionId'] === session['id']];
      });
      expect(answer.text).toBe('[{"a":{"b":1}},true]');
      expect(answer.cookies[0]).toMatch(/max-age=60;/i);
    });

    test('data cannot overwrite security-relevant properties', async () => {
      const names = ['save', 'regenerate', 'destroy', 'reload', 'id', 'get', 'set'];
      const errors = await ask((session) => Promise.all(names.map((name) => errorOf(() => (session[name] = 'x')))));
      expect(errors.map((error) => (error as SessionDataError).code)).toEqual(names.map(() => 'SESSION_RESERVED_NAME'));
    });

    test('nested changes and deletions are saved; reading saves nothing', async () => {
      await ask((session) => (session['passport2'] = { user: 1, list: ['a'] }));
      await ask((session) => {
        delete session['passport2'].user;
        session['passport2'].list.push('b');
      });
      store.calls.length = 0;
      const seen = await ask((session) => {
        for (const name in session) void session[name];
        return session['passport2'] as unknown;
      });
      expect(seen).toEqual({ list: ['a', 'b'] });
      expect(store.calls).toEqual(['find']);
    });

    test('setting undefined deletes a key, as in Fastify', async () => {
      await ask((session) => void session['set']('a', 1).set('b', 2));
      await ask((session) => void session['set']('a', undefined));
      expect(await ask((session) => [session['get']('b'), session['get']('a', 'none')] as unknown)).toEqual([
        2,
        'none',
      ]);
      expect(await data()).toEqual({ b: 2 });
    });

    test('unsupported properties throw, and name an alternative', async () => {
      const errors = await ask((session) =>
        Promise.all([
          errorOf(() => (session['cookie'].sameSite = 'none')),
          errorOf(() => (session['cookie'].maxAge = 'long')),
          ...(platform === 'fastify'
            ? [errorOf(() => session['encryptedSessionId']), errorOf(() => session['delete']())]
            : []),
        ]),
      );
      expect(errors.map((error) => (error as Error).message)).toEqual([
        expect.stringContaining('option "cookie.sameSite"'),
        expect.stringContaining('milliseconds'),
        ...(platform === 'fastify'
          ? [expect.stringContaining('CurrentVisit.key'), expect.stringContaining('destroy()')]
          : []),
      ]);
    });
  });

  describe('has an id:', () => {
    test('the same for every request, even if reading it begins the visit', async () => {
      const id = await ask((session) => session['id'] as string);
      expect(browser.jar.size).toBe(1);
      expect(await ask((session) => session['id'] as string)).toBe(id);
    });

    test('a new one after a sign-in, and after a sign-out', async () => {
      const ids = [await ask((session) => session['id'] as string)];
      await app.ask(browser, ({ identity }) => identity.login('ann'));
      ids.push(await ask((session) => session['id'] as string));
      clock.advance(1000);
      await app.ask(browser, ({ identity }) => identity.reauthenticate());
      ids.push(await ask((session) => session['id'] as string));
      await app.ask(browser, ({ visits }) => visits.renew());
      expect(await ask((session) => session['id'] as string)).toBe(ids[2]);
      await app.ask(browser, ({ identity }) => identity.logout());
      ids.push(await ask((session) => session['id'] as string));
      expect(new Set(ids).size).toBe(4);
    });

    test.runIf(platform === 'express')('as `request.sessionID`, too', async () => {
      expect(
        await ask((session, { request }) => session['id'] === request.sessionID && session['req'] === request),
      ).toBe(true);
    });
  });

  describe('is assigned:', () => {
    test('null empties it, an object replaces it, and itself changes nothing', async () => {
      await ask((session) => (session['a'] = 1));
      await ask((session, { request }) => void (request.session = session));
      expect(await data()).toEqual({ a: 1 });
      await ask((_, { request }) => void (request.session = { b: 2, size: 3 }));
      expect(await data()).toEqual({ b: 2, size: 3 });
      await ask((_, { request }) => (request.session = null));
      expect(await data()).toEqual({});
      await ask((session) => (session['a'] = 1));
      await ask((_, { request }) => (request.session = undefined));
      expect(await data()).toEqual({});
    });

    test('a string is refused, and nothing is lost', async () => {
      await ask((session) => (session['a'] = 1));
      const error = await ask((_, { request }) => errorOf(() => (request.session = 'x')));
      expect((error as SessionDataError).code).toBe('SESSION_VALUE');
      expect(await data()).toEqual({ a: 1 });
    });

    test('deleting it has no effect: the session and its data are kept', async () => {
      await ask((session) => (session['a'] = 1));
      const seen = await ask((session, { request }) => {
        delete request.session;
        if (request.raw) delete request.raw.session;
        return [request.session === session, request.session.a as number];
      });
      expect(seen).toEqual([true, 1]);
      expect(await data()).toEqual({ a: 1 });
    });
  });

  describe('is found once', () => {
    test.runIf(platform === 'express')(
      'by a request that passes through the application again: its changes are visible, and are saved',
      async () => {
        await ask((session) => (session['a'] = 1));
        store.calls.length = 0;
        const seen: unknown[] = [];
        const second = app.sendingPath(({ request, reply }) => {
          request.session.c = 3;
          seen.push(request.session, { ...request.session });
          reply.send('second');
        });
        const answer = await app.send(browser, ({ request, reply }) => {
          request.session.b = 2;
          seen.push(request.session);
          request.url = second;
          request.app.handle(request, reply);
        });
        expect(answer.text).toBe('second');
        expect(seen[1]).toBe(seen[0]);
        expect(seen[2]).toMatchObject({ a: 1, b: 2, c: 3 });
        expect(store.calls).toEqual(['find', 'save']);
        expect(await data()).toEqual({ a: 1, b: 2, c: 3 });
      },
    );

    test('and has no store, but an error that names the alternative', async () => {
      const error = await ask((_, { request }) => errorOf(() => request.sessionStore as unknown));
      expect((error as Error).message).toMatch(/VisitService lists and ends visits/);
      const seen = await ask((_, { request }) => {
        const before = Object.keys(request).includes('sessionStore');
        request.sessionStore = 'its own';
        return [before, request.sessionStore as string];
      });
      expect(seen).toEqual([false, 'its own']);
    });
  });

  describe('has a cookie', () => {
    const life = (answer: { cookies: readonly string[] }): string | undefined =>
      /max-age=(\d+)/i.exec(answer.cookies[0] ?? '')?.[1];

    test('whose lifetime can be set: from this response on, the visit outlives the browser', async () => {
      const answer = await app.call(browser, ({ request }) => {
        const session = request.session as Shared;
        session['a'] = 1;
        session['cookie'].maxAge = 7 * DAY;
      });
      expect(life(answer)).toBe(String((7 * DAY) / 1000));
      expect(await app.ask(browser, ({ visits }) => visits.current().permanent)).toBe(true);
      expect(await ask((session) => session['cookie'].originalMaxAge as number)).toBe(30 * DAY);
    });

    test('of a stored visit, to permanent and back', async () => {
      await ask((session) => (session['a'] = 1));
      const [first] = [...browser.jar.values()];
      const answer = await app.call(browser, ({ request }) => {
        (request.session as Shared)['cookie'].expires = new Date(clock.now() + 10 * DAY);
      });
      expect(life(answer)).toBe(String((10 * DAY) / 1000));
      expect(await app.ask(browser, ({ visits }) => visits.current().permanent)).toBe(true);
      const back = await app.call(browser, ({ request }) => {
        (request.session as Shared)['cookie'].maxAge = null;
      });
      expect(back.cookies[0]).not.toMatch(/max-age/i);
      const expiry = await app.ask(
        browser,
        ({ visits }) => [visits.current().permanent, visits.current().expiry.getTime()] as const,
      );
      expect(expiry).toEqual([false, clock.now() + 20 * MINUTE]);
      expect([...browser.jar.values()][0]).not.toBe(first);
      expect(await data()).toEqual({ a: 1 });
    });

    test('with another lifetime than that of permanent visits causes one warning', async () => {
      const own = await InlineApp.start(platform, {
        store: new WatchedStore(),
        clock,
        timeout: MINUTE,
        permanentTimeout: DAY,
      });
      const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
      try {
        for (const maxAge of [MINUTE, DAY, DAY / 2, DAY / 3]) {
          await own.ask(own.browser(), ({ request }) => (request.session.cookie.maxAge = maxAge));
        }
        expect(warn.mock.calls.map(([text]) => text as unknown)).toEqual([expect.stringContaining('permanentTimeout')]);
      } finally {
        warn.mockRestore();
        await own.close();
      }
    });

    test('is not sent to a client that used the key from before a renewal', async () => {
      await ask((session) => (session['a'] = 1));
      const late = browser.clone();
      await app.ask(browser, ({ visits }) => visits.renew());
      const answer = await app.call(late, ({ request }) => {
        (request.session as Shared)['cookie'].maxAge = 7 * DAY;
      });
      expect([answer.status, answer.cookies]).toEqual([200, []]);
      expect(await data()).toEqual({ a: 1 });
    });

    test('that never lasts longer than the visit', async () => {
      const answer = await app.call(browser, ({ request }) => {
        const session = request.session as Shared;
        session['a'] = 1;
        session['cookie'].maxAge = MINUTE;
      });
      expect(life(answer)).toBe('60');
      expect(await app.ask(browser, ({ visits }) => visits.current().permanent)).toBe(false);
    });

    test('whose changes are discarded if the handler fails', async () => {
      await ask((session) => (session['a'] = 1));
      const answer = await app.call(browser, ({ request }) => {
        (request.session as Shared)['cookie'].maxAge = 7 * DAY;
        throw new Error('no');
      });
      expect(answer.status).toBe(500);
      expect(await app.ask(browser, ({ visits }) => visits.current().permanent)).toBe(false);
    });
  });
});
