import { Controller, Get, Post, Query } from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  PassiveVisit,
  Session,
  VisitPlugin,
  VisitService,
  type RefusedKey,
} from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { Gates } from '../support/gates.js';
import { ManualClock } from '../support/manual-clock.js';
import { ofToday } from '../support/today.js';

const MINUTE = 60_000;
const refused: RefusedKey[] = [];

@VisitPlugin()
class Alarm {
  onKeyRefused(key: RefusedKey): void {
    refused.push(key);
  }
}

@Controller()
class Renewals {
  constructor(
    private readonly identity: IdentityService,
    private readonly session: Session,
    private readonly visits: VisitService,
    private readonly gates: Gates,
  ) {}

  @Post('login')
  login() {
    return this.identity.login('ann');
  }
  @Get('me')
  me() {
    return `${this.identity.userId} ${String(this.session.get('wrote'))}`;
  }
  @Get('poll')
  @PassiveVisit()
  poll() {
    return String(this.identity.userId);
  }
  @Post('renew')
  renew() {
    return this.visits.renew();
  }
  @Post('slow')
  async slow(@Query('gate') gate: string) {
    await this.gates.pass(gate);
    this.session.set('wrote', gate);
  }
}

describe.each(ofToday(platforms, 1))('B46, B47: the renewal of a key, under %s', (platform) => {
  const clock = new ManualClock();
  let app: RunningApp;
  beforeAll(async () => {
    app = await startApp(
      platform,
      { store: new MemoryVisitStore(), clock, renewAfter: '15m', timeout: '1h' },
      { controllers: [Renewals], providers: [Alarm, Gates] },
    );
  });
  afterAll(() => app?.close());
  beforeEach(() => {
    refused.length = 0;
  });

  /** Somebody whose key is due. */
  async function due(): Promise<Browser> {
    const browser = app.browser();
    await browser.post('/login');
    clock.advance(16 * MINUTE);
    return browser;
  }
  const keyOf = (browser: Browser): string => `visit=${browser.jar.get('visit')!}`;
  /** A request whose response never arrives. */
  const lose = (browser: Browser, path = '/me', method = 'GET') =>
    browser.get(path, { method, cookie: keyOf(browser) });

  test.each([
    ['by age', '/me', 'GET'],
    ['by visits.renew()', '/renew', 'POST'],
  ])('%s: a lost key is replaced as often as necessary, and nobody is signed out', async (_, path, method) => {
    const browser = await due();
    const first = await lose(browser, path, method);
    expect(first.cookies).toHaveLength(1);
    for (let times = 0; times < 3; times++) {
      // It may still be on its way.
      clock.advance(29_999);
      expect(await lose(browser)).toMatchObject({ text: 'ann undefined', cookies: [] });
      expect((await lose(browser, '/poll')).text).toBe('ann');
      clock.advance(1);
      expect((await lose(browser)).cookies).toHaveLength(1);
    }
    clock.advance(50 * MINUTE);
    const old = browser.clone();
    expect((await browser.get('/me')).cookies).toHaveLength(1);
    expect((await browser.get('/me')).text).toBe('ann undefined');
    // From its first use on, the old key has half a minute, and those that were lost have nothing.
    clock.advance(29_999);
    expect((await old.clone().get('/me')).text).toBe('ann undefined');
    clock.advance(11_000);
    expect((await old.clone().get('/me')).text).toBe('null undefined');
    expect((await app.browser().get('/me', { cookie: first.cookies[0]!.split(';')[0]! })).text).toBe('null undefined');
    expect(refused.map(({ reason }) => reason)).toEqual(['retired', 'forged']);
    expect((await browser.get('/me')).text).toBe('ann undefined');
  });

  test('a passive request also proves that its client has the new key', async () => {
    const browser = await due();
    const old = browser.clone();
    await browser.get('/me');
    await browser.get('/poll');
    clock.advance(41_000);
    expect((await old.get('/me')).text).toBe('null undefined');
  });

  test('of many concurrent requests one gets a key again, so that responses do not conflict', async () => {
    const browser = await due();
    await lose(browser);
    clock.advance(31_000);
    const answers = await Promise.all(Array.from({ length: 10 }, () => browser.get('/me')));
    expect(answers.map(({ text }) => text)).toEqual(Array(10).fill('ann undefined'));
    expect(answers.flatMap(({ cookies }) => cookies)).toHaveLength(1);
    clock.advance(MINUTE);
    expect((await browser.get('/me')).text).toBe('ann undefined');
  });

  test('a new key is not sent if it is so late that it may have been replaced', async () => {
    const browser = await due();
    const gate = app.app.get(Gates).make('late');
    const slow = browser.clone();
    const answering = slow.post('/slow?gate=late');
    await gate.arrived;
    clock.advance(31_000);
    await browser.get('/me');
    expect((await browser.get('/me')).text).toBe('ann undefined');
    gate.open();
    expect((await answering).cookies).toEqual([]);
    expect((await browser.get('/me')).text).toMatch(/^ann /);
  });

  test('B47: the changes of a request that takes longer than the grace period are kept', async () => {
    const browser = app.browser();
    await browser.post('/login');
    const gate = app.app.get(Gates).make('long');
    const writing = browser.clone().post('/slow?gate=long');
    await gate.arrived;
    clock.advance(16 * MINUTE);
    await browser.get('/me');
    await browser.get('/me');
    clock.advance(5 * MINUTE);
    gate.open();
    expect(await writing).toMatchObject({ status: 201, cookies: [] });
    expect((await browser.get('/me')).text).toBe('ann long');
  });

  test('after a change of rights, neither key gains anything', async () => {
    const browser = await due();
    const lost = await lose(browser);
    const gate = app.app.get(Gates).make('elevated');
    const writing = browser.clone().post('/slow?gate=elevated');
    await gate.arrived;
    const old = browser.clone();
    await browser.post('/login');
    gate.open();
    expect((await writing).status).toBe(409);
    expect((await old.get('/me')).text).toBe('null undefined');
    clock.advance(MINUTE);
    expect((await old.clone().get('/me')).text).toBe('null undefined');
    expect((await app.browser().get('/me', { cookie: lost.cookies[0]!.split(';')[0]! })).text).toBe('null undefined');
    expect((await browser.get('/me')).text).toBe('ann undefined');
  });

  test('a forged key never counts as late, however long the new key is unused', async () => {
    const browser = await due();
    await lose(browser);
    clock.advance(11_000);
    await app.browser().get('/me', { cookie: `${keyOf(browser).slice(0, 38)}.${'A'.repeat(43)}` });
    expect(refused.map(({ reason }) => reason)).toEqual(['forged']);
  });
});
