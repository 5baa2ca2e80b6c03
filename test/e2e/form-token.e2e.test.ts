import { Body, Controller, Get, Post } from '@nestjs/common';
import { FormTokenService, IdentityService, Session, VisitService } from 'nest-visit';
import { expect, test } from 'vitest';
import { describeStacks, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';

@Controller()
class FormController {
  constructor(
    private readonly formTokens: FormTokenService,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly session: Session,
  ) {}

  @Get('form')
  form() {
    return this.formTokens.create();
  }

  @Post('form')
  async send(@Body('token') token: unknown) {
    return { accepted: await this.formTokens.consume(token) };
  }

  @Post('login')
  async login() {
    await this.identity.login('Ann');
  }

  @Post('logout')
  async logout() {
    await this.identity.logout({ keepVisit: true });
  }

  @Post('renew')
  async renew() {
    await this.visits.renew();
  }

  @Post('clear')
  clear() {
    this.session['cart'] = 1;
    this.session.clear();
  }

  @Get('data')
  data() {
    return { keys: Object.keys(this.session), size: this.session.size, entries: this.session.entries() };
  }
}

const parts = { controllers: [FormController] };

describeStacks('Form tokens', (stack) => {
  const start = (options = {}): Promise<RunningApp> => stack.start(parts, options);
  const newToken = async (browser: Browser): Promise<string> => (await browser.get('/form')).text;
  const isAccepted = async (browser: Browser, token: unknown): Promise<boolean> => {
    const answer = await browser.post('/form', { json: { token } });
    expect(answer.status, answer.text).toBe(201);
    return (JSON.parse(answer.text) as { accepted: boolean }).accepted;
  };

  test('R59: each token can be used once, by its own visit', async () => {
    const app = await start();
    const [browser, other] = [app.browser(), app.browser()];
    const [first, second] = [await newToken(browser), await newToken(browser)];
    expect(first).toMatch(/^[\w-]{22}$/);
    await newToken(other);
    expect(await isAccepted(other, first)).toBe(false);
    expect(await isAccepted(browser, first)).toBe(true);
    expect(await isAccepted(browser, first)).toBe(false);
    expect(await isAccepted(browser, second)).toBe(true);
  });

  test('R59, B13: of concurrent requests with one token, on several machines, exactly one wins', async () => {
    const apps = [await start(), await start()];
    const browser = apps[0]!.browser();
    const token = await newToken(browser);
    const cookie = `visit=${browser.jar.get('visit')}`;
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => apps[i % 2]!.browser().post('/form', { cookie, json: { token } })),
    );
    expect(answers.map(({ text }) => text).filter((text) => text.includes('true'))).toHaveLength(1);
  });

  test('R59, F5: tokens created at the same time are all valid; the oldest are dropped first', async () => {
    const app = await start({ formTokens: { max: 4 } });
    const browser = app.browser();
    const old = await newToken(browser);
    const tokens = await Promise.all(Array.from({ length: 4 }, () => newToken(browser.clone())));
    expect(await isAccepted(browser, old)).toBe(false);
    for (const token of tokens) expect(await isAccepted(browser, token)).toBe(true);
  });

  test('B26: a token from before a sign-in or sign-out is invalid after it; a renewal changes nothing', async () => {
    const app = await start();
    const browser = app.browser();
    for (const change of ['/login', '/logout']) {
      const token = await newToken(browser);
      await browser.post(change);
      expect(await isAccepted(browser, token)).toBe(false);
    }
    const token = await newToken(browser);
    await browser.post('/renew');
    expect(await isAccepted(browser, token)).toBe(true);
  });

  test('R59: tokens are not visible in the session, and clear() keeps them', async () => {
    const app = await start();
    const browser = app.browser();
    const token = await newToken(browser);
    await browser.post('/clear');
    expect(JSON.parse((await browser.get('/data')).text)).toEqual({ keys: [], size: 0, entries: [] });
    expect(await isAccepted(browser, token)).toBe(true);
  });

  test('R59: text that was never a token costs no write, and creates no visit', async () => {
    const app = await start();
    const before = (await stack.rows()).length;
    const browser = app.browser();
    for (const token of [undefined, null, 7, '', 'x'.repeat(22), ['a'], { $ne: 1 }, 'x'.repeat(10_000)]) {
      expect(await isAccepted(browser, token)).toBe(false);
    }
    expect(browser.jar.size).toBe(0);
    expect(await stack.rows()).toHaveLength(before);
    await newToken(browser);
    const seen = await stack.statements(() => isAccepted(browser, 'x'.repeat(22)));
    expect(seen).toHaveLength(1);
  });
});
