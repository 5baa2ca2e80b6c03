import { Controller, Get, Query, Sse } from '@nestjs/common';
import { IdentityService, MemoryVisitStore, RequireIdentity, VisitService, type LogoutOptions } from 'nest-visit';
import { concat, NEVER, of } from 'rxjs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { OpenStreams } from '../../lib/visit/open-streams.js';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { PATIENCE } from '../support/patience.js';

@Controller()
class Feeds {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('who') who() {
    return this.identity.userId;
  }
  @Get('login') login(@Query('user') user: string) {
    return this.identity.login(user);
  }
  @Get('logout') logout(@Query() { keepVisit }: LogoutOptions) {
    return this.identity.logout({ keepVisit: Boolean(keepVisit) });
  }
  @Get('renew') renew() {
    return this.visits.renew();
  }
  @Get('end') end() {
    return this.visits.end();
  }
  @Get('others') others() {
    return this.visits.endOthers();
  }
  @Get('everything') everything() {
    return this.visits.endAll();
  }
  @Sse('feed') @RequireIdentity() feed() {
    return concat(of({ data: 'begun' }), NEVER);
  }
  @Sse('open') open() {
    return concat(of({ data: 'begun' }), NEVER);
  }
}

const opened: AbortController[] = [];

/** A stream that has begun. */
async function follow(
  browser: Browser,
  path = '/feed',
): Promise<{ ended: Promise<void>; hasEnded(): boolean; leave(): void }> {
  const leaving = new AbortController();
  opened.push(leaving);
  const cookie = [...browser.jar].map(([name, value]) => `${name}=${value}`).join('; ');
  const response = await fetch(browser.address + path, { headers: cookie ? { cookie } : {}, signal: leaving.signal });
  expect(response.status).toBe(200);
  const reader = response.body!.getReader();
  await reader.read();
  let isOver = false;
  const ended = (async () => {
    while (!(await reader.read()).done);
    isOver = true;
  })();
  ended.catch(() => undefined);
  return { ended, hasEnded: () => isOver, leave: () => leaving.abort() };
}

describe.each(platforms)('Streams under %s', (platform) => {
  const store = new MemoryVisitStore();
  const clock = new ManualClock();
  const running: RunningApp[] = [];
  const start = async (options: object = {}): Promise<RunningApp> => {
    const app = await startApp(platform, { store, clock, ...options }, { controllers: [Feeds] });
    running.push(app);
    return app;
  };
  let app: RunningApp;
  beforeAll(async () => {
    app = await start();
  });
  beforeEach(async () => {
    clock.advance(1000);
    await vi.waitUntil(() => size() === 0, { timeout: PATIENCE });
  });
  // An application waits for whoever still listens.
  afterEach(() => {
    for (const one of opened.splice(0)) one.abort();
  });
  afterAll(() => Promise.all(running.map((one) => one.close())));

  const signIn = async (user: string, at = app): Promise<Browser> => {
    const browser = at.browser();
    expect((await browser.get(`/login?user=${user}`)).status).toBe(200);
    return browser;
  };
  const check = (at = app): Promise<void> => at.app.get(OpenStreams, { strict: false }).check();
  /** Of how many visits streams are open. It is known at once, where a client reads of an end a moment later. */
  const size = (): number => app.app.get(OpenStreams, { strict: false }).size;

  test.each([
    ['its end', '/end'],
    ['a sign-out', '/logout'],
    ['a sign-out that keeps the visit', '/logout?keepVisit=1'],
    ['a sign-in as another user', '/login?user=eve'],
    ['the end of everything', '/everything'],
  ])('B56, ASVS 7.4.1: end immediately with their visit in the same process: by %s', async (_, path) => {
    const ann = await signIn('ann');
    const streams = await Promise.all([follow(ann), follow(ann)]);
    expect((await ann.clone().get(path)).status).toBe(200);
    // Before anything is looked up again.
    expect(size()).toBe(0);
    await Promise.all(streams.map(({ ended }) => ended));
  });

  test.each([
    ['endOthers()', (_: VisitService, other: Browser) => other.get('/others')],
    ['endAllForUser()', (visits: VisitService) => visits.endAllForUser('ann')],
    [
      'end()',
      (visits: VisitService, _: Browser, ann: Browser) =>
        visits.end(ann.jar.get('visit')!.slice(0, 32), 'revoked', { anyUser: true }),
    ],
  ])('ASVS 7.4.2, 7.4.3: end immediately when another visit ends theirs: by %s', async (_, act) => {
    const [ann, other, eve] = [await signIn('ann'), await signIn('ann'), await signIn('eve')];
    const [stream, bystander] = [await follow(ann), await follow(eve)];
    await act(app.app.get(VisitService), other, ann);
    expect(size()).toBe(1);
    await stream.ended;
    await check();
    expect([bystander.hasEnded(), size()]).toEqual([false, 1]);
    bystander.leave();
  });

  test('ASVS 7.4.5: end immediately when an administrator or a job ends all visits', async () => {
    const streams = await Promise.all([follow(await signIn('ann')), follow(await signIn('bob'))]);
    await app.app.get(VisitService).endAll();
    expect(size()).toBe(0);
    await Promise.all(streams.map(({ ended }) => ended));
  });

  test('continue when the key is renewed, and when the same user signs in again', async () => {
    const ann = await signIn('ann');
    const stream = await follow(ann);
    await ann.get('/renew');
    await ann.get('/login?user=ann');
    await check();
    expect([stream.hasEnded(), size()]).toEqual([false, 1]);
    await ann.get('/end');
    await stream.ended;
  });

  test('B56: end within `streams.interval` if another process ended their visit, or it expired', async () => {
    const here = await start({ streams: { interval: 20 } });
    const [ann, bob, cid] = [await signIn('ann', here), await signIn('bob', here), await signIn('cid', here)];
    const [ended, expired, left] = [await follow(ann), await follow(bob), await follow(cid)];
    await app.app.get(VisitService).endAllForUser('ann');
    await ended.ended;
    expect([expired.hasEnded(), left.hasEnded()]).toEqual([false, false]);
    await cid.via(app).get('/logout?keepVisit=1');
    await left.ended;
    expect(expired.hasEnded()).toBe(false);
    clock.advance(21 * 60_000);
    await expired.ended;
  });

  test('R27: continue while the expiry update of their visit waits to be written', async () => {
    const ann = await signIn('ann');
    await follow(ann);
    clock.advance(4 * 60_000);
    await ann.get('/who');
    clock.advance(17 * 60_000);
    await check();
    expect(size()).toBe(1);
    clock.advance(4 * 60_000);
    await check();
    expect(size()).toBe(0);
  });

  test('are looked up together, and not at all if none is open', async () => {
    const browsers = [await signIn('ann'), await signIn('bob')];
    const find = vi.spyOn(store, 'find');
    await check();
    expect(find).toHaveBeenCalledTimes(0);
    const streams = await Promise.all(browsers.map((one) => follow(one)));
    find.mockClear();
    await check();
    expect(find.mock.calls.map(([ids]) => ids.length)).toEqual([2]);
    find.mockRestore();
    for (const stream of streams) stream.leave();
    await expect.poll(() => app.app.get(OpenStreams, { strict: false }).size, { timeout: PATIENCE }).toBe(0);
  });

  test('end if the store fails twice in a row, because their visit is then unknown', async () => {
    const [ann, bob] = [await signIn('ann'), await signIn('bob')];
    const stream = await follow(ann);
    const find = vi.spyOn(store, 'find').mockRejectedValueOnce(new Error('away'));
    await check();
    find.mockRestore();
    await check();
    expect([stream.hasEnded(), size()]).toEqual([false, 1]);
    const other = await follow(bob);
    const away = vi.spyOn(store, 'find').mockRejectedValue(new Error('away'));
    await check();
    expect(size()).toBe(2);
    await check();
    expect(size()).toBe(0);
    away.mockRestore();
    await Promise.all([stream.ended, other.ended]);
  });

  test('of anonymous visitors without a stored visit continue, and so do all if the option is off', async () => {
    const open = await follow(app.browser(), '/open');
    const free = await start({ streams: { endWithVisit: false } });
    const ann = await signIn('ann', free);
    const left = await follow(ann);
    await free.app.get(VisitService).endAllForUser('ann');
    await check();
    await check(free);
    expect([open.hasEnded(), left.hasEnded(), size(), free.app.get(OpenStreams, { strict: false }).size]).toEqual([
      false,
      false,
      1,
      0,
    ]);
    open.leave();
    left.leave();
  });
});
