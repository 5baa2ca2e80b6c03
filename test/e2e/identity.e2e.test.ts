import { Body, Controller, Delete, Get, Header, Param, Post, Query } from '@nestjs/common';
import {
  CurrentUserId,
  IdentityService,
  RequireFresh,
  RequireIdentity,
  Session,
  VisitPlugin,
  VisitService,
  type EndedVisit,
} from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { describeStacks, type RunningApp, type Stack } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { Gates } from '../support/gates.js';

@VisitPlugin()
class Ends {
  readonly seen: EndedVisit[] = [];

  onVisitEnded(visit: EndedVisit): void {
    this.seen.push(visit);
  }
}

@Controller()
class IdentityController {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly session: Session,
    private readonly gates: Gates,
  ) {}

  @Get('who')
  async who(@CurrentUserId() userId: string | null) {
    return {
      userId,
      same: userId === this.identity.userId,
      user: await this.identity.user(),
      again: (await this.identity.user()) ?? null,
    };
  }

  @Post('login')
  async login(@Body() body: { user: string | number; permanent?: boolean }, @Query('gate') gate = '') {
    await this.gates.pass(gate);
    await this.identity.login(body.user, body.permanent === undefined ? {} : { permanent: body.permanent });
    return { userId: this.identity.userId };
  }

  @Post('cart-and-login')
  async cartAndLogin(@Body() { user, permanent }: { user: string; permanent?: boolean }, @Query('gate') gate = '') {
    await this.gates.pass(gate);
    this.session['cart'] = user;
    await this.identity.login(user, permanent === undefined ? {} : { permanent });
  }

  @Post('change-password')
  async changePassword(@Body() body: { user: string }) {
    await this.visits.endAllForUser(body.user);
    await this.identity.login(body.user);
  }

  @Post('logout')
  async logout(@Query('keep') keep?: string) {
    await this.identity.logout({ keepVisit: keep === '1' });
    if (keep === 'flash') this.session.flash('notice', 'Good bye');
    return { userId: this.identity.userId };
  }

  @Post('forget')
  @Header('Clear-Site-Data', '"*"')
  async forget() {
    await this.identity.logout();
  }

  @Post('reauthenticate')
  async reauthenticate() {
    await this.identity.reauthenticate();
    return { at: this.identity.authenticatedAt };
  }

  @Post('renew')
  async renew() {
    await this.visits.renew();
  }

  @Post('set')
  set(@Body() body: Record<string, unknown>) {
    for (const [key, value] of Object.entries(body)) this.session[key] = value;
  }

  @Get('data')
  data() {
    return Object.fromEntries(this.session.entries());
  }

  @Get('waiting')
  async waiting(@Query('gate') gate: string, @Query('write') write?: string) {
    const before = this.identity.userId;
    await this.gates.pass(gate);
    if (write) this.session['written'] = write;
    return { before, after: this.identity.userId };
  }

  @Get('secret')
  @RequireIdentity()
  secret(@CurrentUserId() userId: string) {
    return `for ${userId}`;
  }

  @Get('fresh')
  @RequireFresh({ maxAge: '15m' })
  fresh() {
    return 'fresh';
  }

  @Get('visits')
  @RequireIdentity()
  list(@CurrentUserId() userId: string) {
    return this.visits.listForUser(userId);
  }

  @Delete('visits/others')
  endOthers() {
    return this.visits.endOthers();
  }

  @Delete('visits/:id')
  async end(@Param('id') id: string, @Query('gate') gate = '') {
    await this.gates.pass(gate);
    return String(await this.visits.end(id));
  }

  @Delete('recent/visits/:id')
  @RequireFresh({ maxAge: '15m' })
  endRecently(@Param('id') id: string) {
    return this.visits.end(id);
  }

  @Delete('users/:id')
  async endAllOf(@Param('id') id: string, @Query('gate') gate = '') {
    await this.gates.pass(gate);
    return this.visits.endAllForUser(id);
  }

  @Delete('everything')
  async endAll(@Query('gate') gate = '') {
    await this.gates.pass(gate);
    return this.visits.endAll();
  }
}

const parts = { controllers: [IdentityController], providers: [Gates, Ends] };
let people = 0;
/** A user of this test alone. */
const someone = (): string => `user ${++people} ä`;

describeStacks('Identity', (stack: Stack) => {
  const start = (options = {}): Promise<RunningApp> => stack.start(parts, options);
  const json = (answer: { text: string }): Record<string, unknown> =>
    JSON.parse(answer.text) as Record<string, unknown>;
  const key = (browser: { jar: Map<string, string> }): string => browser.jar.get('visit')!;

  async function signedIn(app: RunningApp, user = someone(), more: object = {}) {
    const browser = app.browser();
    const answer = await browser.post('/login', { json: { user, ...more } });
    expect(answer.status, answer.text).toBe(201);
    return { browser, user, answer };
  }

  describe('at sign-in', () => {
    test('R37, R38: the user is known from then on, without a query; loadUser is called once per request', async () => {
      let calls = 0;
      const app = await start({ identity: { loadUser: (userId: string) => ({ name: `${userId}!`, calls: ++calls }) } });
      const { browser, user } = await signedIn(app);
      let answer: Record<string, unknown> = {};
      expect(await stack.statements(async () => (answer = json(await browser.get('/who'))))).toHaveLength(1);
      expect(answer).toEqual({
        userId: user,
        same: true,
        user: { name: `${user}!`, calls: 1 },
        again: { name: `${user}!`, calls: 1 },
      });
      expect(json(await app.browser().get('/who'))).toEqual({ userId: null, same: true, user: null, again: null });
    });

    test('R37, ASVS 7.6.2: a visitor is never signed in without signing in, however long a visit lasts', async () => {
      let calls = 0;
      const app = await start({ identity: { loadUser: () => ++calls } });
      const browser = app.browser();
      await browser.post('/set', { json: { user: 'root', userId: 'root', cart: 1 } });
      for (const path of ['/renew', '/reauthenticate', '/logout?keep=1']) {
        await browser.post(path, { json: { user: 'root', userId: 'root' } });
        expect(json(await browser.get('/who?user=root&userId=root'))).toEqual({
          userId: null,
          same: true,
          user: null,
          again: null,
        });
        expect((await browser.get('/secret')).status).toBe(401);
      }
      expect(calls).toBe(0);
      expect(await app.app.get(VisitService).find(key(browser).slice(0, 32))).toMatchObject({
        userId: null,
        endedAt: null,
      });
      await browser.post('/login', { json: { user: someone() } });
      expect((await browser.get('/secret')).status).toBe(200);
    });

    test('R37: a number is a valid id; case and trailing spaces are significant', async () => {
      const app = await start();
      expect(json(await (await signedIn(app, 42 as never)).browser.get('/data'))).toEqual({});
      const name = someone();
      const lower = await signedIn(app, `${name}a`);
      for (const other of [`${name}A`, `${name}a `]) await signedIn(app, other);
      expect(await app.app.get(VisitService).listForUser(`${name}a`)).toHaveLength(1);
      expect(await app.app.get(VisitService).endAllForUser(`${name}A`)).toBe(1);
      expect((await lower.browser.get('/secret')).status).toBe(200);
    });

    test.each(['', 'x'.repeat(256), null, 1.5, 'a\0b'])('a user id must be valid: %j', async (user) => {
      const app = await start();
      expect((await app.browser().post('/login', { json: { user } })).status).toBe(500);
    });

    test('R39, B23, B24: the key is renewed, the visit and its data are kept, and the old key is invalid', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/set', { json: { cart: 1 } });
      const before = key(browser);
      const answer = await browser.post('/login', { json: { user: someone() } });
      expect(answer.cookies).toHaveLength(1);
      expect(key(browser)).not.toBe(before);
      expect(key(browser).slice(0, 32)).toBe(before.slice(0, 32));
      expect(json(await browser.get('/data'))).toEqual({ cart: 1 });
      const old = app.browser();
      expect((await old.get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
      stack.clock.advance(60_000);
      expect((await old.get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
      expect((await browser.get('/secret')).status).toBe(200);
    });

    test('B17, B2: a late request with the old key is anonymous, and writes neither data nor cookie', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/set', { json: { cart: 1 } });
      const tab = browser.clone();
      await browser.post('/login', { json: { user: someone() } });
      const late = await tab.get('/data');
      expect(late.cookies).toEqual([]);
      expect(json(late)).toEqual({});
      const writing = await tab.post('/set', { json: { late: true } });
      expect(writing.status).toBe(409);
      expect(writing.cookies).toEqual([]);
      expect(json(await browser.get('/data'))).toEqual({ cart: 1 });
      stack.clock.advance(60_000);
      expect((await tab.post('/set', { json: { fresh: true } })).cookies).toHaveLength(1);
    });

    test('R31, B3: a request that began earlier neither sees the user nor writes', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/set', { json: { cart: 1 } });
      const gate = app.app.get(Gates).make('before');
      const slow = browser.clone().get('/waiting?gate=before&write=x');
      await gate.arrived;
      await browser.post('/login', { json: { user: someone() } });
      gate.open();
      const answer = await slow;
      expect(answer.status).toBe(409);
      expect(answer.cookies).toEqual([]);
      expect(json(await browser.get('/data'))).toEqual({ cart: 1 });
    });

    test('R39: of two concurrent sign-ins with one key, one gets the visit and the other a new one', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/set', { json: { cart: 1 } });
      const users = [someone(), someone()];
      const gates = users.map((_, i) => app.app.get(Gates).make(`login ${i}`));
      const tabs = users.map(() => browser.clone());
      const logins = users.map((user, i) => tabs[i]!.post(`/login?gate=login ${i}`, { json: { user } }));
      await Promise.all(gates.map((gate) => gate.arrived));
      for (const gate of gates) gate.open();
      expect((await Promise.all(logins)).map(({ status }) => status)).toEqual([201, 201]);
      const ids = tabs.map((tab) => key(tab).slice(0, 32));
      const winner = ids.indexOf(key(browser).slice(0, 32));
      expect(ids[1 - winner]).not.toBe(ids[winner]);
      for (const [i, tab] of tabs.entries()) expect((await tab.get('/secret')).text).toBe(`for ${users[i]}`);
      expect(json(await tabs[winner]!.get('/data'))).toEqual({ cart: 1 });
      expect(json(await tabs[1 - winner]!.get('/data'))).toEqual({});
      expect((await app.browser().get('/secret', { cookie: `visit=${key(browser)}` })).status).toBe(401);
    });

    test('another user gets a new visit, without any data of the first user', async () => {
      const app = await start();
      const { browser, user } = await signedIn(app);
      await browser.post('/set', { json: { private: user } });
      const before = key(browser);
      const next = someone();
      await browser.post('/login', { json: { user: next } });
      expect(key(browser).slice(0, 32)).not.toBe(before.slice(0, 32));
      expect(json(await browser.get('/data'))).toEqual({});
      expect((await browser.get('/secret')).text).toBe(`for ${next}`);
      expect(await app.app.get(VisitService).find(before.slice(0, 32))).toMatchObject({
        endReason: 'replaced',
        userId: user,
      });
    });

    test('R36: one visit can be permanent while others are not', async () => {
      const app = await start({ permanentTimeout: '30d' });
      const { answer, browser } = await signedIn(app, someone(), { permanent: true });
      expect(answer.cookies[0]).toContain('Max-Age=2592000');
      const ordinary = await signedIn(app);
      expect(ordinary.answer.cookies[0]).not.toContain('Max-Age');
      stack.clock.advance(24 * 3_600_000);
      expect((await browser.get('/secret')).status).toBe(200);
      expect((await ordinary.browser.get('/secret')).status).toBe(401);
    });
  });

  describe('data that a request has set before it signs in', () => {
    test.each([[undefined], [true], [false]])(
      'R39: is kept, in the first visit of a browser, permanent: %s',
      async (permanent) => {
        const app = await start();
        const browser = app.browser();
        const answer = await browser.post('/cart-and-login', { json: { user: 'Ann', permanent } });
        expect(answer.status).toBe(201);
        expect(answer.cookies).toHaveLength(1);
        expect(answer.cookies[0]!.includes('Max-Age')).toBe(permanent === true);
        expect(json(await browser.get('/data'))).toEqual({ cart: 'Ann' });
      },
    );

    test('R39: is kept if the key of the request has been replaced in the meantime', async () => {
      const app = await start();
      const { browser, user } = await signedIn(app);
      const late = browser.clone();
      await browser.post('/reauthenticate');
      expect((await late.post('/cart-and-login', { json: { user } })).status).toBe(201);
      expect(json(await late.get('/data'))).toEqual({ cart: user });
      expect(json(await browser.get('/data'))).toEqual({});
    });
  });

  describe('at sign-out', () => {
    test('R40, B32: the visit ends, the cookie is cleared, and the old key is invalid in every process', async () => {
      const app = await start();
      const other = await start();
      const { browser } = await signedIn(app);
      const old = key(browser);
      const answer = await browser.post('/logout');
      expect(json(answer)).toEqual({ userId: null });
      expect(answer.cookies[0]).toContain('Max-Age=0');
      for (const one of [app, other])
        expect((await one.browser().get('/secret', { cookie: `visit=${old}` })).status).toBe(401);
    });

    test('B1, B2: a request in flight neither signs in again nor restores a cookie', async () => {
      const app = await start();
      const { browser } = await signedIn(app);
      const gate = app.app.get(Gates).make('out');
      const slow = browser.clone().get('/waiting?gate=out&write=x');
      await gate.arrived;
      const tab = browser.clone();
      await browser.post('/logout');
      gate.open();
      expect(await slow).toMatchObject({ status: 409, cookies: [] });
      expect(await tab.get('/data')).toMatchObject({ status: 200, cookies: [] });
      expect(await tab.post('/set', { json: { late: 1 } })).toMatchObject({ status: 409, cookies: [] });
      expect((await tab.get('/secret')).status).toBe(401);
    });

    test('a message can be stored for the next page', async () => {
      const app = await start();
      const { browser } = await signedIn(app);
      const before = key(browser);
      await browser.post('/logout?keep=flash');
      expect(key(browser).slice(0, 32)).not.toBe(before.slice(0, 32));
      expect(json(await browser.get('/data'))).toEqual({ notice: 'Good bye' });
    });

    test('R40: or the visit is kept with a new key and without the user', async () => {
      const app = await start();
      const { browser } = await signedIn(app);
      await browser.post('/set', { json: { cart: 1 } });
      const before = key(browser);
      await browser.post('/logout?keep=1');
      expect(key(browser).slice(0, 32)).toBe(before.slice(0, 32));
      expect(key(browser)).not.toBe(before);
      expect(json(await browser.get('/data'))).toEqual({ cart: 1 });
      expect((await browser.get('/secret')).status).toBe(401);
      expect((await app.browser().get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
    });

    describe('and other data of the site in the browser', () => {
      const sent = async (browser: Browser, path: string, method = 'POST'): Promise<string | null> => {
        const answer = await browser.get(path, { method });
        expect(answer.status, answer.text).toBeLessThan(300);
        return answer.headers.get('clear-site-data');
      };

      test('ASVS 14.3.1: is cleared if the option is set', async () => {
        const wanted = [
          [undefined, null],
          [false, null],
          [true, '"cache", "storage"'],
          [['storage', 'cookies', 'storage'], '"storage", "cookies"'],
        ] as const;
        for (const [clearSiteData, header] of wanted) {
          const app = await start({ cookie: { clearSiteData } });
          expect(await sent((await signedIn(app)).browser, '/logout')).toBe(header);
        }
      });

      test('ASVS 14.3.1: at each end of the browser’s own visit, and at no other time', async () => {
        const app = await start({ cookie: { clearSiteData: true } });
        const cleared = async (method: string, path: string): Promise<boolean> => {
          const { browser, user } = await signedIn(app);
          return (
            (await sent(browser, path.replace(':user', user).replace(':own', key(browser).slice(0, 32)), method)) !==
            null
          );
        };
        for (const path of [
          'POST /logout',
          'POST /logout?keep=1',
          'POST /logout?keep=flash',
          'DELETE /visits/:own',
          'DELETE /users/:user',
        ]) {
          expect(await cleared(...(path.split(' ') as [string, string])), path).toBe(true);
        }
        for (const path of [
          'POST /reauthenticate',
          'POST /renew',
          'DELETE /visits/others',
          `DELETE /visits/${'0'.repeat(32)}`,
          'GET /secret',
        ]) {
          expect(await cleared(...(path.split(' ') as [string, string])), path).toBe(false);
        }
        const { browser, user } = await signedIn(app);
        expect((await browser.post('/login', { json: { user } })).headers.get('clear-site-data')).toBeNull();
        expect(
          (await browser.post('/login', { json: { user: `${user}-other` } })).headers.get('clear-site-data'),
        ).not.toBeNull();
        // The visit may have expired before: who signs out then wants the same.
        expect(await sent(app.browser(), '/logout')).not.toBeNull();
      });

      test('ASVS 14.3.1: but not a cookie that is sent with the same response', async () => {
        const app = await start({ cookie: { clearSiteData: ['cookies', 'cache'] } });
        for (const path of ['/logout?keep=1', '/logout?keep=flash']) {
          const { browser } = await signedIn(app);
          expect(await sent(browser, path)).toBe('"cache"');
          expect(browser.jar.size).toBe(1);
        }
        const only = await start({ cookie: { clearSiteData: ['cookies'] } });
        expect(await sent((await signedIn(only)).browser, '/logout?keep=1')).toBeNull();
      });

      test('ASVS 14.3.1: a header of the handler is not changed', async () => {
        const app = await start({ cookie: { clearSiteData: true } });
        expect(await sent((await signedIn(app)).browser, '/forget')).toBe('"*"');
      });

      test('ASVS 14.3.1, B2: a late request does not clear the cookie', async () => {
        const app = await start({ cookie: { clearSiteData: true } });
        const { browser } = await signedIn(app);
        const late = browser.clone();
        await browser.post('/reauthenticate');
        const { status, headers } = await late.post('/logout');
        expect([status, headers.get('clear-site-data')]).toEqual([409, null]);
      });
    });

    test('B35: of an anonymous visitor creates no row', async () => {
      const app = await start();
      const before = (await stack.rows()).length;
      for (const keep of ['', '?keep=1']) expect((await app.browser().post(`/logout${keep}`)).status).toBe(201);
      expect(await stack.rows()).toHaveLength(before);
    });
  });

  test('R41, ASVS 7.5.1, 7.5.3: guards admit users who are signed in, or who signed in recently', async () => {
    const app = await start({ timeout: '5h' });
    expect(json(await app.browser().get('/secret'))).toMatchObject({
      statusCode: 401,
      code: 'VISIT_IDENTITY_REQUIRED',
    });
    const { browser } = await signedIn(app);
    expect((await browser.get('/fresh')).status).toBe(200);
    stack.clock.advance(16 * 60_000);
    expect(json(await browser.get('/fresh'))).toMatchObject({ statusCode: 401, code: 'VISIT_FRESH_IDENTITY_REQUIRED' });
    const before = key(browser);
    await browser.post('/reauthenticate');
    expect(key(browser)).not.toBe(before);
    expect((await browser.get('/fresh')).status).toBe(200);
    expect((await app.browser().post('/reauthenticate')).status).toBe(401);
  });

  test('ASVS 7.5.2: a handler that ends visits can require a recent sign-in', async () => {
    const app = await start({ timeout: '5h' });
    const { browser, user } = await signedIn(app);
    const { browser: other } = await signedIn(app, user);
    stack.clock.advance(16 * 60_000);
    const end = () => browser.get(`/recent/visits/${key(other).slice(0, 32)}`, { method: 'DELETE' });
    expect(json(await end())).toMatchObject({ statusCode: 401, code: 'VISIT_FRESH_IDENTITY_REQUIRED' });
    expect((await other.get('/secret')).status).toBe(200);
    await browser.post('/reauthenticate');
    expect((await end()).text).toBe('true');
    expect((await other.get('/secret')).status).toBe(401);
  });

  test('B17: renew() only changes the key: the old one works for a grace period, and gets no cookie', async () => {
    const app = await start();
    const { browser, user } = await signedIn(app);
    const before = key(browser);
    await browser.post('/renew');
    expect(key(browser)).not.toBe(before);
    expect((await browser.get('/secret')).text).toBe(`for ${user}`);
    const late = await app.browser().post('/set', { json: { late: 1 }, cookie: `visit=${before}` });
    expect(late).toMatchObject({ status: 201, cookies: [] });
    expect(json(await browser.get('/data'))).toEqual({ late: 1 });
    stack.clock.advance(30_000);
    expect(await app.browser().get('/secret', { cookie: `visit=${before}` })).toMatchObject({
      status: 401,
      cookies: [],
    });
    stack.clock.advance(30_000);
    expect((await app.browser().get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
    expect((await browser.get('/secret')).text).toBe(`for ${user}`);
  });

  test('B17: of concurrent renewals one counts, and no browser or request in flight loses the visit', async () => {
    const app = await start();
    const { browser, user } = await signedIn(app);
    const gate = app.app.get(Gates).make('renewing');
    const slow = browser.clone().get('/waiting?gate=renewing&write=x');
    await gate.arrived;
    const tabs = [browser.clone(), browser.clone(), browser.clone()];
    const answers = await Promise.all(tabs.map((tab) => tab.post('/renew')));
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201]);
    const cookies = answers.flatMap((answer) => answer.cookies);
    expect(cookies).toHaveLength(1);
    expect((await tabs[0]!.post('/renew')).status).toBe(201);
    gate.open();
    expect(await slow).toMatchObject({ status: 200, cookies: [] });
    stack.clock.advance(60_000);
    const renewed = tabs.find((tab) => key(tab) !== key(browser))!;
    expect((await renewed.get('/secret')).text).toBe(`for ${user}`);
  });

  test('B24, S6: a sign-in ends the grace period of an older key', async () => {
    const app = await start();
    const { browser } = await signedIn(app, 'first');
    const before = key(browser);
    await browser.post('/renew');
    await browser.post('/reauthenticate');
    expect((await app.browser().get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
  });

  describe('accessed by other requests', () => {
    test('R42, ASVS 7.5.2: lists and ends the visits of a user by public id, with immediate effect', async () => {
      const app = await start();
      const other = await start();
      const { browser, user } = await signedIn(app);
      const second = await signedIn(other, user);
      const third = await signedIn(other, user);
      const list = JSON.parse((await browser.get('/visits')).text) as { id: string; isCurrent: boolean }[];
      expect(list.map(({ id }) => id).sort()).toEqual(
        [browser, second.browser, third.browser].map((one) => key(one).slice(0, 32)).sort(),
      );
      expect(list.filter(({ isCurrent }) => isCurrent).map(({ id }) => id)).toEqual([key(browser).slice(0, 32)]);
      expect(JSON.stringify(list)).not.toContain(key(second.browser).slice(33));

      expect((await browser.get(`/visits`)).status).toBe(200);
      expect(await app.app.get(VisitService).end(key(second.browser).slice(0, 32), 'revoked', { anyUser: true })).toBe(
        true,
      );
      expect(await app.app.get(VisitService).end(key(second.browser).slice(0, 32), 'revoked', { anyUser: true })).toBe(
        false,
      );
      expect((await second.browser.get('/secret')).status).toBe(401);
      // Whoever did not end the visit themselves gets a new one, at once.
      expect((await second.browser.post('/set', { json: { a: 1 } })).cookies).toHaveLength(1);
      expect((await third.browser.get('/secret')).status).toBe(200);
    });

    test('R42, B29, ASVS 7.4.2, 7.4.3: ends all other visits, or all', async () => {
      const app = await start();
      const { browser, user } = await signedIn(app);
      const others = [await signedIn(app, user), await signedIn(app, user)];
      const stranger = await signedIn(app);
      const send = (path: string) => browser.get(path, { method: 'DELETE' });
      expect((await send('/visits/others')).text).toBe('2');
      for (const one of others) expect((await one.browser.get('/secret')).status).toBe(401);
      expect((await browser.get('/secret')).status).toBe(200);
      stack.clock.advance(1);
      await signedIn(app, user);
      const answer = await send(`/users/${encodeURIComponent(user)}`);
      expect(answer.text).toBe('2');
      expect(answer.cookies[0]).toContain('Max-Age=0');
      expect(await app.app.get(VisitService).listForUser(user)).toEqual([]);
      expect((await stranger.browser.get('/secret')).status).toBe(200);
    });

    test('B7: a sign-in that began before the end of all visits does not survive it; a later one does', async () => {
      const app = await start();
      const other = await start();
      for (const endAll of [(user: string) => `/users/${encodeURIComponent(user)}`, () => '/everything']) {
        const user = someone();
        for (const fresh of [true, false]) {
          const browser = app.browser();
          if (!fresh) await browser.post('/set', { json: { cart: 1 } });
          const gate = app.app.get(Gates).make('slow login');
          const slow = browser.post('/login?gate=slow login', { json: { user } });
          await gate.arrived;
          expect((await other.browser().get(endAll(user), { method: 'DELETE' })).status).toBe(200);
          gate.open();
          expect((await slow).status).toBe(409);
          expect((await browser.get('/secret')).status).toBe(401);
          expect(await app.app.get(VisitService).listForUser(user)).toEqual([]);
        }
        stack.clock.advance(1);
        expect((await (await signedIn(app, user)).browser.get('/secret')).status).toBe(200);
      }
    });

    test('B2, B7: a late sign-in with a late key keeps the cookie, because the browser has a newer one', async () => {
      const app = await start({ cookie: { clearSiteData: true } });
      const { browser } = await signedIn(app);
      const late = browser.clone();
      await browser.post('/reauthenticate');
      const bob = someone();
      const gate = app.app.get(Gates).make('late login');
      const slow = late.post('/login?gate=late login', { json: { user: bob } });
      await gate.arrived;
      await app.app.get(VisitService).endAllForUser(bob);
      gate.open();
      const answer = await slow;
      expect(answer).toMatchObject({ status: 409, cookies: [] });
      expect(answer.headers.has('clear-site-data')).toBe(false);
      expect((await browser.get('/secret')).status).toBe(200);
    });

    test('B7: a request that ends all visits can sign in', async () => {
      const app = await start();
      const { browser, user } = await signedIn(app);
      expect((await browser.post('/change-password', { json: { user } })).status).toBe(201);
      expect((await browser.get('/secret')).text).toBe(`for ${user}`);
    });

    test('a visit that another request has ended is not counted', async () => {
      const app = await start();
      const visits = app.app.get(VisitService);
      for (const path of ['/visits/:visit', '/users/:user', '/everything']) {
        const { browser, user } = await signedIn(app);
        const [own] = await visits.listForUser(user);
        const gate = app.app.get(Gates).make(path);
        const address = path.replace(':visit', own!.id).replace(':user', user);
        const slow = browser.get(`${address}?gate=${path}`, { method: 'DELETE' });
        await gate.arrived;
        await visits.endAll();
        gate.open();
        expect((await slow).text, path).toBe(path === '/visits/:visit' ? 'false' : '0');
        stack.clock.advance(1);
      }
    });

    test('R72: each end is reported once', async () => {
      const app = await start();
      const ends = app.app.get(Ends);
      ends.seen.length = 0;
      const { browser, user } = await signedIn(app);
      const other = await signedIn(app, user);
      await browser.get('/visits/others', { method: 'DELETE' });
      await browser.post('/logout');
      expect(ends.seen.map(({ id, reason }) => [id, reason])).toEqual([
        [key(other.browser).slice(0, 32), 'revoked'],
        [expect.any(String), 'logout'],
      ]);
    });

    test('R42: all visits end', async () => {
      const app = await start();
      const one = await signedIn(app);
      const { browser } = await signedIn(app);
      const live = (await stack.rows()).filter(({ endedAt }) => endedAt === null).length;
      const answer = await browser.get('/everything', { method: 'DELETE' });
      expect(answer.text).toBe(String(live));
      expect(answer.cookies[0]).toContain('Max-Age=0');
      expect((await one.browser.get('/secret')).status).toBe(401);
      expect((await stack.rows()).filter(({ endedAt }) => endedAt === null)).toEqual([]);
    });

    test('R33: a visit can be created on the server', async () => {
      const app = await start();
      const user = someone();
      const { visit, key: handedOver } = await app.app.get(VisitService).create({ userId: user, permanent: true });
      expect(visit).toMatchObject({ id: handedOver.slice(0, 32), userId: user, permanent: true });
      expect((await app.browser().get('/secret', { cookie: `visit=${handedOver}` })).text).toBe(`for ${user}`);
    });

    test('an invalid id finds nothing and ends nothing', async () => {
      const app = await start();
      const visits = app.app.get(VisitService);
      for (const id of ['', 'x', '0'.repeat(32), "' OR 1=1"]) {
        expect(await visits.find(id)).toBeNull();
        expect(await visits.end(id, 'revoked', { anyUser: true })).toBe(false);
      }
    });
  });
});
