import { Body, Controller, Delete, Get, Injectable, Param, Post, Query, Req } from '@nestjs/common';
import { EventEmitter2, EventEmitterModule, OnEvent } from '@nestjs/event-emitter';
import {
  IdentityService,
  nistPolicies,
  RequireIdentity,
  Session,
  VISIT_EVENTS,
  VisitPlugin,
  VisitService,
  type EndedAll,
  type EndedVisit,
  type IdentityChange,
  type NewDevice,
  type ReachedLimit,
  type RefusedKey,
} from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { describeStacks, type RunningApp, type Stack } from '../support/app.js';

const told: [string, Record<string, unknown>][] = [];

@VisitPlugin()
class Witness {
  onVisitEnded({ id, reason }: EndedVisit): void {
    told.push(['ended', { id, reason }]);
  }
  onAllVisitsEnded({ visits, reason }: EndedAll): void {
    told.push(['everything', { visits, reason }]);
  }
  onIdentityLinked({ visitId, userId }: IdentityChange): void {
    told.push(['linked', { visitId, userId }]);
  }
  onIdentityUnlinked({ visitId, userId }: IdentityChange): void {
    told.push(['unlinked', { visitId, userId }]);
  }
  onKeyRefused({ reason, visitId }: RefusedKey): void {
    told.push(['refused', { reason, visitId }]);
  }
  onNewDevice({ visitId, userId, device, isFirst }: NewDevice): void {
    told.push(['device', { visitId, userId, device, isFirst }]);
  }
  onLimitReached(reached: ReachedLimit): void {
    told.push(['limit', { ...reached }]);
  }
}

@Injectable()
class Listener {
  readonly signedIn: IdentityChange[] = [];

  @OnEvent(VISIT_EVENTS.onIdentityLinked)
  note(change: IdentityChange): void {
    this.signedIn.push(change);
  }
}

@Controller()
class PolicyController {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly session: Session,
  ) {}

  @Post('login')
  async login(@Body() { user }: { user: string }, @Req() request: { user?: unknown }) {
    await this.identity.login(user);
    return { user: request.user };
  }

  @Post('logout')
  async logout(@Req() request: { user?: unknown }, @Query('keep') keep?: string) {
    await this.identity.logout({ keepVisit: keep === '1' });
    return { user: request.user ?? null };
  }

  @Post('reauthenticate')
  reauthenticate() {
    return this.identity.reauthenticate();
  }

  @Post('set')
  set(@Body() body: Record<string, unknown>) {
    for (const [key, value] of Object.entries(body)) this.session[key] = value;
  }

  @Get('secret')
  @RequireIdentity()
  secret() {
    return `for ${this.identity.userId}`;
  }

  @Get('user')
  user(@Req() request: { user?: unknown }) {
    return { user: request.user ?? null };
  }

  @Delete('visits/:id')
  async end(@Param('id') id: string, @Query('any') any?: string) {
    return String(await this.visits.end(id, 'revoked', { anyUser: any === '1' }));
  }
}

const parts = {
  imports: [EventEmitterModule.forRoot()],
  controllers: [PolicyController],
  providers: [Witness, Listener],
};
let people = 0;
const someone = (): string => `policy ${++people}`;

describeStacks('The policy for visits', (stack: Stack) => {
  const start = (options = {}): Promise<RunningApp> => stack.start(parts, options);
  const keyOf = (browser: { jar: Map<string, string> }): string => browser.jar.get('visit')!;
  const idOf = (browser: { jar: Map<string, string> }): string => keyOf(browser).slice(0, 32);

  async function signedIn(app: RunningApp, user = someone()) {
    const browser = app.browser();
    const answer = await browser.post('/login', { json: { user } });
    return { browser, user, answer };
  }

  const isIn = async ({ browser }: Awaited<ReturnType<typeof signedIn>>): Promise<boolean> =>
    (await browser.get('/secret')).status === 200;

  describe('on the number of visits', () => {
    test('R43, ASVS 7.1.2: the oldest sign-in ends if there are too many', async () => {
      const app = await start({ identity: { maxVisitsPerUser: 2 } });
      const user = someone();
      told.length = 0;
      const visits = [];
      for (let i = 0; i < 3; i++) {
        visits.push(await signedIn(app, user));
        stack.clock.advance(10);
      }
      expect(await Promise.all(visits.map(isIn))).toEqual([false, true, true]);
      expect(told.filter(([event]) => event === 'ended')).toEqual([
        ['ended', { id: idOf(visits[0]!.browser), reason: 'limit' }],
      ]);
      expect(told.filter(([event]) => event === 'limit')).toEqual([
        ['limit', { userId: user, maxVisitsPerUser: 2, onLimit: 'end-oldest' }],
      ]);
      // The same visit again is none more.
      await visits[2]!.browser.post('/login', { json: { user } });
      expect(await Promise.all(visits.slice(1).map(isIn))).toEqual([true, true]);
    });

    test('R43, ASVS 7.1.2: or a sign-in beyond the limit is refused, and its visit is not changed', async () => {
      const app = await start({ identity: { maxVisitsPerUser: 1, onLimit: 'refuse' } });
      const first = await signedIn(app);
      const second = app.browser();
      await second.post('/set', { json: { cart: 1 } });
      const before = keyOf(second);
      const answer = await second.post('/login', { json: { user: first.user } });
      expect(answer.status).toBe(409);
      expect(JSON.parse(answer.text)).toMatchObject({ code: 'VISIT_LIMIT' });
      expect(keyOf(second)).toBe(before);
      expect(await isIn(first)).toBe(true);
      await expect(app.app.get(VisitService).create({ userId: first.user })).rejects.toMatchObject({
        code: 'VISIT_LIMIT',
      });
      await first.browser.post('/logout');
      expect((await second.post('/login', { json: { user: first.user } })).status).toBe(201);
    });

    test.each(['end-oldest', 'refuse'] as const)(
      'R43: concurrent sign-ins on two machines do not exceed the limit: %s',
      async (onLimit) => {
        const options = { identity: { maxVisitsPerUser: 2, onLimit } };
        const apps = [await start(options), await start(options)];
        const user = someone();
        const visits = await Promise.all(Array.from({ length: 8 }, (_, i) => signedIn(apps[i % 2]!, user)));
        const statuses = visits.map(({ answer }) => answer.status);
        expect(statuses.every((status) => status === 201 || status === 409)).toBe(true);
        const alive = await Promise.all(visits.map(isIn));
        expect(alive.filter(Boolean)).toHaveLength(2);
        expect(await apps[0]!.app.get(VisitService).listForUser(user)).toHaveLength(2);
        if (onLimit === 'refuse')
          for (const [i, status] of statuses.entries()) if (status === 409) expect(alive[i]).toBe(false);
      },
    );
  });

  describe('on the number of visits, after the limit was lowered', () => {
    /** Three visits from before, the first of which was the first sign-in. */
    async function threeUnder(identity: object) {
      const [before, app] = [await start(), await start({ identity })];
      const user = someone();
      const visits = [];
      for (let i = 0; i < 3; i++) {
        const visit = await signedIn(before, user);
        visits.push({ ...visit, browser: visit.browser.via(app) });
        stack.clock.advance(10);
      }
      return { user, visits };
    }

    test.each(['/reauthenticate', '/login'])('R43: visits with the oldest authentication end, by %s', async (path) => {
      const { user, visits } = await threeUnder({ maxVisitsPerUser: 2 });
      expect(await Promise.all(visits.map(isIn))).toEqual([true, true, true]);
      told.length = 0;
      expect((await visits[0]!.browser.post(path, { json: { user } })).status).toBe(201);
      expect(await Promise.all(visits.map(isIn))).toEqual([true, false, true]);
      expect(told.filter(([event]) => event === 'ended')).toEqual([
        ['ended', { id: idOf(visits[1]!.browser), reason: 'limit' }],
      ]);
    });

    test.each(['/reauthenticate', '/login'])('R43: or the latest ones are refused, by %s', async (path) => {
      const { user, visits } = await threeUnder({ maxVisitsPerUser: 2, onLimit: 'refuse' });
      const last = visits[2]!.browser;
      const answer = await last.post(path, { json: { user } });
      expect([answer.status, (JSON.parse(answer.text) as { code: string }).code]).toEqual([409, 'VISIT_LIMIT']);
      expect(await Promise.all(visits.map(isIn))).toEqual([true, true, false]);
      expect((await visits[0]!.browser.post(path, { json: { user } })).status).toBe(201);
      expect(await Promise.all(visits.map(isIn))).toEqual([true, true, false]);
    });
  });

  describe('on time', () => {
    test('S6, B17: a key is renewed by its age; the old one works for a grace period', async () => {
      const app = await start({ renewAfter: '10m', timeout: '1h' });
      const visit = await signedIn(app);
      const old = visit.browser.clone();
      stack.clock.advance(9 * 60_000);
      expect((await visit.browser.get('/secret')).cookies).toEqual([]);
      stack.clock.advance(60_000);
      const tabs = [visit.browser.clone(), visit.browser.clone(), visit.browser.clone()];
      const answers = await Promise.all(tabs.map((tab) => tab.get('/secret')));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
      // One of them has renewed it, the others were on their way.
      expect(answers.flatMap(({ cookies }) => cookies)).toHaveLength(1);
      const renewed = tabs.find((tab) => keyOf(tab) !== keyOf(old))!;
      expect(idOf(renewed)).toBe(idOf(old));
      expect((await old.get('/secret')).status).toBe(200);
      expect((await renewed.get('/secret')).cookies).toEqual([]);
      stack.clock.advance(29_999);
      expect((await old.get('/secret')).cookies).toEqual([]);
      stack.clock.advance(30_001);
      told.length = 0;
      expect((await app.browser().get('/secret', { cookie: `visit=${keyOf(old)}` })).status).toBe(401);
      expect(told).toEqual([['refused', { reason: 'retired', visitId: idOf(old) }]]);
      expect((await renewed.get('/secret')).cookies).toEqual([]);
    });

    test('S6: an error while a key is renewed does not fail the request', async () => {
      const app = await start({ renewAfter: '10m', timeout: '1h' });
      const visit = await signedIn(app);
      stack.clock.advance(11 * 60_000);
      // Ended by others, and the key presented twice: nothing here may answer with 500.
      await app.app.get(VisitService).endAllForUser(visit.user);
      expect((await visit.browser.get('/user')).status).toBe(200);
    });

    test('N4, R24: activity only moves the idle timeout; authentication moves both', async () => {
      const app = await start({ timeout: '40m', absoluteTimeout: '1h' });
      const [busy, proven] = [await signedIn(app), await signedIn(app)];
      stack.clock.advance(30 * 60_000);
      expect(await isIn(busy)).toBe(true);
      await proven.browser.post('/reauthenticate');
      stack.clock.advance(29 * 60_000);
      expect([await isIn(busy), await isIn(proven)]).toEqual([true, true]);
      stack.clock.advance(2 * 60_000);
      expect([await isIn(busy), await isIn(proven)]).toEqual([false, true]);
      stack.clock.advance(28 * 60_000);
      expect(await isIn(proven)).toBe(true);
      stack.clock.advance(2 * 60_000);
      expect(await isIn(proven)).toBe(false);
    });

    test('ASVS 7.1.1, N4: the policy can be described, with the NIST levels that it fulfills', async () => {
      const levels = async (options: object): Promise<readonly string[]> =>
        (await start(options)).app.get(VisitService).describePolicy().nist;
      expect(await levels({})).toEqual([]);
      expect(await levels(nistPolicies.aal1)).toEqual(['AAL1']);
      expect(await levels(nistPolicies.aal2)).toEqual(['AAL1', 'AAL2']);
      expect(await levels(nistPolicies.aal3)).toEqual(['AAL1', 'AAL2', 'AAL3']);
      expect(await levels({ ...nistPolicies.aal3, permanentTimeout: '30d' })).toEqual(['AAL1']);
      const policy = (await start({ ...nistPolicies.aal3, identity: { maxVisitsPerUser: 3 } })).app
        .get(VisitService)
        .describePolicy();
      expect(policy).toMatchObject({
        idleTimeout: 900_000,
        absoluteTimeout: 43_200_000,
        renewAfter: 900_000,
        maxVisitsPerUser: 3,
      });
      expect(policy.text).toBe(
        'A visit ends after 15 minutes without a request. It ends 12 hours after its user authenticated, ' +
          'even if it is in use. ' +
          'Its key is replaced when its user signs in, signs out or authenticates again, and when it is 15 minutes ' +
          'old. ' +
          'A user may be signed in 3 times at once; a further sign-in ends the oldest one. ' +
          'The cookie "visit" is sent with Secure over https, HttpOnly, SameSite=lax, Path=/. These limits meet ' +
          'AAL1, AAL2, AAL3 of NIST SP 800-63B-4.',
      );
    });
  });

  describe('on the owner of a visit', () => {
    test('R42, ASVS 7.5.2: in a request, users can only end their own visits', async () => {
      const app = await start();
      const mine = await signedIn(app);
      const elsewhere = await signedIn(app, mine.user);
      const other = await signedIn(app);
      const anonymous = app.browser();
      await anonymous.post('/set', { json: { cart: 1 } });
      const end = async (browser: typeof anonymous, id: string, query = ''): Promise<string> =>
        (await browser.get(`/visits/${id}${query}`, { method: 'DELETE' })).text;
      expect(await end(mine.browser, idOf(other.browser))).toBe('false');
      expect(await end(anonymous, idOf(other.browser))).toBe('false');
      expect(await end(mine.browser, idOf(anonymous))).toBe('false');
      expect(await end(anonymous, '0'.repeat(32))).toBe('false');
      expect(await isIn(other)).toBe(true);
      expect(await end(mine.browser, idOf(elsewhere.browser))).toBe('true');
      expect([await isIn(elsewhere), await isIn(mine)]).toEqual([false, true]);
      expect(await end(mine.browser, idOf(other.browser), '?any=1')).toBe('true');
      expect(await isIn(other)).toBe(false);
    });

    test('R38: the user is available as request.user', async () => {
      let loads = 0;
      const identity = { requestUser: true, loadUser: (id: string) => ({ id, name: `${id}!`, loads: ++loads }) };
      const app = await start({ identity });
      const { browser, user, answer } = await signedIn(app);
      expect(JSON.parse(answer.text)).toEqual({ user: { id: user, name: `${user}!`, loads: 1 } });
      expect(JSON.parse((await browser.get('/user')).text)).toEqual({ user: { id: user, name: `${user}!`, loads: 2 } });
      expect(JSON.parse((await browser.post('/logout')).text)).toEqual({ user: null });
      expect(JSON.parse((await app.browser().get('/user')).text)).toEqual({ user: null });
      const plain = await signedIn(await start({ identity: { requestUser: true } }));
      expect(JSON.parse((await plain.browser.get('/user')).text)).toEqual({ user: { id: plain.user } });
      const off = await signedIn(await start());
      expect(JSON.parse((await off.browser.get('/user')).text)).toEqual({ user: null });
    });
  });

  describe('reports events', () => {
    test('R72, ASVS 16.3.1: each sign-in and sign-out, once', async () => {
      const app = await start();
      const events: [string, unknown][] = [];
      const emitter = app.app.get(EventEmitter2);
      emitter.onAny((event, payload) => void events.push([String(event), payload]));
      emitter.on(VISIT_EVENTS.onVisitEnded, () => {
        throw new Error('a listener that fails');
      });
      const browser = app.browser();
      await browser.post('/set', { json: { cart: 1 } });
      told.length = 0;
      events.length = 0;
      app.app.get(Listener).signedIn.length = 0;
      const [one, two] = [someone(), someone()];
      const id = idOf(browser);
      await browser.post('/login', { json: { user: one } });
      await browser.post('/login', { json: { user: one } });
      await browser.post('/reauthenticate');
      await browser.post('/logout?keep=1');
      await browser.post('/login', { json: { user: one } });
      await browser.post('/login', { json: { user: two } });
      const next = idOf(browser);
      await browser.post('/logout');
      expect(told.filter(([event]) => event !== 'device')).toEqual([
        ['linked', { visitId: id, userId: one }],
        ['unlinked', { visitId: id, userId: one }],
        ['linked', { visitId: id, userId: one }],
        ['linked', { visitId: next, userId: two }],
        ['ended', { id, reason: 'replaced' }],
        ['ended', { id: next, reason: 'logout' }],
      ]);
      expect(events.map(([event]) => event).filter((event) => event !== VISIT_EVENTS.onNewDevice)).toEqual([
        'visit.identity.linked',
        'visit.identity.unlinked',
        'visit.identity.linked',
        'visit.created',
        'visit.identity.linked',
        'visit.ended',
        'visit.ended',
      ]);
      expect(events.find(([event]) => event === VISIT_EVENTS.onNewVisit)![1]).toEqual({ id: next });
      expect(app.app.get(Listener).signedIn).toMatchObject([one, one, two].map((userId) => ({ userId })));
    });

    test('R72, ASVS 7.4.5: that administrators have ended the visits of a user, or of all users', async () => {
      const app = await start();
      const visits = app.app.get(VisitService);
      const events: [string, unknown][] = [];
      app.app.get(EventEmitter2).onAny((event, payload) => void events.push([String(event), payload]));
      const one = await signedIn(app);
      const [two, three] = [await signedIn(app), await signedIn(app)];
      told.length = 0;
      expect(await visits.endAllForUser(one.user, 'disabled')).toBe(1);
      expect(told).toEqual([['ended', { id: idOf(one.browser), reason: 'disabled' }]]);
      expect([await isIn(one), await isIn(two), await isIn(three)]).toEqual([false, true, true]);
      told.length = 0;
      const ended = await visits.endAll('leak');
      expect(ended).toBeGreaterThanOrEqual(2);
      expect(told).toEqual([['everything', { visits: ended, reason: 'leak' }]]);
      expect(events.at(-1)).toEqual([
        VISIT_EVENTS.onAllVisitsEnded,
        { visits: ended, reason: 'leak', endedAt: new Date(stack.clock.now()) },
      ]);
      expect([await isIn(two), await isIn(three)]).toEqual([false, false]);
    });

    test('S9: a sign-in with a device that is new for the user, once', async () => {
      const app = await start();
      const [user, other] = [someone(), someone()];
      const [firefox, chrome] = [
        '(X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0',
        '(Windows NT 10.0) Chrome/140.0',
      ];
      const signIn = async (name: string, agent: string) => {
        told.length = 0;
        const browser = app.browser();
        await browser.post('/login', { json: { user: name }, headers: { 'user-agent': `Mozilla/5.0 ${agent}` } });
        stack.clock.advance(10);
        return { browser, device: told.filter(([event]) => event === 'device').map(([, notice]) => notice) };
      };
      const first = await signIn(user, firefox);
      expect(first.device).toEqual([
        { visitId: idOf(first.browser), userId: user, device: 'Firefox on Linux', isFirst: true },
      ]);
      // A newer version is the same device; what another user has is nothing to this one.
      expect((await signIn(user, firefox.replaceAll('145', '146'))).device).toEqual([]);
      expect((await signIn(other, chrome)).device).toMatchObject([{ isFirst: true }]);
      const second = await signIn(user, chrome);
      expect(second.device).toMatchObject([{ userId: user, device: 'Chrome on Windows', isFirst: false }]);
      // Ended visits are remembered, too. The same visit again is no other one.
      await second.browser.post('/logout');
      expect((await signIn(user, chrome)).device).toEqual([]);
      told.length = 0;
      await first.browser.post('/login', { json: { user }, headers: { 'user-agent': 'Opera/9.80 (Macintosh)' } });
      expect(told).toEqual([]);
    });

    test('S9: new devices cost no query without a plugin for them, or without stored user agents', async () => {
      const quiet = await stack.start({ controllers: [PolicyController] });
      const loud = await start();
      const blind = await start({ record: { userAgent: false } });
      const queries = (app: RunningApp) => stack.statements(() => signedIn(app));
      const without = (await queries(quiet)).length;
      expect((await queries(loud)).length).toBe(without + 1);
      expect((await queries(blind)).length).toBe(without);
    });

    test('S2, A4: a retired key that is used late ends its visit, if the option is set', async () => {
      for (const onRetiredKey of ['refuse', 'end'] as const) {
        const app = await start({ onRetiredKey });
        const browser = app.browser();
        await browser.post('/set', { json: { cart: 1 } });
        const stolen = browser.clone();
        await browser.post('/login', { json: { user: someone() } });
        // For ten seconds it is a request that was on its way.
        expect((await stolen.get('/secret')).status).toBe(401);
        expect((await browser.get('/secret')).status).toBe(200);
        stack.clock.advance(11_000);
        told.length = 0;
        await app.browser().get('/user', { cookie: `visit=${idOf(browser)}.${'A'.repeat(43)}` });
        expect((await stolen.clone().get('/secret')).status).toBe(401);
        const ended = ['ended', { id: idOf(browser), reason: 'retired-key' }];
        const refused = (reason: string) => ['refused', { reason, visitId: idOf(browser) }];
        expect(told).toEqual([refused('forged'), refused('retired'), ...(onRetiredKey === 'end' ? [ended] : [])]);
        expect((await browser.get('/secret')).status).toBe(onRetiredKey === 'end' ? 401 : 200);
      }
    });

    test('S2, S10: forged keys are reported each time; malformed ones cost no query and are not reported', async () => {
      const app = await start();
      const { browser } = await signedIn(app);
      told.length = 0;
      const forged = `${idOf(browser)}.${'A'.repeat(43)}`;
      for (const key of [forged, `${'0'.repeat(32)}.${'A'.repeat(43)}`, 'nonsense', `${idOf(browser)}.short`]) {
        expect((await app.browser().get('/user', { cookie: `visit=${key}` })).status).toBe(200);
      }
      expect(told).toEqual([
        ['refused', { reason: 'forged', visitId: idOf(browser) }],
        ['refused', { reason: 'forged', visitId: '0'.repeat(32) }],
      ]);
      expect(await browser.get('/secret')).toMatchObject({ status: 200 });
    });
  });
});
