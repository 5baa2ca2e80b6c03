import {
  Body,
  Controller,
  Get,
  Injectable,
  NotFoundException,
  Post,
  Query,
  Req,
  Session as NestSession,
} from '@nestjs/common';
import { CurrentVisit, PassiveVisit, Session, SkipVisit, UseVisit, VisitService } from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { describeStacks, type RunningApp, type Stack } from '../support/app.js';

@Injectable()
class Counter {
  constructor(private readonly session: Session) {}

  add(): number {
    this.session['count'] = ((this.session['count'] as number | undefined) ?? 0) + 1;
    return this.session['count'] as number;
  }
}

@Controller()
class RequestController {
  constructor(
    private readonly counter: Counter,
    private readonly visits: VisitService,
  ) {}

  @Get('who')
  who(@CurrentVisit() visit: CurrentVisit) {
    return {
      id: visit.id,
      isNew: visit.isNew,
      same: this.visits.current().id === visit.id,
      expiry: visit.expiry,
      address: visit.remoteAddress,
    };
  }

  @Get('count')
  count() {
    return this.counter.add();
  }

  @Get('slow-count')
  async slowCount(@Query('wait') wait: string, @Session() session: Session<{ name: string }>) {
    session.set('name', wait);
    await new Promise((resolve) => setTimeout(resolve, Number(wait)));
    return { name: this.sessionName(), own: session.get('name') };
  }

  @Get('same')
  same(@Session() ours: Session, @NestSession() nests: Session, @Req() request: { session: unknown }) {
    return request.session === nests && nests.get('name') === ours.get('name');
  }

  @Get('query')
  query(@Query() query: Record<string, unknown>, @CurrentVisit() visit: CurrentVisit) {
    return { query, id: visit.id };
  }

  @Post('body')
  body(@Body() body: Record<string, unknown>, @CurrentVisit() visit: CurrentVisit) {
    return { body, id: visit.id };
  }

  @Get('link')
  link(@CurrentVisit() visit: CurrentVisit) {
    return { link: visit.link('/count?a=1#b'), field: visit.hiddenField() };
  }

  @SkipVisit()
  @Get('skipped')
  skipped(@Req() request: { session?: unknown; query: unknown }) {
    const seen = (read: () => unknown): string => {
      try {
        return typeof read();
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    const [byRequest, injected, visit] = [
      () => request.session,
      () => this.counter['session']['x'],
      () => this.visits.current(),
    ].map(seen);
    return { byRequest, injected, visit, query: request.query };
  }

  @SkipVisit()
  @Get('skipped-session')
  skippedSession(@Session() session: Session) {
    return session.size;
  }

  @UseVisit({ timeout: '5h', source: 'query' })
  @Get('tuned')
  tuned(@CurrentVisit() visit: CurrentVisit) {
    return { id: visit.id, expiry: visit.expiry };
  }

  @PassiveVisit()
  @Get('poll')
  poll(@CurrentVisit() visit: CurrentVisit) {
    return { isNew: visit.isNew };
  }

  @Get('missing')
  missing() {
    throw new NotFoundException();
  }

  private sessionName(): unknown {
    return this.counter['session']['name'];
  }
}

const parts = { controllers: [RequestController], providers: [Counter] };
const keyIn = (cookies: readonly string[]): string => /visit=([^;]*)/.exec(cookies[0] ?? '')?.[1] ?? '';

/** A key of the right form that no store knows. */
const forged = (): string => `${'0123456789abcdef'.repeat(2)}.${'A'.repeat(43)}`;

async function begin(app: RunningApp) {
  const browser = app.browser();
  const answer = await browser.get('/count');
  expect(answer.status, answer.text).toBe(200);
  return { browser, key: keyIn(answer.cookies), answer };
}

describeStacks('A request', (stack: Stack) => {
  describe('its cookie', () => {
    test('R1, R13, R17, R20, ASVS 3.3.4: is sent once, with the first data, and identifies the visit', async () => {
      const app = await stack.start(parts);
      const { browser, answer } = await begin(app);
      expect(answer.cookies).toHaveLength(1);
      expect(answer.cookies[0]).toMatch(/^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/);
      expect(answer.headers.get('cache-control')).toBe('no-store');
      const second = await browser.get('/count');
      expect(second.text).toBe('2');
      expect(second.cookies).toEqual([]);
      expect(second.headers.get('cache-control')).toBe('private, no-cache');
      expect(JSON.parse((await browser.get('/who')).text)).toMatchObject({ isNew: false, same: true });
    });

    test('B28: the table does not contain the key', async () => {
      const app = await stack.start(parts);
      const { key } = await begin(app);
      const secret = key.split('.')[1]!;
      const dump = JSON.stringify(await stack.dataSource().query('SELECT * FROM visit'));
      expect(dump).toContain(key.split('.')[0]);
      expect(dump).not.toContain(secret);
      expect(dump).not.toContain(key);
    });

    test('R21: of several cookies with the same name, the valid one is used', async () => {
      const app = await stack.start(parts);
      const { browser, key } = await begin(app);
      const answer = await browser.get('/count', {
        cookie: `visit=${forged()}; other=1; visit=nonsense; visit=${key}`,
      });
      expect(answer.text).toBe('2');
      expect(answer.cookies).toEqual([]);
    });

    test('R19, R36: has Max-Age and Expires if permanent, once in each half of its lifetime', async () => {
      const app = await stack.start(parts, { cookie: { permanent: true }, permanentTimeout: '30d' });
      const { browser, answer } = await begin(app);
      expect(answer.cookies[0]).toMatch(/Max-Age=2592000; .*Expires=/);
      stack.clock.advance(86_400_000);
      expect((await browser.get('/who')).cookies).toEqual([]);
      stack.clock.advance(15 * 86_400_000);
      expect((await browser.get('/who')).cookies[0]).toMatch(/Max-Age=2592000/);
      await app.app.get(VisitService).flush();
      expect((await browser.get('/who')).cookies).toEqual([]);
    });

    test('R19: Max-Age is never more than 400 days', async () => {
      const app = await stack.start(parts, { cookie: { permanent: true }, permanentTimeout: '900d' });
      expect((await begin(app)).answer.cookies[0]).toContain('Max-Age=34560000');
    });

    test('R15, ASVS 3.3.3: with secure, path / and no domain, the name has the prefix __Host-', async () => {
      const app = await stack.start(parts, { cookie: { secure: true } });
      const { answer, browser } = await begin(app);
      expect(answer.cookies[0]).toMatch(/^__Host-visit=.*; Secure; SameSite=Lax$/);
      expect((await browser.get('/count')).text).toBe('2');
    });
  });

  describe('its key', () => {
    test('R7, B25: an unknown key is not adopted', async () => {
      const app = await stack.start(parts);
      const answer = await app.browser().get('/count', { cookie: `visit=${forged()}` });
      expect(answer.text).toBe('1');
      expect(keyIn(answer.cookies)).not.toBe(forged());
      expect(keyIn(answer.cookies)).not.toContain(forged().slice(0, 32));
    });

    test('R7: the right id with a wrong secret identifies nobody', async () => {
      const app = await stack.start(parts);
      const { key } = await begin(app);
      const answer = await app.browser().get('/count', { cookie: `visit=${key.slice(0, 33)}${'B'.repeat(43)}` });
      expect(answer.text).toBe('1');
      expect(keyIn(answer.cookies).slice(0, 32)).not.toBe(key.slice(0, 32));
    });

    test.each([
      '',
      'x',
      `${'0'.repeat(32)}.${'A'.repeat(42)}`,
      `${'G'.repeat(32)}.${'A'.repeat(43)}`,
      `${'A'.repeat(32)}.${'A'.repeat(43)}`,
      "' OR 1=1 --",
      'a'.repeat(5000),
    ])('R9, B35: the malformed key %j costs no query and creates no row', async (key) => {
      const app = await stack.start(parts);
      const before = (await stack.rows()).length;
      const statements = await stack.statements(() => app.browser().get('/who', { cookie: `visit=${key}` }));
      expect(statements).toEqual([]);
      expect(await stack.rows()).toHaveLength(before);
    });

    test('R9: a well-formed key costs exactly one query', async () => {
      const app = await stack.start(parts);
      const { browser } = await begin(app);
      expect(await stack.statements(() => browser.get('/who'))).toHaveLength(1);
    });

    test('B35: a forged key creates no row, even with immediate creation, and costs one query', async () => {
      for (const creation of ['lazy', 'immediate'] as const) {
        const app = await stack.start(parts, { creation });
        const before = (await stack.rows()).length;
        const statements = await stack.statements(async () => {
          const answer = await app.browser().get('/who', { cookie: `visit=${forged()}` });
          expect(answer.cookies).toEqual([]);
        });
        expect(statements).toHaveLength(1);
        expect(await stack.rows()).toHaveLength(before);
      }
    });
  });

  describe('its lifetime', () => {
    test('R22, R23, ASVS 7.3.1: lasts for the timeout after each request, and no longer', async () => {
      const app = await stack.start(parts, { timeout: '20m' });
      const { browser } = await begin(app);
      for (let i = 0; i < 3; i++) {
        stack.clock.advance(19 * 60_000);
        expect(JSON.parse((await browser.get('/who')).text)).toMatchObject({ isNew: false });
      }
      stack.clock.advance(20 * 60_000);
      const late = await browser.get('/count');
      expect(late.text).toBe('1');
      expect(late.cookies).toHaveLength(1);
    });

    test('R24, B27, ASVS 7.3.2: the absolute lifetime is moved neither by activity nor by other options', async () => {
      const app = await stack.start(parts, { absoluteTimeout: '1h' });
      const { browser } = await begin(app);
      for (let i = 0; i < 3; i++) {
        stack.clock.advance(15 * 60_000);
        expect(JSON.parse((await browser.get('/who')).text)).toMatchObject({ isNew: false });
      }
      await app.app.get(VisitService).flush(); // by the other application's clock, minutes have passed
      const longer = await stack.start(parts, { timeout: '10h' });
      stack.clock.advance(14 * 60_000);
      const cookie = `visit=${browser.jar.get('visit')}`;
      expect(JSON.parse((await longer.browser().get('/who', { cookie })).text)).toMatchObject({ isNew: false });
      stack.clock.advance(60_000);
      expect(JSON.parse((await longer.browser().get('/who', { cookie })).text)).toMatchObject({ isNew: true });
    });

    test('R27, B20: does not expire because of queued touches', async () => {
      const app = await stack.start(parts, { timeout: '60s', touch: { interval: '50s' } });
      const { browser } = await begin(app);
      for (let i = 0; i < 5; i++) {
        stack.clock.advance(40_000);
        expect(JSON.parse((await browser.get('/who')).text)).toMatchObject({ isNew: false });
      }
    });

    test('R26, R30, R50, B33: requests that only read write nothing but one queued update per visit', async () => {
      const app = await stack.start(parts, { touch: { interval: '1h', resolution: '60s' }, timeout: '5h' });
      const { browser } = await begin(app);
      const statements = await stack.statements(async () => {
        for (let i = 0; i < 5; i++) {
          stack.clock.advance(61_000);
          await browser.get('/who');
        }
      });
      expect(statements.filter((sql) => !sql.startsWith('SELECT'))).toEqual([]);
      const flush = await stack.statements(() => app.app.get(VisitService).flush());
      expect(flush.filter((sql) => sql.startsWith('UPDATE'))).toHaveLength(1);
    });

    test('R27, B62: an update with a large gain is written before the response; the process may end then', async () => {
      const app = await stack.start(parts, { timeout: '20m' });
      const { browser, key } = await begin(app);
      const expiryAfter = async (minutes: number): Promise<number> => {
        stack.clock.advance(minutes * 60_000);
        await browser.get('/who');
        const row = (await stack.rows()).find(({ id }) => id === key.slice(0, 32))!;
        return Math.round((Number(row.expiry) - stack.clock.now()) / 60_000);
      };
      // A quarter of the timeout is not much.
      expect(await expiryAfter(5)).toBe(15);
      expect(await expiryAfter(1)).toBe(20);
      expect(await expiryAfter(12)).toBe(20);
      expect(await expiryAfter(4)).toBe(16);
    });

    test('R11, R90: a handler can have its own timeout and source', async () => {
      const app = await stack.start(parts, { source: 'cookie, query' });
      const { browser, key } = await begin(app);
      expect(JSON.parse((await browser.get('/tuned')).text).id).not.toBe(key.slice(0, 32));
      const tuned = JSON.parse((await browser.get(`/tuned?visit_key=${key}`)).text) as { id: string; expiry: string };
      expect(tuned.id).toBe(key.slice(0, 32));
      expect(new Date(tuned.expiry).getTime()).toBe(stack.clock.now() + 5 * 3_600_000);
    });

    test('a passive handler does not keep it alive', async () => {
      const app = await stack.start(parts, { timeout: '20m' });
      const { browser } = await begin(app);
      stack.clock.advance(15 * 60_000);
      expect(JSON.parse((await browser.get('/poll')).text)).toEqual({ isNew: false });
      stack.clock.advance(5 * 60_000);
      expect(JSON.parse((await browser.get('/poll')).text)).toEqual({ isNew: true });
    });

    test('B38: no request cleans up after others', async () => {
      const app = await stack.start(parts, { timeout: '1m' });
      for (let i = 0; i < 3; i++) await begin(app);
      stack.clock.advance(30 * 86_400_000);
      const statements = await stack.statements(async () => {
        for (let i = 0; i < 20; i++) await begin(app);
      });
      expect(statements.length).toBeGreaterThanOrEqual(20);
      expect(statements.filter((sql) => /DELETE|= NULL/.test(sql))).toEqual([]);
    });

    test('R11: a skipped handler has no visit and no session in any way, and nothing is written for it', async () => {
      const app = await stack.start(parts, { source: 'cookie, form' });
      const { browser } = await begin(app);
      stack.clock.advance(5 * 60_000);
      expect(await stack.statements(() => browser.get('/skipped'))).toEqual([expect.stringMatching(/^SELECT/)]);
      await app.app.get(VisitService).flush();
      const answer = await browser.get('/skipped?visit_key=1&a=2');
      const none = 'VISIT_NOT_RESOLVED';
      expect(JSON.parse(answer.text)).toEqual({ byRequest: none, injected: none, visit: none, query: { a: '2' } });
      expect((await browser.get('/skipped-session')).status).toBe(500);
    });

    test('R35: lazy creation stores nothing on reading; immediate creation begins with the first request', async () => {
      const lazy = await stack.start(parts);
      const before = (await stack.rows()).length;
      expect((await lazy.browser().get('/who')).cookies).toEqual([]);
      expect(await stack.rows()).toHaveLength(before);
      const immediate = await stack.start(parts, { creation: 'immediate' });
      const first = await immediate.browser().get('/who');
      expect(first.cookies).toHaveLength(1);
      expect(await stack.rows()).toHaveLength(before + 1);
      expect(JSON.parse(first.text)).toMatchObject({ isNew: true, id: keyIn(first.cookies).slice(0, 32) });
    });

    test('R34: stores address and browser, as far as the options allow', async () => {
      const cases = [
        [{}, '127.0.0.1', 'Tester/1.0'],
        [{ remoteAddress: 'truncated' }, '127.0.0.0', 'Tester/1.0'],
        [{ remoteAddress: false, userAgent: false }, null, null],
      ] as const;
      for (const [record, address, agent] of cases) {
        const app = await stack.start(parts, { record });
        const answer = await app.browser().get('/count', { headers: { 'user-agent': 'Tester/1.0' } });
        expect(await app.app.get(VisitService).find(keyIn(answer.cookies).slice(0, 32))).toMatchObject({
          remoteAddress: address,
          userAgent: agent,
        });
      }
    });

    test('R34: a forwarded address counts only if the framework trusts the proxy', async () => {
      const app = await stack.start(parts);
      const answer = await app.browser().get('/count', { headers: { 'x-forwarded-for': '203.0.113.7' } });
      expect(await app.app.get(VisitService).find(keyIn(answer.cookies).slice(0, 32))).toMatchObject({
        remoteAddress: '127.0.0.1',
      });
    });
  });

  describe('its sources', () => {
    test('R2: query and body are not read and not changed, unless enabled', async () => {
      const app = await stack.start(parts);
      const { key } = await begin(app);
      const answer = JSON.parse((await app.browser().get(`/query?visit_key=${key}`)).text) as {
        id: string;
        query: unknown;
      };
      expect(answer.id).not.toBe(key.slice(0, 32));
      expect(answer.query).toEqual({ visit_key: key });
    });

    test('R2, R3, R5: each one is read and stripped', async () => {
      const app = await stack.start(parts, { source: ' Cookie , FORM ' });
      const { key } = await begin(app);
      const query = await app.browser().get(`/query?a=1&visit_key=${key}`);
      expect(JSON.parse(query.text)).toEqual({ id: key.slice(0, 32), query: { a: '1' } });
      const form = await app.browser().post('/body', { form: { a: '1', visit_key: key } });
      if (stack.platform === 'express')
        expect(JSON.parse(form.text)).toEqual({ id: key.slice(0, 32), body: { a: '1' } });
      const json = await app.browser().post('/body', { json: { a: 1, visit_key: key } });
      expect(JSON.parse(json.text)).toEqual({ id: key.slice(0, 32), body: { a: 1 } });
    });

    test('R5: is stripped even if the key of the cookie is used', async () => {
      const app = await stack.start(parts, { source: 'cookie, query' });
      const { browser, key } = await begin(app);
      const other = (await begin(app)).key;
      expect(JSON.parse((await browser.get(`/query?visit_key=${other}&b=2`)).text)).toEqual({
        id: key.slice(0, 32),
        query: { b: '2' },
      });
      const withBody = await stack.start(parts, { source: 'cookie, form' });
      const body = await browser.via(withBody).post('/body', { json: { visit_key: other, b: 2 } });
      expect(JSON.parse(body.text)).toEqual({ id: key.slice(0, 32), body: { b: 2 } });
    });

    test('R3: the order decides', async () => {
      const app = await stack.start(parts, { source: ['query', 'cookie'] });
      const { browser } = await begin(app);
      const other = (await begin(app)).key;
      expect(JSON.parse((await browser.get(`/query?visit_key=${other}`)).text)).toMatchObject({
        id: other.slice(0, 32),
      });
    });

    test.each(['nonsense', forged()])('R4: the next source is used if the first one contains %s', async (bad) => {
      const app = await stack.start(parts, { source: 'query, cookie' });
      const { browser, key } = await begin(app);
      expect(JSON.parse((await browser.get(`/query?visit_key=${bad}`)).text)).toEqual({
        id: key.slice(0, 32),
        query: {},
      });
    });

    test('R6: the parameter can be named; a repeated value is ignored and stripped', async () => {
      const app = await stack.start(parts, { source: 'cookie, query', paramName: 'v' });
      const { key } = await begin(app);
      expect(JSON.parse((await app.browser().get(`/query?v=${key}&visit_key=1`)).text)).toEqual({
        id: key.slice(0, 32),
        query: { visit_key: '1' },
      });
      const repeated = JSON.parse((await app.browser().get(`/query?v=${key}&v=${key}`)).text) as {
        id: string;
        query: unknown;
      };
      expect(repeated.id).not.toBe(key.slice(0, 32));
      expect(repeated.query).toEqual({});
    });

    test('R6: an earlier name of the parameter is still read and stripped, and the first one is written', async () => {
      const app = await stack.start(parts, { source: 'cookie, form', paramName: ['visit_key', 'tg_visit'] });
      const { key } = await begin(app);
      for (const name of ['visit_key', 'tg_visit']) {
        const answer = await app.browser().get(`/query?a=1&${name}=${key}`);
        expect(JSON.parse(answer.text)).toEqual({ id: key.slice(0, 32), query: { a: '1' } });
        expect(answer.headers.get('referrer-policy')).toBe('no-referrer');
        const json = await app.browser().post('/body', { json: { a: 1, [name]: key } });
        expect(JSON.parse(json.text)).toEqual({ id: key.slice(0, 32), body: { a: 1 } });
      }
      const other = (await begin(app)).key;
      const both = await app.browser().get(`/query?tg_visit=${other}&visit_key=${key}`);
      expect(JSON.parse(both.text)).toEqual({ id: key.slice(0, 32), query: {} });
      expect((JSON.parse((await app.browser().get('/link')).text) as { link: string }).link).toContain('&visit_key=');
    });

    test('R14: a link contains the key, escaped, and the response has protecting headers', async () => {
      const app = await stack.start(parts, { source: 'cookie, form' });
      const answer = await app.browser().get('/link');
      const key = keyIn(answer.cookies);
      const { link, field } = JSON.parse(answer.text) as { link: string; field: string };
      expect(link).toBe(`/count?a=1&visit_key=${key}#b`);
      expect(field).toBe(`<input type="hidden" name="visit_key" value="${key}">`);
      expect(answer.headers.get('referrer-policy')).toBe('no-referrer');
      expect(answer.headers.get('cache-control')).toBe('no-store');
      expect((await app.browser().get(link)).text).toBe('1');
      expect((await app.browser().get(link)).text).toBe('2');
    });

    test('R14: there is no link while the source is off', async () => {
      const app = await stack.start(parts);
      expect((await app.browser().get('/link')).status).toBe(500);
    });
  });

  describe('among other requests', () => {
    test('R10: is resolved once, however often it is requested', async () => {
      const app = await stack.start(parts);
      const { browser } = await begin(app);
      expect(await stack.statements(() => browser.get('/same'))).toHaveLength(1);
      expect((await browser.get('/same')).text).toBe('true');
    });

    test('R12: concurrent requests are never mixed up, even in singletons', async () => {
      const app = await stack.start(parts);
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, i) => app.browser().get(`/slow-count?wait=${(i * 7) % 40}`)),
      );
      for (const [i, answer] of answers.entries()) {
        const name = String((i * 7) % 40);
        expect(JSON.parse(answer.text)).toEqual({ name, own: name });
      }
    });

    test('R75: two applications in one process do not share visits by accident', async () => {
      const one = await stack.start(parts, { paramName: 'one' });
      const other = await stack.start(parts, { cookie: { name: 'other' } });
      const { browser } = await begin(one);
      expect((await other.browser().get('/count', { cookie: `visit=${browser.jar.get('visit')}` })).text).toBe('1');
      expect((await browser.get('/count')).text).toBe('2');
    });

    test.each(['/%77ho', '//who', '/who/', '/who?x=/missing', '/WHO'])(
      'B30: the path %s does not bypass the visit',
      async (path) => {
        const app = await stack.start(parts, { creation: 'immediate' });
        const answer = await app.browser().get(path);
        // Either the route is found, and then with its visit, or it is not found at all.
        if (answer.status === 200) expect(JSON.parse(answer.text)).toMatchObject({ same: true });
        else expect(answer.status).toBe(404);
      },
    );

    test('R48: works for a 404 of a handler and of the router', async () => {
      const app = await stack.start(parts);
      expect((await app.browser().get('/missing')).status).toBe(404);
      expect((await app.browser().get('/nowhere')).status).toBe(404);
    });
  });
});
