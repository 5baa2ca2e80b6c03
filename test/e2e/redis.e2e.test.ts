import { Body, Controller, Get, Param, Post } from '@nestjs/common';
import { ExpungeService, IdentityService, RequireIdentity, Session, VisitService } from 'nest-visit';
import { RedisVisitStore } from 'nest-visit/redis';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type PlatformName, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { describeUnlessMissing } from '../support/needs.js';
import { describeRedis, uniquePrefix } from '../support/redis.js';
import { findRedis, startRedis, type TestServer } from '../support/servers.mjs';

@Controller()
class RedisController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('data')
  data() {
    return this.session;
  }

  @Post('set')
  set(@Body() body: Record<string, unknown>) {
    for (const [key, value] of Object.entries(body)) this.session[key] = value;
  }

  @Post('increment')
  increment() {
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

  @Get('mine')
  @RequireIdentity()
  async mine() {
    return (await this.visits.listForUser(this.identity.userId!)).length;
  }

  @Post('end-all/:user')
  async endAllOf(@Param('user') user: string) {
    await this.visits.endAllForUser(user);
  }

  @Post('end-everything')
  async endAll() {
    return { ended: await this.visits.endAll() };
  }
}

const quiet = { expunge: { schedule: false as const }, wipe: { schedule: false as const } };
const dataOf = async (browser: Browser): Promise<unknown> => JSON.parse((await browser.get('/data')).text);

describeRedis('R67: Two applications with visits in Redis', (redis) => {
  describe.each(platforms)('under %s', (platform) => {
    const clock = new ManualClock();
    let apps: [RunningApp, RunningApp];
    beforeAll(async () => {
      const prefix = uniquePrefix();
      const start = async (): Promise<RunningApp> =>
        startApp(
          platform,
          { store: await redis.open({ prefix }), clock, ...quiet },
          { controllers: [RedisController] },
        );
      apps = [await start(), await start()];
    });
    afterAll(() => Promise.all(apps?.map((app) => app.close()) ?? []));
    beforeEach(() => clock.advance(1_000));

    /** The same browser at the other application. */
    const across = (browser: Browser): Browser => {
      const other = apps.find(({ address }) => address !== browser.address)!.browser();
      for (const [name, value] of browser.jar) other.jar.set(name, value);
      return other;
    };

    test('R44, R51: each finds the visits of the other, and concurrent changes of both are kept', async () => {
      const here = apps[0].browser();
      await here.post('/set', { json: { name: 'Zoë 🦊' } });
      const there = across(here);
      expect(await dataOf(there)).toEqual({ name: 'Zoë 🦊' });
      const answers = await Promise.all(
        Array.from({ length: 10 }, (_, index) => [
          (index % 2 ? here : there).post('/increment'),
          (index % 2 ? here : there).post('/set', { json: { [`key${index}`]: index } }),
        ]).flat(),
      );
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
      const keys = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`key${index}`, index]));
      expect(await dataOf(here)).toEqual({ name: 'Zoë 🦊', count: 10, ...keys });
    });

    test('R39, R40, R31: a sign-in and a sign-out apply to both', async () => {
      const here = apps[0].browser();
      await here.post('/set', { json: { cart: 1 } });
      const before = here.clone();
      await here.post('/login/ada');
      const there = across(here);
      expect((await there.get('/mine')).text).toBe('1');
      // The key from before the sign-in is worth nothing any more.
      expect((await across(before).get('/mine')).status).toBe(401);
      const stale = there.clone();
      await here.post('/logout');
      expect((await stale.get('/mine')).status).toBe(401);
      expect(await stale.post('/set', { json: { late: 1 } })).toMatchObject({ status: 409, cookies: [] });
      expect(await dataOf(across(stale))).toEqual({});
      expect((await here.get('/mine')).status).toBe(401);
    });

    test('R42: all visits of a user, and no others, end immediately at both', async () => {
      const browsers = [apps[0].browser(), apps[1].browser(), apps[1].browser()];
      for (const browser of browsers) await browser.post('/login/grace');
      const other = apps[0].browser();
      await other.post('/login/joan');
      expect((await browsers[0]!.get('/mine')).text).toBe('3');
      clock.advance(1_000);
      await other.post('/end-all/grace');
      for (const browser of browsers) expect((await across(browser).get('/mine')).status).toBe(401);
      expect((await across(other).get('/mine')).text).toBe('1');
      clock.advance(1_000);
      await browsers[0]!.post('/login/grace');
      expect((await across(browsers[0]!).get('/mine')).text).toBe('1');
    });

    test('R22, R62, R61: an unused visit expires by the clock of the application; clean-up finds it', async () => {
      const browser = apps[0].browser();
      await browser.post('/set', { json: { name: 'kept' } });
      clock.advance(19 * 60_000);
      expect(await dataOf(browser)).toEqual({ name: 'kept' });
      clock.advance(19 * 60_000);
      expect(await dataOf(across(browser))).toEqual({ name: 'kept' });
      clock.advance(25 * 60_000);
      expect(await dataOf(browser)).toEqual({});
      const clean = apps[1].app.get(ExpungeService);
      expect(await clean.wipeExpired()).toBeGreaterThan(0);
      clock.advance(8 * 86_400_000);
      const stale = await clean.run({ dryRun: true });
      expect(stale.visits).toBeGreaterThan(0);
      expect(await clean.run()).toEqual(stale);
      expect(await clean.run({ dryRun: true })).toEqual({ visits: 0, identities: 0 });
    });

    test('R42: everything ends', async () => {
      const browser = apps[0].browser();
      await browser.post('/login/ada');
      const { ended } = JSON.parse((await across(browser).post('/end-everything')).text) as { ended: number };
      expect(ended).toBeGreaterThan(0);
      expect((await browser.get('/mine')).status).toBe(401);
    });
  });
});

describeUnlessMissing(findRedis() ? [] : ['redis-server or valkey-server'], 'B18: While Redis is unavailable', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  });
  afterAll(() => server?.stop());

  const start = (platform: PlatformName): Promise<RunningApp> =>
    startApp(
      platform,
      { store: new RedisVisitStore({ connection: server.url }), ...quiet },
      { controllers: [RedisController] },
    );

  test.each(platforms)(
    'requests under %s get 503 without a cookie, and are served after it has recovered',
    async (platform) => {
      const app = await start(platform);
      try {
        const browser = app.browser();
        await browser.post('/set', { json: { name: 'kept' } });
        await server.kill();
        for (const answer of [
          await browser.get('/data'),
          await browser.post('/set', { json: { name: 'lost' } }),
          await app.browser().post('/increment'),
        ]) {
          expect(answer.status).toBe(503);
          expect(answer.cookies).toEqual([]);
          expect(answer.headers.get('retry-after')).not.toBeNull();
        }
        await server.restart();
        await expect.poll(async () => (await browser.get('/data')).status).toBe(200);
        expect(await dataOf(browser)).toEqual({ name: 'kept' });
      } finally {
        await app.close();
      }
    },
  );

  test('R74: an application does not start without it', async () => {
    await server.kill();
    await expect(start('express')).rejects.toThrow('ECONNREFUSED');
    await server.restart();
  });
});
