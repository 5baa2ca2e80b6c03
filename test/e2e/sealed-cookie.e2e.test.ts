import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { request } from 'node:http';
import {
  Controller,
  ForbiddenException,
  Get,
  Param,
  Post,
  Res,
  type CanActivate,
  type ExecutionContext,
  UseGuards,
  Injectable,
} from '@nestjs/common';
import {
  IdentityService,
  MemoryVisitStore,
  MovingVisitStore,
  PassiveVisit,
  RequireIdentity,
  Session,
  VisitError,
  VisitOptionError,
  VisitService,
  type VisitSettings,
} from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { afterEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Answer, Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { ofToday } from '../support/today.js';

const MINUTE = 60_000;

/** Requests that have come as far as their handler, and go on when a test says so. */
const gates = new Map<string, { arrived: () => void; open: Promise<void> }>();

function gate(name: string): { arrived: Promise<void>; open: () => void } {
  let open!: () => void;
  let arrive!: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  const arrived = new Promise<void>((resolve) => (arrive = resolve));
  gates.set(name, { arrived: arrive, open: opened });
  return { arrived, open };
}

@Injectable()
class RefusingGuard implements CanActivate {
  constructor(private readonly visits: VisitService) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    await this.visits.resolve(execution);
    throw new ForbiddenException();
  }
}

@Controller()
class SealedController {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('count')
  count() {
    this.session['count'] = ((this.session['count'] as number | undefined) ?? 0) + 1;
    return { count: this.session['count'] };
  }

  @Get('look')
  look() {
    const { id, isNew } = this.visits.current();
    return { id, isNew, userId: this.identity.userId, ...Object.fromEntries(this.session.entries()) };
  }

  @Post('set/:key')
  async set(@Param('key') key: string) {
    const waiting = gates.get(key);
    this.session[key] = true;
    waiting?.arrived();
    await waiting?.open;
  }

  @Post('login/:user')
  login(@Param('user') user: string) {
    return this.identity.login(user, { permanent: user === 'permanent' });
  }

  @Post('logout')
  logout() {
    return this.identity.logout();
  }

  @Post('renew')
  renew() {
    return this.visits.renew();
  }

  @Post('fill/:bytes')
  fill(@Param('bytes') bytes: string) {
    this.session['filling'] = randomBytes(Number(bytes)).toString('base64').slice(0, Number(bytes));
  }

  @Get('denied')
  @UseGuards(RefusingGuard)
  denied() {
    return 'never';
  }

  @Get('passive')
  @PassiveVisit()
  passive() {
    return { userId: this.identity.userId };
  }

  @Get('private')
  @RequireIdentity()
  private() {
    return { userId: this.identity.userId };
  }

  @Get('own/:how')
  async own(@Param('how') how: string, @Res() response: { send(body: string): void }) {
    this.session['own'] = how;
    if (how === 'saved') await this.session.save();
    response.send('sent');
  }

  @Post('cannot/:what')
  async cannot(@Param('what') what: string) {
    const calls: Record<string, () => Promise<unknown>> = {
      create: () => this.visits.create({ userId: 'somebody' }),
      others: () => this.visits.endOthers(),
      list: () => this.visits.listForUser('somebody'),
      everything: () => this.visits.endAll(),
    };
    try {
      return await calls[what]!();
    } catch (error) {
      return { code: (error as VisitError).code, message: (error as Error).message };
    }
  }
}

const nameAndValue = (cookie: string) => /^([^=]+)=([^;]*)/.exec(cookie)!.slice(1) as [string, string];

const json = async (browser: Browser, path: string): Promise<Record<string, unknown>> => {
  const { status, text } = await browser.get(path);
  expect(status).toBe(200);
  return JSON.parse(text) as Record<string, unknown>;
};

describe.each(ofToday(platforms, 1))('Visits in sealed cookies under %s', (platform) => {
  const clock = new ManualClock();
  const secret = randomBytes(32);
  const running: RunningApp[] = [];
  const stores: SealedCookieVisitStore[] = [];
  afterEach(async () => {
    await Promise.all(running.splice(0).map((app) => app.close()));
    // Whatever a test does: nothing is left when no request is under way.
    for (const { size } of stores.splice(0)) assert.equal(size, 0);
    gates.clear();
  });

  async function start(secrets: Uint8Array[] = [secret], options: VisitSettings = {}): Promise<RunningApp> {
    const store = new SealedCookieVisitStore({ secrets });
    const app = await startApp(platform, { store, clock, ...options }, { controllers: [SealedController] });
    running.push(app);
    stores.push(store);
    return app;
  }

  test('a counter continues from request to request, and nothing is sent before there is data', async () => {
    const browser = (await start()).browser();
    expect((await browser.get('/look')).cookies).toEqual([]);
    for (let count = 1; count <= 3; count++) expect(await json(browser, '/count')).toEqual({ count });
    expect([...browser.jar.keys()]).toEqual(['visit', 'visit-data']);
    const { cookies, headers } = await browser.get('/count');
    expect(cookies).toHaveLength(2);
    for (const cookie of cookies) expect(cookie).toMatch(/^visit(-data)?=[^;]+; Path=\/; HttpOnly; SameSite=Lax$/);
    expect(headers.get('cache-control')).toBe('no-store');
    expect((await browser.get('/look')).cookies).toEqual([]);
  });

  test('the second cookie has the attributes and the __Host- prefix of the first', async () => {
    const browser = (await start([secret], { cookie: { secure: true, permanent: true } })).browser();
    const { cookies } = await browser.get('/count');
    const attributes = cookies.map((cookie) => cookie.replace(/=[^;]+/, '=…'));
    expect(attributes[0]).toMatch(
      /^__Host-visit=…; Max-Age=2592000; Path=\/; Expires=.*; HttpOnly; Secure; SameSite=Lax$/,
    );
    expect(attributes[1]).toBe(attributes[0]!.replace('visit', 'visit-data'));
    expect(await json(browser, '/count')).toEqual({ count: 2 });
  });

  test('sign-in keeps the session and changes the key, sign-out clears both cookies', async () => {
    const browser = (await start()).browser();
    await browser.get('/count');
    const before = new Map(browser.jar);
    expect((await browser.post('/login/alice')).status).toBe(201);
    expect(browser.jar.get('visit')).not.toBe(before.get('visit'));
    expect(await json(browser, '/look')).toMatchObject({ userId: 'alice', count: 1 });
    expect((await browser.get('/private')).status).toBe(200);
    expect((await browser.post('/login/bob')).status).toBe(201);
    expect(await json(browser, '/look')).not.toHaveProperty('count');
    const { cookies } = await browser.post('/logout');
    expect(cookies.map((cookie) => cookie.split(';')[0])).toEqual(['visit=', 'visit-data=']);
    expect(browser.jar.size).toBe(0);
    expect((await browser.get('/private')).status).toBe(401);
  });

  test('fixation: planted cookies do not become the signed-in visit of the victim', async () => {
    const app = await start();
    const [attacker, victim] = [app.browser(), app.browser()];
    await attacker.get('/count');
    for (const [name, value] of attacker.jar) victim.jar.set(name, value);
    await victim.post('/login/alice');
    expect(await json(attacker, '/look')).toMatchObject({ userId: null });
    // The planted key with what the victim has now, and the other way round.
    const mixed = app.browser();
    mixed.jar.set('visit', attacker.jar.get('visit')!).set('visit-data', victim.jar.get('visit-data')!);
    expect(await json(mixed, '/look')).toMatchObject({ userId: null, isNew: true });
    // While a request of the attacker is under way, the victim is who they are.
    const { arrived, open } = gate('slow');
    const slow = attacker.post('/set/slow');
    await arrived;
    expect(await json(victim, '/look')).toMatchObject({ userId: 'alice', count: 1 });
    expect(await json(mixed, '/look')).toMatchObject({ userId: null });
    open();
    const { cookies } = await slow;
    expect(cookies).toEqual([]);
    expect(await json(victim, '/look')).not.toHaveProperty('slow');
  });

  test('secrets change while visits continue; without the old secret they are lost', async () => {
    const fresh = randomBytes(32);
    const [before, during, after] = [await start(), await start([fresh, secret]), await start([fresh])];
    const browser = before.browser();
    await browser.get('/count');
    const late = browser.clone();
    expect(await json(browser.via(during), '/count')).toEqual({ count: 2 });
    expect(await json(browser.via(after), '/count')).toEqual({ count: 3 });
    expect(await json(late.via(after), '/count')).toEqual({ count: 1 });
  });

  test('two processes with the same secrets serve the same visits', async () => {
    const [one, two] = [await start(), await start()];
    const browser = one.browser();
    for (let count = 1; count <= 6; count++)
      expect(await json(browser.via(count % 2 ? one : two), '/count')).toEqual({ count });
    await browser.via(two).post('/login/alice');
    expect(await json(browser, '/look')).toMatchObject({ userId: 'alice', count: 6 });
  });

  test('ASVS 7.2.1: damaged, foreign, repeated or missing cookies lead to a new visit, never to an error', async () => {
    const app = await start();
    const [browser, other] = [app.browser(), app.browser()];
    await browser.get('/count');
    await other.get('/count');
    const key = browser.jar.get('visit')!;
    const data = browser.jar.get('visit-data')!;
    const parts = data.split('.');
    const bad = [
      ...[1, 20, data.length - 1].map((length) => data.slice(0, length)),
      ...[40, 60, data.length - 30].map(
        (at) => data.slice(0, at) + (data[at] === 'A' ? 'Q' : 'A') + data.slice(at + 1),
      ),
      [parts[0], parts[1], parts[2], '', parts[4]].join('.'),
      [Buffer.from('{"alg":"none"}').toString('base64url'), ...parts.slice(1)].join('.'),
      [Buffer.from('{"alg":"dir","enc":"A256GCM","zip":"DEF"}').toString('base64url'), ...parts.slice(1)].join('.'),
      `${data}${data}`,
      other.jar.get('visit-data')!,
      '""',
      '%00',
      'x'.repeat(8_000),
    ];
    for (const value of bad) {
      const client = app.browser();
      client.jar.set('visit', key).set('visit-data', value);
      const { status, text } = await client.get('/count');
      expect([status, text], value.slice(0, 60)).toEqual([200, '{"count":1}']);
      expect(await json(client, '/count')).toEqual({ count: 2 });
    }
    expect((await browser.get('/count', { cookie: `visit=${key}` })).text).toBe('{"count":1}');
    expect((await browser.get('/count', { cookie: `visit-data=${data}` })).text).toBe('{"count":1}');
    // A cookie of another path beside the right one.
    expect((await browser.get('/count', { cookie: `visit-data=junk; visit=${key}; visit-data=${data}` })).text).toBe(
      '{"count":2}',
    );
  });

  test('ASVS 3.3.5: a session that is too large is refused before sending, and the old one is kept', async () => {
    const browser = (await start()).browser();
    expect((await browser.post('/fill/5000')).status).toBe(500);
    expect(browser.jar.size).toBe(0);
    await browser.get('/count');
    const { status, cookies } = await browser.post('/fill/3000');
    expect([status, cookies]).toEqual([500, []]);
    expect(await json(browser, '/look')).toEqual({ id: expect.any(String), isNew: false, userId: null, count: 1 });
    const filled = await browser.post('/fill/2000');
    expect(filled.status).toBe(201);
    for (const cookie of filled.cookies) expect(cookie.length).toBeLessThanOrEqual(4096);
  });

  test('a session that fills its cookie to the last byte survives uses, renewals and a sign-out', async () => {
    const app = await start([secret], { timeout: '20m', touch: { resolution: '60s' }, renewAfter: '30m' });
    const fits = async (bytes: number): Promise<boolean> => (await app.browser().post(`/fill/${bytes}`)).status === 201;
    let [most, tooMany] = [2000, 3000];
    while (tooMany - most > 1) {
      const middle = Math.floor((most + tooMany) / 2);
      if (await fits(middle)) most = middle;
      else tooMany = middle;
    }
    expect([await fits(most), await fits(most + 1)]).toEqual([true, false]);

    const browser = app.browser();
    await browser.post(`/fill/${most}`);
    const { id, filling } = await json(browser, '/look');
    expect(filling).toHaveLength(most);
    const longest = async (ask: Promise<Answer>): Promise<number> => {
      const { status, cookies } = await ask;
      expect(status).toBeLessThan(300);
      return Math.max(0, ...cookies.map((cookie) => cookie.length));
    };
    // More writes than one digit counts, some of which renew the key.
    for (let use = 0; use < 25; use++) {
      clock.advance(5 * MINUTE);
      expect(await longest(use % 5 === 4 ? browser.post('/renew') : browser.get('/look'))).toBeLessThanOrEqual(4096);
    }
    expect(await json(browser, '/look')).toMatchObject({ id, filling });
    expect((await browser.post(`/fill/${most + 1}`)).status).toBe(500);
    expect(await json(browser, '/look')).toMatchObject({ id, filling });
    expect(await longest(browser.post('/logout'))).toBeLessThanOrEqual(4096);
  });

  test('a visit in use continues, sealed again only when its expiry is written; an unused one expires', async () => {
    const browser = (
      await start([secret], { timeout: '20m', absoluteTimeout: '50m', touch: { resolution: '60s' } })
    ).browser();
    await browser.get('/count');
    const old = browser.clone();
    clock.advance(59_000);
    expect((await browser.get('/look')).cookies).toEqual([]);
    clock.advance(1_000);
    expect((await browser.get('/look')).cookies).toHaveLength(2);
    expect((await browser.get('/look')).cookies).toEqual([]);
    clock.advance(19 * MINUTE);
    expect(await json(browser, '/look')).toMatchObject({ isNew: false });
    // A copy of before says when it expires.
    expect(await json(old, '/look')).toMatchObject({ isNew: true });
    clock.advance(15 * MINUTE);
    expect(await json(browser, '/look')).toMatchObject({ isNew: false });
    clock.advance(14 * MINUTE);
    expect(await json(browser, '/look')).toMatchObject({ isNew: false });
    clock.advance(MINUTE);
    expect(await json(browser, '/look')).toMatchObject({ isNew: true });
  });

  test('parallel requests of one browser lose no update to different keys', async () => {
    const browser = (await start()).browser();
    await browser.get('/count');
    const keys = ['a', 'b', 'c', 'd', 'e'];
    const waiting = keys.map((key) => gate(key));
    const answers = keys.map((key) => browser.clone().post(`/set/${key}`));
    await Promise.all(waiting.map(({ arrived }) => arrived));
    let last!: Answer;
    for (const [index, { open }] of waiting.entries()) {
      open();
      last = await answers[index]!;
    }
    for (const cookie of last.cookies) browser.jar.set(...nameAndValue(cookie));
    expect(await json(browser, '/look')).toMatchObject({
      count: 1,
      ...Object.fromEntries(keys.map((key) => [key, true])),
    });
  });

  test('a response that arrives after the browser signed out restores nothing', async () => {
    const browser = (await start()).browser();
    await browser.post('/login/alice');
    const { arrived, open } = gate('late');
    const late = browser.clone().post('/set/late');
    await arrived;
    await browser.post('/logout');
    open();
    const { status, cookies } = await late;
    expect([status, cookies]).toEqual([409, []]);
  });

  test('a renewed key works with the data sent beside it, and the previous key for its grace period', async () => {
    const browser = (await start()).browser();
    await browser.get('/count');
    const { arrived, open } = gate('grace');
    const slow = browser.clone().post('/set/grace');
    await arrived;
    expect((await browser.post('/renew')).status).toBe(201);
    open();
    const { status, cookies } = await slow;
    // It is not to knock the browser out of its new key.
    expect([status, cookies.map((cookie) => cookie.split('=')[0])]).toEqual([201, ['visit-data']]);
    browser.jar.set('visit-data', /=([^;]*)/.exec(cookies[0]!)![1]!);
    expect(await json(browser, '/look')).toMatchObject({ isNew: false, count: 1, grace: true });
  });

  test('a late response of another process does not separate key and data', async () => {
    const [one, two] = [await start(), await start()];
    const browser = one.browser();
    await browser.get('/count');
    const { arrived, open } = gate('elsewhere');
    const slow = browser.clone().via(two).post('/set/elsewhere');
    await arrived;
    expect((await browser.post('/renew')).status).toBe(201);
    open();
    for (const cookie of (await slow).cookies) browser.jar.set(...nameAndValue(cookie));
    expect(await json(browser, '/look')).toMatchObject({ isNew: false, count: 1, elsewhere: true });
  });

  test('visits can begin immediately, and passive handlers seal nothing', async () => {
    const browser = (await start([secret], { creation: 'immediate' })).browser();
    const { cookies } = await browser.get('/look');
    expect(cookies).toHaveLength(2);
    clock.advance(5 * MINUTE);
    expect((await browser.get('/passive')).cookies).toEqual([]);
    expect((await browser.get('/look')).cookies).toHaveLength(2);
    expect(await json(browser, '/look')).toMatchObject({ isNew: false });
  });

  test('nothing is stored for clients that disconnect, or for refused requests', async () => {
    const app = await start();
    const [store] = stores;
    const browser = app.browser();
    await browser.get('/count');
    const { arrived, open } = gate('aborted');
    const cookie = [...browser.jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const aborted = request(`${app.address}/set/aborted`, { method: 'POST', headers: { cookie } });
    aborted.on('error', () => undefined);
    aborted.end();
    await arrived;
    expect(store!.size).toBe(1);
    aborted.destroy();
    await expect.poll(() => store!.size).toBe(0);
    open();
    expect((await browser.get('/denied')).status).toBe(403);
    expect((await browser.get('/unknown')).status).toBe(404);
    expect(await json(browser, '/look')).not.toHaveProperty('aborted');
    await expect.poll(() => store!.size).toBe(0);
  });

  test('a handler that sends the response itself need not await the save: the response waits for it', async () => {
    const browser = (await start()).browser();
    for (const how of ['unsaved', 'saved', 'again']) {
      expect((await browser.get(`/own/${how}`)).cookies, how).toHaveLength(2);
      expect(await json(browser, '/look')).toMatchObject({ own: how });
    }
  });

  test('unsupported calls are refused', async () => {
    const browser = (await start()).browser();
    await browser.post('/login/alice');
    for (const what of ['create', 'others', 'list', 'everything']) {
      expect(JSON.parse((await browser.post(`/cannot/${what}`)).text)).toMatchObject({
        code: 'VISIT_STORE_UNSUPPORTED',
      });
    }
    expect(await json(browser, '/look')).toMatchObject({ userId: 'alice' });
    await expect(start([secret], { onRetiredKey: 'end' })).rejects.toThrow('"revocable"');
    await expect(start([secret], { source: ['query'] })).rejects.toThrow('option "source" must have "cookie"');
    const store = new SealedCookieVisitStore({ secrets: [secret] });
    expect(() => new MovingVisitStore({ from: store, to: new MemoryVisitStore() })).toThrow(VisitOptionError);
    expect(() => new MovingVisitStore({ from: new MemoryVisitStore(), to: store })).toThrow(VisitOptionError);
  });

  test('replay: copied cookies give access until the visit expires, even after the sign-out', async () => {
    const browser = (await start([secret], { timeout: '20m' })).browser();
    await browser.post('/login/alice');
    const thief = browser.clone();
    await browser.post('/logout');
    expect(await json(thief, '/look')).toMatchObject({ userId: 'alice' });
    clock.advance(20 * MINUTE);
    expect(await json(thief, '/look')).toMatchObject({ userId: null });
  });
});
