import { Controller, Get, Post, Query } from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  nistPolicies,
  PassiveVisit,
  Session,
  SkipVisit,
  UseVisit,
  VisitService,
  type VisitSettings,
  type VisitsInStore,
} from 'nest-visit';
import { describe, expect, onTestFinished, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { ofToday } from '../support/today.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

@Controller()
class Limits {
  constructor(
    private readonly identity: IdentityService,
    private readonly session: Session,
  ) {}

  @Post('cart')
  cart() {
    this.session.set('cart', 1);
  }
  @Post('login')
  login(@Query('remember') remember?: string) {
    return this.identity.login('ann', remember === undefined ? {} : { permanent: remember === '1' });
  }
  @Post('again')
  again() {
    return this.identity.reauthenticate();
  }
  @Post('logout')
  logout() {
    return this.identity.logout({ keepVisit: true });
  }
  @Get('me')
  me() {
    return `${this.identity.userId} ${String(this.session.get('cart'))}`;
  }
}

@Controller('asks')
class Asking {
  @Get('long')
  @UseVisit({ timeout: '7d', source: 'cookie, query', path: '/asks' })
  long() {}
  @Get('poll')
  @PassiveVisit()
  poll() {}
  @Get('health')
  @SkipVisit()
  health() {}
  @Get('plain')
  plain() {}
}

describe.each(ofToday(platforms, 0))('Time limits, under %s', (platform) => {
  const clock = new ManualClock();
  const start = async (
    options: VisitSettings & Partial<VisitsInStore>,
    controllers = [Limits] as (new (...args: never[]) => object)[],
  ): Promise<RunningApp> => {
    const app = await startApp(platform, { store: new MemoryVisitStore(), clock, ...options }, { controllers });
    onTestFinished(() => app.close());
    return app;
  };
  const see = async (browser: Browser): Promise<string> => (await browser.get('/me')).text;
  /** For how many hours it is used, with a request in each. */
  const hoursInUse = async (browser: Browser, most: number): Promise<number> => {
    const first = await see(browser);
    for (let hours = 1; hours <= most; hours++) {
      clock.advance(HOUR);
      if ((await see(browser)) !== first) return hours;
    }
    return Infinity;
  };

  describe('with `shortenExisting`, apply immediately to existing visits', () => {
    const from = async (before: VisitSettings, now: VisitSettings, path = '/login', controllers = [Limits]) => {
      const store = new MemoryVisitStore();
      const [old, app] = [
        await start({ store, ...before }),
        await start({ store, shortenExisting: true, ...now }, controllers),
      ];
      const browser = old.browser();
      await browser.post(path);
      return { app, browser: browser.via(app) };
    };

    test('the idle timeout: to a visit that is not used, but not to one that is', async () => {
      const [idle, used] = [
        await from({ timeout: '10h' }, { timeout: '1h' }),
        await from({ timeout: '10h' }, { timeout: '1h' }),
      ];
      clock.advance(50 * MINUTE);
      expect(await see(used.browser)).toBe('ann undefined');
      clock.advance(11 * MINUTE);
      expect(await see(idle.browser)).toBe('null undefined');
      for (let i = 0; i < 6; i++) {
        expect(await see(used.browser)).toBe('ann undefined');
        clock.advance(50 * MINUTE);
      }
      const [listed] = await used.app.app.get(VisitService).listForUser('ann');
      expect(listed!.expiry).toEqual(new Date(clock.now() + 10 * MINUTE));
      clock.advance(11 * MINUTE);
      expect(await used.app.app.get(VisitService).listForUser('ann')).toEqual([]);
      expect(await see(used.browser)).toBe('null undefined');
    });

    test('permanent visits have their own idle timeout', async () => {
      const { browser } = await from({}, { timeout: '1h', permanentTimeout: '1d' }, '/login?remember=1');
      clock.advance(23 * HOUR);
      expect(await see(browser)).toBe('ann undefined');
      clock.advance(25 * HOUR);
      expect(await see(browser)).toBe('null undefined');
    });

    test('the absolute timeout, counted from the sign-in', async () => {
      const { browser } = await from({ timeout: '2h' }, { timeout: '2h', absoluteTimeout: '5h' });
      expect(await hoursInUse(browser, 10)).toBe(5);
    });

    test('a handler keeps its longer timeout', async () => {
      class Long extends Limits {
        @Get('long')
        @UseVisit({ timeout: '8h' })
        long() {}
      }
      Controller()(Long);
      const { browser } = await from({ timeout: '10h' }, { timeout: '1h' }, '/login', [Long]);
      clock.advance(7 * HOUR);
      expect(await see(browser)).toBe('ann undefined');
      clock.advance(9 * HOUR);
      expect(await see(browser)).toBe('null undefined');
    });

    test('without it, they apply at the next change of rights', async () => {
      const { browser } = await from({ timeout: '10h' }, { timeout: '1h', shortenExisting: false });
      clock.advance(2 * HOUR);
      expect(await see(browser)).toBe('ann undefined');
      await browser.post('/again');
      clock.advance(2 * HOUR);
      expect(await see(browser)).toBe('null undefined');
    });
  });

  describe.each<[string, string[], string]>([
    ['a sign-in', ['/login'], 'ann 1'],
    ['a re-authentication', ['/again'], 'ann 1'],
    ['a sign-out that keeps the visit', ['/logout'], 'null 1'],
  ])('that are new apply to existing visits with %s', (name, acts, seen) => {
    test.each(['a visit without a limit', 'one with a longer limit'])('B57: %s', async (what) => {
      const store = new MemoryVisitStore();
      const before = await start({ store, timeout: '30d', ...(what.includes('longer') && { absoluteTimeout: '90d' }) });
      const browser = before.browser();
      await browser.post('/cart');
      if (name !== 'a sign-in') await browser.post('/login');
      const after = await start({ store, timeout: '90m', absoluteTimeout: '12h' });
      const later = browser.via(after);
      for (const act of acts) expect((await later.post(act)).status).toBe(201);
      expect(await see(later)).toBe(seen);
      expect(await hoursInUse(later, 20)).toBe(12);
      // And the idle limit of now holds.
      await later.post('/login');
      clock.advance(90 * MINUTE);
      expect(await see(later)).toBe('null undefined');
    });
  });

  test('B57: a limit that was removed no longer applies after the next sign-in', async () => {
    const store = new MemoryVisitStore();
    const browser = (await start({ store, timeout: '1d', absoluteTimeout: '1d' })).browser();
    await browser.post('/login');
    const later = browser.via(await start({ store, timeout: '1d' }));
    await later.post('/login');
    expect(await hoursInUse(later, 30)).toBe(Infinity);
  });

  test.each<[string, VisitSettings, string, string]>([
    ['was remembered', { permanentTimeout: '30d' }, '/login?remember=1', '/login?remember=0'],
    ['was remembered, with the default', { permanentTimeout: '30d' }, '/login?remember=1', '/login'],
    ['is permanent by default', { permanentTimeout: '30d', cookie: { permanent: true } }, '/cart', '/login?remember=0'],
  ])(
    'a sign-in without "remember me" revokes the long lifetime: a visit that %s',
    async (_, options, first, second) => {
      const app = await start({ timeout: '20m', ...options });
      const browser = app.browser();
      expect((await browser.post(first)).cookies[0]).toContain('Max-Age=2592000');
      const { cookies } = await browser.post(second);
      expect(cookies[0]).not.toContain('Max-Age');
      clock.advance(20 * MINUTE);
      expect(await see(browser)).toBe('null undefined');
    },
  );

  test('"remember me" lasts for 30 days by default', async () => {
    const browser = (await start({ timeout: '20m' })).browser();
    expect((await browser.post('/login?remember=1')).cookies[0]).toContain('Max-Age=2592000');
    clock.advance(30 * DAY - 1);
    expect(await see(browser)).toBe('ann undefined');
  });

  test('B48: a permanent cookie that was renewed and lost is sent again', async () => {
    const app = await start({ timeout: '20m' });
    const browser = app.browser();
    await browser.post('/login?remember=1');
    const seen: boolean[] = [];
    for (let day = 1; day <= 9; day++) {
      clock.advance(DAY);
      seen.push((await browser.get('/me', { cookie: `visit=${browser.jar.get('visit')}` })).cookies.length > 0);
      await app.app.get(VisitService).flush();
    }
    expect(seen).toEqual([false, false, true, false, false, true, false, false, true]);
  });

  test('ASVS 7.1.1: the policy includes settings of handlers, which count for the NIST levels', async () => {
    const policy = (await start({ ...nistPolicies.aal2 }, [Limits, Asking])).app.get(VisitService).describePolicy();
    expect(policy.handlers).toEqual([
      { name: 'Asking.long()', idleTimeout: 7 * DAY, source: ['cookie', 'query'], cookiePath: '/asks' },
      { name: 'Asking.poll()', passive: true },
      { name: 'Asking.health()', skip: true },
    ]);
    expect(policy.nist).toEqual(['AAL1']);
    expect(policy.text).toContain(
      'After Asking.long() a visit ends after 7 days without a request. Asking.long() takes keys from cookie, query. ' +
        'Asking.long() sends the cookie with Path=/asks. Requests to Asking.poll() do not keep a visit alive. ' +
        'Asking.health() has no visit.',
    );
    const plain = (await start({ ...nistPolicies.aal2 })).app.get(VisitService).describePolicy();
    expect([plain.handlers, plain.nist]).toEqual([[], ['AAL1', 'AAL2']]);
  });
});
