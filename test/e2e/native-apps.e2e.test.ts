import { Controller, Get, Module, Post, UseGuards } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import {
  CsrfGuard,
  CurrentVisit,
  ExclusiveSession,
  IdentityService,
  MemoryVisitStore,
  RequireIdentity,
  Session,
  UseVisit,
  VisitModule,
  type VisitSettings,
} from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { Test } from '@nestjs/testing';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Answer, Ask, Browser } from '../support/browser.js';
import { InlineApp, type Handler } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';

/** What an app has of its own, beside what browsers use. */
@Controller('app')
@UseVisit({ source: 'header' })
@UseGuards(CsrfGuard)
class AppController {
  constructor(private readonly identity: IdentityService) {}

  @Post('login')
  async login(@CurrentVisit() visit: CurrentVisit) {
    await this.identity.login('ann');
    return { key: visit.key };
  }

  @Get('me')
  @RequireIdentity()
  me() {
    return this.identity.userId;
  }

  @Post('add')
  @ExclusiveSession()
  async add(@Session() session: Session) {
    const count = (session['count'] as number | undefined) ?? 0;
    await new Promise((resolve) => setImmediate(resolve));
    return { count: (session['count'] = count + 1) };
  }
}

const me: Handler = ({ identity }) => String(identity.userId);
const FOREIGN = { origin: 'https://evil.example' };
const bearer = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });

describe.each(platforms)('A client that stores its own key, under %s', (platform) => {
  const clock = new ManualClock();
  const apps: InlineApp[] = [];
  const start = async (options: VisitSettings): Promise<InlineApp> => {
    const parts = { controllers: [AppController], providers: [{ provide: APP_GUARD, useExisting: CsrfGuard }] };
    const one = await InlineApp.start(
      platform,
      { store: new MemoryVisitStore(), clock, timeout: '20m', renewAfter: '10m', ...options },
      parts,
    );
    apps.push(one);
    return one;
  };
  /** Takes keys from cookies and headers, as most would. */
  let app: InlineApp;
  let headersFirst: InlineApp;
  let cookiesOnly: InlineApp;
  let headersOnly: InlineApp;
  beforeAll(async () => {
    app = await start({ source: 'cookie, header' });
    headersFirst = await start({ source: 'header, cookie', renewAfter: false });
    cookiesOnly = await start({});
    headersOnly = await start({ source: 'header', csrf: { trustedOrigins: ['https://friend.example'] } });
  });
  afterAll(() => Promise.all(apps.map((one) => one.close())));
  beforeEach(() => clock.advance(60_000));

  const call = (key: string | undefined, handler: Handler, ask: Ask = {}, at = app): Promise<Answer> =>
    at.call(at.browser(), handler, { ...ask, headers: { ...(key && bearer(key)), ...ask.headers } });
  /** A key as a handler hands it out. */
  const handOut = async (at = app, user = 'ann'): Promise<string> =>
    (await at.ask(at.browser(), async ({ visits }) => visits.create({ userId: user }))).key;
  const said = ({ text, cookies, headers }: Answer): unknown[] => [text, cookies, headers.get('visit-key')];

  test('is identified by it, and gets no cookie', async () => {
    const key = await handOut();
    expect(said(await call(key, ({ session, identity }) => ((session['count'] = 1), String(identity.userId))))).toEqual(
      ['ann', [], null],
    );
    expect((await call(key, ({ session }) => String(session['count']))).text).toBe('1');
    expect((await call(key, me)).headers.get('vary')).toMatch(/cookie.*authorization/i);
    expect((await call(undefined, me, { headers: { authorization: `bEARER  ${key}` } })).text).toBe('ann');
    const off = await call(key, me, {}, cookiesOnly);
    expect([off.text, off.headers.get('vary')]).toEqual(['null', 'Cookie']);
  });

  test('may send other tokens and malformed keys, which cost no query', async () => {
    const key = await handOut();
    const token = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U';
    for (const authorization of [
      '',
      'Bearer',
      `Bearer ${token}`,
      `Basic ${key}`,
      key,
      `Bearer ${key}x`,
      `Bearer ${key}, x`,
      `Bearer x ${key}`,
    ]) {
      const seen: Handler = ({ identity, request }) => `${identity.userId} ${request.headers.authorization}`;
      const answer = await call(undefined, seen, { headers: { authorization } });
      expect(said(answer)).toEqual([`null ${authorization}`, [], null]);
    }
  });

  test('gets a new key in a header: by age with a grace period, by a change of rights without one', async () => {
    const key = await handOut();
    clock.advance(11 * 60_000);
    const renewed = await call(key, me);
    const next = renewed.headers.get('visit-key')!;
    expect(said(renewed)).toEqual(['ann', [], next]);
    expect(renewed.headers.get('cache-control')).toBe('no-store');
    expect([next === key, next.slice(0, 32) === key.slice(0, 32)]).toEqual([false, true]);
    // The response was lost: the key from before is good, and brings a new one in a while.
    expect(said(await call(key, me))).toEqual(['ann', [], null]);
    clock.advance(31_000);
    const again = (await call(key, me)).headers.get('visit-key')!;
    expect(again).toMatch(/^[0-9a-f]{32}\./);
    expect(said(await call(again, me))).toEqual(['ann', [], null]);
    clock.advance(31_000);
    expect((await call(key, me)).text).toBe('null');
    const elevated = await call(again, ({ identity }) => identity.reauthenticate());
    expect(elevated.cookies).toEqual([]);
    expect((await call(again, me)).text).toBe('null');
    expect((await call(elevated.headers.get('visit-key')!, me)).text).toBe('ann');
  });

  test('signs in with its own visit, or with a key that is no longer valid', async () => {
    const { key } = await app.ask(app.browser(), async ({ visits }) => visits.create());
    const login = await call(key, ({ identity }) => identity.login('bob'));
    const own = login.headers.get('visit-key')!;
    expect([login.cookies, own.slice(0, 32)]).toEqual([[], key.slice(0, 32)]);
    expect((await call(own, me)).text).toBe('bob');
    clock.advance(30 * 60_000);
    const anew = await call(own, ({ identity }) => identity.login('bob'));
    expect(anew.cookies).toEqual([]);
    expect((await call(anew.headers.get('visit-key')!, me)).text).toBe('bob');
  });

  test('is not notified when it signs out or its visit ends, and is anonymous afterwards', async () => {
    const [key, other] = [await handOut(), await handOut()];
    const out = await call(key, ({ identity }) => identity.logout());
    expect([out.cookies, out.headers.get('visit-key'), out.headers.get('clear-site-data')]).toEqual([[], null, null]);
    await call(undefined, ({ visits }) => visits.end(other.slice(0, 32), 'revoked', { anyUser: true }));
    for (const ended of [key, other]) expect(said(await call(ended, me))).toEqual(['null', [], null]);
  });

  test('of a permanent visit is not sent its key again', async () => {
    const { key } = await headersFirst.ask(headersFirst.browser(), async ({ visits }) =>
      visits.create({ userId: 'ann', permanent: true }),
    );
    clock.advance(4 * 86_400_000);
    expect(said(await call(key, me, {}, headersFirst))).toEqual(['ann', [], null]);
  });

  test('F1, F2: needs no proof of its origin; one that sends our cookie does, whatever else it sends', async () => {
    const key = await handOut();
    const post = async (headers: Record<string, string>, cookie: string | null = null, at = app): Promise<number> =>
      (await at.call(at.browser(), () => 'ok', { method: 'POST', headers, cookie })).status;
    const cross = { 'sec-fetch-site': 'cross-site', ...FOREIGN };
    const passes = 200;
    expect(await post(bearer(key))).toBe(passes);
    expect(await post({ ...bearer(key), ...cross })).toBe(passes);
    expect(await post({ ...bearer(key), ...cross }, 'theme=dark')).toBe(passes);
    for (const cookie of [`visit=${key}`, 'visit=', 'visit=x', `theme=dark; visit=${key}`])
      expect(await post({ ...bearer(key), ...cross }, cookie), cookie).toBe(403);
    expect(await post(bearer(key), `visit=${key}`)).toBe(403);
    expect(await post(cross, `visit=${key}`)).toBe(403);
    for (const authorization of ['Bearer 1', `Basic ${key}`, 'Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln'])
      expect(await post({ authorization, ...cross }), authorization).toBe(403);
    // Where headers are not read, they prove nothing.
    expect(await post({ ...bearer(key), ...cross }, null, cookiesOnly)).toBe(403);
    expect(await post(bearer(key), null, cookiesOnly)).toBe(403);
  });

  test.each([
    ['cookie, header', () => app, 'bob'],
    ['header, cookie', () => headersFirst, 'ann'],
  ] as const)(
    'that also sends the cookie of another visit is identified by the first source: %s',
    async (_, at, user) => {
      const key = await handOut(at());
      const browser = at().browser();
      await at().call(browser, ({ identity }) => identity.login('bob'));
      const cookie = browser.jar.get('visit')!;
      const both = (handler: Handler): Promise<Answer> => at().call(browser, handler, { headers: bearer(key) });
      expect((await both(me)).text).toBe(user);
      const changed = await both(({ identity }) => identity.reauthenticate());
      const isByCookie = user === 'bob';
      expect([changed.cookies.length, changed.headers.has('visit-key')]).toEqual([isByCookie ? 1 : 0, !isByCookie]);
      expect(browser.jar.get('visit') === cookie).toBe(!isByCookie);
      const now = changed.headers.get('visit-key') ?? key;
      const out = await at().call(browser, ({ identity }) => identity.logout(), { headers: bearer(now) });
      expect([out.cookies.length, browser.jar.has('visit')]).toEqual([isByCookie ? 1 : 0, !isByCookie]);
      expect((await call(now, me, {}, at())).text).toBe(isByCookie ? 'ann' : 'null');
    },
  );

  test('that sends the same key in both ways counts as a browser', async () => {
    const browser = app.browser();
    await app.call(browser, ({ identity }) => identity.login('bob'));
    const both = { headers: bearer(browser.jar.get('visit')!) };
    const changed = await app.call(browser, ({ identity }) => identity.reauthenticate(), both);
    expect([changed.cookies.length, changed.headers.has('visit-key')]).toEqual([1, false]);
  });

  test('that also sends an invalid cookie keeps its own key, and the cookie is not changed', async () => {
    const key = await handOut();
    const dead = await handOut();
    await call(undefined, ({ visits }) => visits.end(dead.slice(0, 32), 'revoked', { anyUser: true }));
    const ask = { headers: bearer(key), cookie: `visit=${dead}` };
    expect(said(await app.call(app.browser(), me, ask))).toEqual(['ann', [], null]);
    const changed = await app.call(app.browser(), ({ identity }) => identity.reauthenticate(), ask);
    expect(changed.cookies).toEqual([]);
    expect((await call(changed.headers.get('visit-key')!, me)).text).toBe('ann');
  });

  describe.each([
    ['a handler that accepts only keys in headers', () => cookiesOnly],
    ['an application that accepts only keys in headers', () => headersOnly],
  ] as const)('with %s', (_, at) => {
    const post = (path: string, ask: Ask = {}, browser?: Browser): Promise<Answer> =>
      (browser ?? at().browser()).post(path, ask);

    test('signs in there without a cookie, token or origin; pages of other sites cannot', async () => {
      const login = await post('/app/login');
      const key = login.headers.get('visit-key')!;
      expect([login.status, login.cookies, JSON.parse(login.text)]).toEqual([201, [], { key }]);
      expect(
        (
          await at()
            .browser()
            .get('/app/me', { headers: bearer(key) })
        ).text,
      ).toBe('ann');
      expect(
        (
          await at()
            .browser()
            .get('/app/me', { headers: bearer(key) })
        ).headers.get('vary'),
      ).toMatch(/authorization/i);
      expect(
        (
          await at()
            .browser()
            .get('/app/me', { cookie: `visit=${key}` })
        ).status,
      ).toBe(401);
      expect((await post('/app/login', { headers: FOREIGN })).status).toBe(403);
      expect((await post('/app/login', { cookie: `visit=${key}` })).status).toBe(403);
    });

    test('has exclusive access to its session', async () => {
      const headers = bearer((await post('/app/login')).headers.get('visit-key')!);
      const answers = await Promise.all(Array.from({ length: 5 }, () => post('/app/add', { headers })));
      expect(answers.map(({ text }) => (JSON.parse(text) as { count: number }).count).sort((a, b) => a - b)).toEqual([
        1, 2, 3, 4, 5,
      ]);
    });
  });

  test('that is a page of a trusted site begins a visit by its header', async () => {
    const headers = { 'sec-fetch-site': 'cross-site', origin: 'https://friend.example' };
    const begun = await call(
      undefined,
      ({ session }) => void (session['count'] = 1),
      { method: 'POST', headers },
      headersOnly,
    );
    const key = begun.headers.get('visit-key')!;
    expect((await call(key, ({ session }) => String(session['count']), {}, headersOnly)).text).toBe('1');
  });

  test('leaves the cookie of a browser alone if the handler does not accept cookies', async () => {
    const browser = cookiesOnly.browser();
    await cookiesOnly.call(browser, ({ identity }) => identity.login('bob'));
    const login = await browser.post('/app/login', { headers: { 'sec-fetch-site': 'same-origin' } });
    expect([login.status, login.cookies]).toEqual([201, []]);
    expect((await cookiesOnly.call(browser, me)).text).toBe('bob');
  });
});

test('A store that keeps visits in cookies refuses clients without cookies at startup', async () => {
  const store = new SealedCookieVisitStore({ secrets: [Buffer.alloc(32, 1).toString('base64')] });
  const init = async (options: VisitSettings, controllers: (typeof AppController)[] = []): Promise<unknown> => {
    @Module({ imports: [VisitModule.forRoot({ store, ...options })], controllers })
    class AppModule {}
    const module = await Test.createTestingModule({ imports: [AppModule] })
      .setLogger(false as never)
      .compile();
    try {
      return await module.init();
    } finally {
      await module.close();
    }
  };
  await expect(init({ source: 'cookie, header' })).rejects.toThrow(
    'option "source" must have "cookie" and no "header"',
  );
  await expect(init({}, [AppController])).rejects.toThrow('AppController.login() must have "cookie" and no "header"');
});
