import {
  Body,
  Controller,
  Get,
  Logger,
  Post,
  Query,
  UseGuards,
  type ArgumentMetadata,
  type PipeTransform,
} from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import {
  CsrfGuard,
  CurrentVisit,
  FormTokenService,
  IdentityService,
  MemoryVisitStore,
  RequireFormToken,
  Session,
  SkipCsrf,
  SkipVisit,
} from 'nest-visit';
import { expect, onTestFinished, test, vi } from 'vitest';
import { describeStacks, startBehindProxy, type RunningApp, type Stack } from '../support/app.js';
import type { Answer, Browser } from '../support/browser.js';

@Controller()
class ShopController {
  constructor(
    private readonly formTokens: FormTokenService,
    private readonly identity: IdentityService,
    private readonly session: Session,
  ) {}

  @Get('token')
  token() {
    return this.formTokens.create();
  }

  @Get('form')
  async form() {
    return `<form method="post" action="/buy">${await this.formTokens.hiddenField()}</form>`;
  }

  @Get('safe')
  safe() {
    return 'ok';
  }

  @Post('buy')
  async buy() {
    return { bought: await this.session.update('bought', (bought: number | undefined) => (bought ?? 0) + 1) };
  }

  @Post('once')
  @RequireFormToken()
  async once() {
    return this.buy();
  }

  @Post('login')
  async login() {
    await this.identity.login('Ann');
  }

  @Post('logout')
  async logout() {
    await this.identity.logout({ keepVisit: true });
  }

  @Post('body')
  body(@Body() body: unknown) {
    return body;
  }

  @Post('by-hand')
  async byHand(@Query('token') token?: string) {
    return token === undefined ? this.formTokens.consume() : this.formTokens.consume(token);
  }

  @Post('callback')
  @SkipCsrf()
  callback(@Session() session: Session, @CurrentVisit() visit: CurrentVisit) {
    return `${session.get('bought')} ${visit.isNew}`;
  }

  @Post('hook')
  @SkipVisit()
  hook() {
    return 'ok';
  }

  @Post('twice')
  @UseGuards(CsrfGuard)
  @RequireFormToken()
  twice() {
    return this.buy();
  }
}

const SAME = { 'sec-fetch-site': 'same-origin' };
const codeOf = ({ text }: Answer): string => (JSON.parse(text) as { code: string }).code;

const parts = { controllers: [ShopController], providers: [{ provide: APP_GUARD, useExisting: CsrfGuard }] };

// What headers say has nothing to do with the kind of database.
describeStacks('Requests across sites', requestsAcrossSites, ['sqlite']);

function requestsAcrossSites(stack: Stack): void {
  const start = (csrf = {}, options = {}): Promise<RunningApp> => stack.start(parts, { csrf, ...options });
  const newToken = async (browser: Browser): Promise<string> => (await browser.get('/token')).text;
  const buy = (browser: Browser, headers: Record<string, string>, method = 'POST'): Promise<Answer> =>
    browser.post('/buy', { headers, method });

  test('R60, ASVS 3.5.3: safe methods are allowed from any origin', async () => {
    const browser = (await start()).browser();
    const foreign = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' };
    for (const method of ['GET', 'HEAD'])
      expect((await browser.get('/safe', { method, headers: foreign })).status, method).toBe(200);
  });

  test('R60, F1, ASVS 3.5.1: Fetch Metadata decides first', async () => {
    const app = await start();
    const browser = app.browser();
    for (const site of ['same-origin', 'none'])
      expect((await buy(browser, { 'sec-fetch-site': site })).status, site).toBe(201);
    // Even the own origin cannot mend what the browser says; what it says twice was not said by a browser.
    for (const site of ['cross-site', 'same-site', '', 'same-origin, cross-site', 'SAME-ORIGIN ']) {
      const answer = await buy(browser, { 'sec-fetch-site': site, origin: app.address });
      expect([answer.status, codeOf(answer)], site).toEqual([403, 'VISIT_CROSS_SITE']);
    }
  });

  test('R60, F2: Origin decides if there is no Fetch Metadata', async () => {
    const app = await start();
    const browser = app.browser();
    const port = new URL(app.address).port;
    expect((await buy(browser, { origin: app.address })).status).toBe(201);
    for (const origin of [
      'null',
      'https://evil.example',
      `http://127.0.0.1:${port}.evil.example`,
      `http://127.0.0.1`,
      `http://localhost:${port}`,
      'http://',
      '',
    ]) {
      const answer = await buy(browser, { origin });
      expect([answer.status, codeOf(answer)], origin).toEqual([403, 'VISIT_CROSS_SITE']);
    }
  });

  test('R60, F2: a proxy must be trusted; an http page is foreign if cookies are secure', async () => {
    const app = await start();
    const proxied = { 'x-forwarded-host': 'shop.example', origin: 'https://shop.example' };
    expect((await buy(app.browser(), proxied)).status).toBe(403);
    const behind = await startBehindProxy(stack.platform, { store: new MemoryVisitStore() }, parts);
    onTestFinished(() => behind.close());
    expect((await buy(behind.browser(), proxied)).status).toBe(201);
    // A request that came by https is from no page of http, of which somebody on the way may have made what they like.
    const plain = { ...proxied, origin: 'http://shop.example' };
    expect((await buy(behind.browser(), plain)).status).toBe(201);
    expect((await buy(behind.browser(), { ...plain, 'x-forwarded-proto': 'https' })).status).toBe(403);
    expect((await buy(behind.browser(), { ...proxied, 'x-forwarded-proto': 'https' })).status).toBe(201);

    const secure = await start({}, { cookie: { secure: true } });
    const host = new URL(secure.address).host;
    expect((await buy(secure.browser(), { origin: `http://${host}` })).status).toBe(403);
    expect((await buy(secure.browser(), { origin: `https://${host}` })).status).toBe(201);
  });

  test('R60: trusted origins are allowed, and no others', async () => {
    const app = await start({ trustedOrigins: ['https://www.shop.example', 'https://shop.example:8443'] });
    const ask = (origin: string, site: string) => buy(app.browser(), { origin, 'sec-fetch-site': site });
    expect((await ask('https://www.shop.example', 'same-site')).status).toBe(201);
    expect((await ask('https://shop.example:8443', 'cross-site')).status).toBe(201);
    for (const origin of [
      'https://shop.example',
      'http://www.shop.example',
      'https://www.shop.example.evil.example',
      'null',
    ]) {
      expect((await ask(origin, 'cross-site')).status, origin).toBe(403);
    }
  });

  test('R60, F3: a request of unknown origin needs a form token, in body or header, never in the URL', async () => {
    const app = await start();
    const browser = app.browser();
    const refused = await buy(browser, {});
    expect([refused.status, codeOf(refused)]).toEqual([403, 'VISIT_ORIGIN_UNKNOWN']);
    expect((await browser.post('/buy', { json: { form_token: await newToken(browser) } })).status).toBe(201);
    expect((await browser.post(`/buy?form_token=${await newToken(browser)}`)).status).toBe(403);
    expect((await buy(browser, { 'x-form-token': await newToken(browser) })).status).toBe(201);
    const [, field] = /value="([^"]+)"/.exec((await browser.get('/form')).text)!;
    expect((await browser.post('/buy', { form: { form_token: field! } })).status).toBe(201);
    const tokens = [await newToken(browser), await newToken(browser)];
    for (const form_token of [tokens, { a: 1 }, tokens.join(','), null]) {
      expect((await browser.post('/buy', { json: { form_token } })).status).toBe(403);
    }
    // Many are good at once.
    for (const form_token of tokens) expect((await browser.post('/buy', { json: { form_token } })).status).toBe(201);
  });

  test('F4, B26: a token is valid only for its visit, not after a sign-in; a sign-in form has one', async () => {
    const app = await start();
    const [browser, attacker] = [app.browser(), app.browser()];
    const planted = await newToken(attacker);
    expect((await browser.post('/login', { json: { form_token: planted } })).status).toBe(403);
    const [token, early] = [await newToken(browser), await newToken(browser)];
    expect((await browser.post('/login', { json: { form_token: token } })).status).toBe(201);
    expect((await browser.post('/buy', { json: { form_token: early } })).status).toBe(403);
  });

  test('F4, B26: a token from before a change of rights never becomes valid again, for any user', async () => {
    const app = await start();
    const browser = app.browser();
    const change = async (path: string): Promise<void> =>
      expect((await browser.post(path, { headers: SAME })).status).toBe(201);
    const anonymous = await newToken(browser);
    await change('/login');
    const signedIn = await newToken(browser);
    for (const path of ['/logout', '/login', '/logout', '/login']) {
      await change(path);
      for (const form_token of [anonymous, signedIn]) {
        const answer = await browser.post('/buy', { json: { form_token } });
        expect([answer.status, codeOf(answer)], path).toEqual([403, 'VISIT_FORM_TOKEN']);
      }
    }
    expect((await browser.post('/buy', { json: { form_token: await newToken(browser) } })).status).toBe(201);
  });

  test('R60: a refusal states its reason', async () => {
    const app = await start();
    const browser = app.browser();
    const token = await newToken(browser);
    expect((await browser.post('/once', { json: { form_token: token } })).status).toBe(201);
    const own = { headers: SAME };
    for (const [code, path, ask] of [
      ['VISIT_CROSS_SITE', '/buy', { headers: { 'sec-fetch-site': 'cross-site' } }],
      ['VISIT_ORIGIN_UNKNOWN', '/buy', {}],
      ['VISIT_FORM_TOKEN_MISSING', '/once', own],
      ['VISIT_FORM_TOKEN_MISSING', '/once', { ...own, json: { form_token: '' } }],
      ['VISIT_FORM_TOKEN_USED', '/once', { ...own, json: { form_token: token } }],
      ['VISIT_FORM_TOKEN_USED', '/buy', { json: { form_token: token } }],
      ['VISIT_FORM_TOKEN', '/once', { ...own, json: { form_token: 'x'.repeat(22) } }],
      ['VISIT_FORM_TOKEN', '/buy', { json: { form_token: 'nonsense' } }],
    ] as const) {
      const answer = await browser.post(path, ask);
      expect([answer.status, codeOf(answer)]).toEqual([403, code]);
    }
    expect((await browser.post('/buy')).text).toContain('Sec-Fetch-Site: same-origin');
  });

  test.each([
    ['images', { 'sec-fetch-site': 'same-origin', 'sec-fetch-dest': 'image' }],
    ['scripts', { 'sec-fetch-site': 'same-origin', 'sec-fetch-dest': 'script' }],
    ['windows that another site opens', { 'sec-fetch-site': 'cross-site', 'sec-fetch-dest': 'document' }],
    ['images of a browser that sends fewer headers', { accept: 'image/avif,image/webp,*/*' }],
  ])('F5: %s cannot evict the tokens of open forms', async (_, headers) => {
    const app = await start();
    const browser = app.browser();
    const open = { headers: { 'sec-fetch-site': 'same-origin', 'sec-fetch-dest': 'document' } };
    const form_token = (await browser.get('/token', open)).text;
    const loose: string[] = [];
    for (let count = 0; count < 40; count++) loose.push((await browser.get('/token', { headers })).text);
    // What another site has opened can be sent, too.
    expect((await browser.post('/buy', { json: { form_token: loose.at(-1) } })).status).toBe(201);
    expect((await browser.post('/buy', { json: { form_token: loose[0] } })).status).toBe(403);
    expect((await browser.post('/buy', { json: { form_token } })).status).toBe(201);
    for (let count = 0; count < 16; count++) await browser.get('/token', open);
    expect((await browser.post('/buy', { json: { form_token: loose.at(-2) } })).status).toBe(201);
  });

  test('R60: @SkipCsrf() exempts one handler, which still has its visit', async () => {
    const app = await start({ requireToken: true });
    const browser = app.browser();
    expect((await buy(browser, { ...SAME, 'x-form-token': await newToken(browser) })).status).toBe(201);
    const answer = await browser.post('/callback', {
      headers: { 'sec-fetch-site': 'cross-site', origin: 'https://bank.example' },
    });
    expect([answer.status, answer.text]).toEqual([201, '1 false']);
    expect((await browser.post('/buy', { headers: { 'sec-fetch-site': 'cross-site' } })).status).toBe(403);
  });

  test('R59: pipes do not see the token field, and a handler can use up the token itself', async () => {
    const app = await start();
    const browser = app.browser();
    const form_token = await newToken(browser);
    const sent = { headers: SAME, json: { form_token, name: 'Ann' } };
    expect((await browser.post('/body', sent)).text).toBe('{"name":"Ann"}');
    expect((await browser.post('/by-hand', sent)).text).toBe('true');
    expect((await browser.post('/by-hand', sent)).text).toBe('false');
    expect((await browser.post(`/by-hand?token=${await newToken(browser)}`, { headers: SAME })).text).toBe('true');
  });

  test('R59, R60: the field name of the option applies to writing, reading and removing it', async () => {
    const app = await start({ requireToken: true }, { formTokens: { field: 'ticket' } });
    const browser = app.browser();
    const [, ticket] = /name="ticket" value="([^"]+)"/.exec((await browser.get('/form')).text)!;
    const send = (json: object): Promise<Answer> => browser.post('/body', { headers: SAME, json });
    expect(codeOf(await send({ form_token: ticket }))).toBe('VISIT_FORM_TOKEN_MISSING');
    const answer = await send({ ticket, form_token: 'of somebody else', name: 'Ann' });
    expect([answer.status, JSON.parse(answer.text)]).toEqual([201, { form_token: 'of somebody else', name: 'Ann' }]);
  });

  test('R12: pipes do not transform session or visit', async () => {
    const seen: ArgumentMetadata[] = [];
    const pipe: PipeTransform = {
      transform: (value: unknown, metadata: ArgumentMetadata) => (seen.push(metadata), value),
    };
    const app = await stack.start(parts, {}, (nest) => nest.useGlobalPipes(pipe));
    expect((await app.browser().post('/callback')).status).toBe(201);
    // ValidationPipe leaves these alone, also with `validateCustomDecorators`.
    expect(seen.map(({ type, metatype }) => [type, metatype])).toEqual([
      ['custom', Object],
      ['custom', Object],
    ]);
  });

  test('N8: with csrf.requireToken, every unsafe request needs a token of the visit', async () => {
    const app = await start({ requireToken: true });
    const browser = app.browser();
    expect((await buy(browser, SAME)).status).toBe(403);
    const token = await newToken(browser);
    expect((await buy(browser, { 'sec-fetch-site': 'cross-site', 'x-form-token': token })).status).toBe(403);
    expect((await buy(browser, { ...SAME, 'x-form-token': token })).status).toBe(201);
    expect((await buy(browser, { ...SAME, 'x-form-token': token })).status).toBe(403);
  });

  test('R59, B13, N8: @RequireFormToken() processes a repeated form once, even on two machines', async () => {
    const apps = [await start(), await start()];
    const browser = apps[0]!.browser();
    const json = { form_token: await newToken(browser) };
    const cookie = `visit=${browser.jar.get('visit')}`;
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        apps[index % 2]!.browser().post('/once', { cookie, json, headers: SAME }),
      ),
    );
    expect(answers.map(({ status }) => String(status)).sort()).toEqual([
      '201',
      ...Array.from({ length: 7 }, () => '403'),
    ]);
    const after = await browser.post('/buy', { headers: SAME });
    expect(JSON.parse(after.text)).toEqual({ bought: 2 });
  });

  test('R59: a token that two guards require is used up once', async () => {
    const app = await start({ requireToken: true });
    const browser = app.browser();
    const ask = async (): Promise<Answer> => browser.post('/twice', { headers: SAME, json: { form_token } });
    const form_token = await newToken(browser);
    expect((await ask()).status).toBe(201);
    expect((await ask()).status).toBe(403);
  });

  test('R60: a cross-site request writes nothing, and creates no visit and no cookie, with any body', async () => {
    const app = await start();
    const browser = app.browser();
    await newToken(browser);
    const rows = (await stack.rows()).length;
    const foreign = { 'sec-fetch-site': 'cross-site' };
    const bodies = ['text/plain', 'application/x-www-form-urlencoded', 'application/json'] as const;
    const seen = await stack.statements(async () => {
      for (const type of bodies) {
        const answer = await fetch(`${app.address}/buy`, {
          method: 'POST',
          body: '{"form_token":"xxxxxxxxxxxxxxxxxxxxxx"}',
          headers: { ...foreign, 'content-type': type, cookie: `visit=${browser.jar.get('visit')}` },
        });
        // Fastify knows no forms unless it is told to.
        expect([403, 415], type).toContain(answer.status);
        expect(answer.headers.getSetCookie()).toEqual([]);
      }
    });
    expect(seen.filter((statement) => !/^SELECT/i.test(statement))).toEqual([]);
    expect(await stack.rows()).toHaveLength(rows);
  });

  test('F3: uploads send it in a header', async () => {
    const app = await start();
    const browser = app.browser();
    const token = await newToken(browser);
    const body = new FormData();
    body.set('form_token', 'x'.repeat(22));
    const send = (headers: Record<string, string>) =>
      fetch(`${app.address}/buy`, {
        method: 'POST',
        body,
        headers: { ...headers, cookie: `visit=${browser.jar.get('visit')}` },
      });
    if (stack.platform === 'fastify') return; // It has no parser for them, and says 415.
    expect((await send({})).status).toBe(403);
    expect((await send({ 'x-form-token': token })).status).toBe(201);
  });

  test('R60: handlers without a visit accept cross-site requests', async () => {
    const app = await start();
    expect((await app.browser().post('/hook')).status).toBe(201);
  });

  test('R60: csrf.reportOnly allows requests and logs them, without keys, tokens or forged lines', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => warn.mockRestore());
    const app = await start({ reportOnly: true });
    const browser = app.browser();
    const token = await newToken(browser);
    const answer = await buy(browser, {
      'sec-fetch-site': 'cross-site',
      origin: `https://evil.example/"${'x'.repeat(500)}`,
      'x-form-token': token,
    });
    expect(answer.status).toBe(201);
    const lines = warn.mock.calls.map(([line]) => String(line)).filter((line) => line.includes('csrf.reportOnly'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('"origin":"https://evil.example/\\"xxx');
    expect(lines[0]!.length).toBeLessThan(500);
    for (const secret of [token, browser.jar.get('visit')!]) expect(lines[0]).not.toContain(secret);
  });

  test('R60, R74: origins that no browser would send are refused at startup', async () => {
    for (const origin of [
      'https://a.example/',
      'a.example',
      'https://A.example',
      'https://a.example:443',
      'null',
      '*',
      'ftp://a.example',
      7,
    ]) {
      await expect(start({ trustedOrigins: [origin] }), String(origin)).rejects.toThrow(
        'option "csrf.trustedOrigins" must be a list of origins',
      );
    }
  });
}
