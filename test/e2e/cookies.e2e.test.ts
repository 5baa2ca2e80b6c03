import { Controller, Get, Logger, Param, Post } from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  Session,
  UseVisit,
  VisitPlugin,
  VisitService,
  type RefusedKey,
  type VisitSettings,
  type VisitsInStore,
} from 'nest-visit';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { platforms, startApp, startBehindProxy, type RunningApp } from '../support/app.js';
import { WatchedStore } from '../support/watched-store.js';

const refused: RefusedKey[] = [];

@VisitPlugin()
class Alarm {
  onKeyRefused(key: RefusedKey): void {
    refused.push(key);
  }
}

@Controller()
class Cookies {
  constructor(
    private readonly identity: IdentityService,
    private readonly session: Session,
    private readonly visits: VisitService,
  ) {}

  @Post('set')
  set() {
    this.session.set('name', 'x');
  }
  @Post('login/:user')
  login(@Param('user') user: string) {
    return this.identity.login(user);
  }
  @Post('logout')
  logout() {
    return this.identity.logout();
  }
  @Post('end')
  async end() {
    return String(await this.visits.end());
  }
  @Get('me')
  me() {
    return `${this.identity.userId} ${String(this.session.get('name'))}`;
  }
  @Get('download')
  @UseVisit({ source: 'cookie, query' })
  download() {}
}

const parts = { controllers: [Cookies], providers: [Alarm] };

describe.each(platforms)('Cookies and keys, under %s', (platform) => {
  const start = async (options: VisitSettings & Partial<VisitsInStore> = {}): Promise<RunningApp> => {
    const app = await startApp(platform, { store: new MemoryVisitStore(), ...options }, parts);
    onTestFinished(() => app.close());
    return app;
  };
  beforeEach(() => {
    refused.length = 0;
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });

  test.each([
    [{ secure: true }, /^__Host-visit=[^;]*; Path=\/; HttpOnly; Secure; SameSite=Lax$/],
    [{ secure: true, domain: 'example.org' }, /^__Secure-visit=.*; Domain=example.org; .*Secure/],
    [{ secure: true, path: '/app' }, /^__Secure-visit=.*; Path=\/app; .*Secure/],
    [{ secure: true, name: '__Secure-mine' }, /^__Secure-mine=/],
    [{ secure: true, sameSite: 'none', partitioned: true }, /^__Host-visit=.*; Secure; Partitioned; SameSite=None$/],
    [{ secure: false, domain: 'example.org' }, /^visit=(?!.*Secure)/],
  ] as const)('ASVS 3.3.1, B69: %j', async (cookie, expected) => {
    const { cookies } = await (await start({ cookie })).browser().post('/set');
    expect(cookies).toEqual([expect.stringMatching(expected)]);
  });

  test.each([
    [{ partitioned: true }],
    [{ partitioned: true, secure: 'auto' }],
    [{ name: '__Secure-x', secure: 'auto' }],
  ] as const)('ASVS 3.3.1: %j is refused at startup', async (cookie) => {
    await expect(start({ cookie })).rejects.toThrow('needs cookie.secure true');
  });

  test('ASVS 3.3.1: in production, the default is Secure, and "auto" must be allowed explicitly', async () => {
    vi.stubEnv('NODE_ENV', 'production');
    const { cookies } = await (await start({ cookie: { path: '/app' } })).browser().post('/set');
    expect(cookies[0]).toMatch(/^__Secure-visit=.*Secure/);
    await expect(start({ cookie: { secure: 'auto' } })).rejects.toThrow(
      'option "cookie.secure" must be true in production',
    );
    const both = await start({ cookie: { secure: 'auto', allowInsecure: true } });
    expect((await both.browser().post('/set')).cookies[0]).toMatch(/^visit=(?!.*Secure)/);
  });

  test('ASVS 3.3.1: elsewhere, it is Secure if the request used https, according to a trusted proxy', async () => {
    const headers = { 'x-forwarded-proto': 'https' };
    const trusting = await startBehindProxy(platform, { store: new MemoryVisitStore() }, parts);
    onTestFinished(() => trusting.close());
    const browser = trusting.browser();
    expect((await browser.post('/set', { headers })).cookies[0]).toMatch(/^visit=.*; Secure/);
    expect((await browser.post('/logout', { headers })).cookies[0]).toMatch(/^visit=;.*; Secure/);
    expect((await browser.post('/set')).cookies[0]).not.toContain('Secure');
    expect((await (await start()).browser().post('/set', { headers })).cookies[0]).not.toContain('Secure');
  });

  test('ASVS 3.3.1: a Secure cookie over plain http is logged once', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn');
    const app = await start({ cookie: { secure: true } });
    for (let i = 0; i < 3; i++) await app.browser().post('/set');
    expect(warn.mock.calls.filter(([line]) => String(line).includes('over plain HTTP'))).toHaveLength(1);
    warn.mockClear();
    await (await start()).browser().post('/set');
    expect(warn.mock.calls.filter(([line]) => String(line).includes('over plain HTTP'))).toHaveLength(0);
  });

  test('ASVS 14.2.1: handlers that accept keys in URLs are named at startup', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn');
    await start();
    expect(warn.mock.calls.map(([line]) => String(line)).filter((line) => line.includes('in URLs'))).toEqual([
      expect.stringContaining('@UseVisit() of Cookies.download()'),
    ]);
  });

  test('A5: live keys of different users identify nobody, and each is reported', async () => {
    const app = await start();
    const [ann, eve, nobody] = [app.browser(), app.browser(), app.browser()];
    await ann.post('/login/ann');
    await eve.post('/login/eve');
    await nobody.post('/set');
    const keys = [ann, eve, nobody].map(({ jar }) => jar.get('visit')!);
    const both = (...some: number[]): string => some.map((one) => `visit=${keys[one]}`).join('; ');
    for (const cookie of [both(0, 1), both(1, 0), both(2, 1, 0)]) {
      refused.length = 0;
      expect((await app.browser().get('/me', { cookie })).text).toBe('null undefined');
      expect(refused.map(({ reason, visitId }) => [reason, visitId.length])).toContainEqual(['conflicting', 32]);
      expect(refused.map(({ visitId }) => visitId)).toEqual(
        expect.arrayContaining([keys[0]!.slice(0, 32), keys[1]!.slice(0, 32)]),
      );
      for (const path of ['/set', '/logout', '/end']) {
        const answer = await app.browser().post(path, { cookie });
        expect([path, answer.status, answer.cookies]).toEqual([path, 409, []]);
      }
    }
    // One user, or one that anybody may have: the first one counts.
    expect((await app.browser().get('/me', { cookie: both(0, 2) })).text).toBe('ann undefined');
    expect((await app.browser().get('/me', { cookie: both(2, 0) })).text).toBe('null x');
    // To sign in is an act of the user.
    const answer = await app.browser().post('/login/ann', { cookie: both(0, 1) });
    expect([answer.status, answer.cookies.length]).toEqual([201, 1]);
    expect([(await ann.get('/me')).text, (await eve.get('/me')).text]).toEqual(['ann undefined', 'eve undefined']);
  });

  test('S2: each key counts once, however often it is sent', async () => {
    const watched = new WatchedStore(new MemoryVisitStore());
    const app = await start({ store: watched.store });
    const key = `${'0'.repeat(32)}.${'A'.repeat(43)}`;
    const lookedUp: unknown[] = [];
    watched.around = ({ method, args }, go) => {
      if (method === 'find') lookedUp.push(...(args[0] as readonly string[]));
      return go();
    };
    await app.browser().get('/me', { cookie: Array(8).fill(`visit=${key}`).join('; ') });
    expect(lookedUp).toEqual([key.slice(0, 32)]);
    expect(refused.map(({ reason }) => reason)).toEqual(['forged']);
  });

  describe('B72: a POST from a page of another site', () => {
    const headers = { 'sec-fetch-site': 'cross-site' };

    test.each(['/set', '/logout', '/end'])(
      'without our cookie does not replace the cookie of the browser: %s',
      async (path) => {
        for (const options of [{}, { creation: 'immediate' }] as const) {
          const app = await start(options);
          const { status, cookies } = await app.browser().post(path, { headers });
          expect([status, cookies]).toEqual([201, []]);
        }
      },
    );

    test('allows a sign-in nevertheless, such as the response of an identity provider', async () => {
      const browser = (await start()).browser();
      expect((await browser.post('/login/ann', { headers })).cookies).toHaveLength(1);
      expect((await browser.get('/me')).text).toBe('ann undefined');
    });

    test('with our cookie works as usual, and so do requests from this site and by a link', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/set');
      expect((await browser.post('/logout', { headers })).cookies).toHaveLength(1);
      for (const site of ['same-origin', 'same-site', 'none'])
        expect((await app.browser().post('/set', { headers: { 'sec-fetch-site': site } })).cookies).toHaveLength(1);
      const none = await start({ cookie: { sameSite: 'none', secure: true } });
      expect((await none.browser().post('/set', { headers })).cookies).toHaveLength(1);
    });
  });

  test('a sign-out with a key that was just replaced reports that it did not sign out', async () => {
    const app = await start();
    const browser = app.browser();
    await browser.post('/login/ann');
    const late = browser.clone();
    await browser.post('/login/ann');
    for (const path of ['/logout', '/end']) {
      const answer = await late.post(path);
      expect([path, answer.status, JSON.parse(answer.text).code, answer.cookies]).toEqual([
        path,
        409,
        'VISIT_KEY_RETIRED',
        [],
      ]);
    }
    expect((await browser.get('/me')).text).toBe('ann undefined');
    // Of two clicks on "sign out" the second finds it done.
    const again = browser.clone();
    await browser.post('/logout');
    expect((await again.post('/logout')).status).toBe(201);
  });
});
