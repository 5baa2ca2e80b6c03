import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { Controller, Get, Header, Post, UseGuards } from '@nestjs/common';
import { CsrfGuard, CurrentUserId, FormTokenService, RequireFormToken, RequireIdentity, Session } from 'nest-visit';
import { signIn } from 'nest-visit/testing';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import { openDatabase, type OpenDatabase } from '../support/databases.js';
import { describeWith } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { isForToday } from '../support/today.js';
import { launchBrowser } from './visitor.js';

@Controller()
class ShopController {
  constructor(
    private readonly session: Session,
    private readonly formTokens: FormTokenService,
  ) {}

  @Get()
  @Header('Content-Type', 'text/html')
  async page() {
    const bought = (this.session['bought'] as number | undefined) ?? 0;
    const form = (action: string, more = '') =>
      `<form method="post" action="${action}">${more}<button>${action}</button></form>`;
    return (
      '<!doctype ' +
      `html><output>${bought}</output>${form('/buy')}${form('/once', await this.formTokens.hiddenField())}`
    );
  }

  @Get('account')
  @RequireIdentity()
  account(@CurrentUserId() userId: string) {
    return userId;
  }

  @Post('buy')
  @UseGuards(CsrfGuard)
  buy() {
    return this.session.update('bought', (bought: number | undefined) => (bought ?? 0) + 1);
  }

  @Post('once')
  @UseGuards(CsrfGuard)
  @RequireFormToken()
  async once() {
    return this.buy();
  }

  @Post('unguarded')
  unguarded() {
    return this.buy();
  }
}

/** A site of somebody else, whose page does what its address says. */
async function startAttacker(): Promise<{ server: Server; port: number }> {
  const server = createServer((request, response) => {
    const { searchParams } = new URL(request.url!, 'http://x');
    const [target, enctype] = [searchParams.get('target') ?? '', searchParams.get('enctype') ?? ''];
    response.setHeader('Content-Type', 'text/html');
    response.end(
      `<!doctype html><form method="post" action="${target}" enctype="${enctype}"><input name="x" ` +
        'value="1"><button>Win a prize</button></form>',
    );
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

describeWith('chromium', 'Requests across sites in a browser', () => {
  let browser: Browser;
  let attacker: { server: Server; port: number };
  let database: OpenDatabase;
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    browser = await launchBrowser();
    attacker = await startAttacker();
    database = await openDatabase('sqlite');
  });
  afterEach(() => Promise.all(contexts.splice(0).map((context) => context.close())));
  afterAll(async () => {
    await browser?.close();
    attacker?.server.close();
    await database?.drop();
  });

  const arrive = async (app: RunningApp): Promise<Page> => {
    const context = await browser.newContext();
    contexts.push(context);
    const page = await context.newPage();
    await page.goto(app.address);
    return page;
  };
  const bought = async (app: RunningApp, page: Page): Promise<string> => {
    await page.goto(app.address);
    return page.locator('output').innerText();
  };
  /** The user presses the button of a page of `host`. The status of the answer. */
  const fallFor = async (page: Page, host: string, target: string, enctype = ''): Promise<number> => {
    await page.goto(`http://${host}:${attacker.port}/?${new URLSearchParams({ target, enctype }).toString()}`);
    const answer = page.waitForResponse(target);
    await page.getByRole('button').click();
    return (await answer).status();
  };

  for (const platform of platforms) {
    describe(`under ${platform}`, () => {
      const running: RunningApp[] = [];
      let turn = platforms.indexOf(platform);
      const isInTurn = (): boolean => isForToday(turn++, platforms.length);
      const start = async (csrf = {}): Promise<RunningApp> => {
        const dataSource = await openMigrated(database.options);
        const app = await startApp(platform, { dataSource, csrf }, { controllers: [ShopController] });
        running.push(app);
        return app;
      };
      afterAll(() => Promise.all(running.map((app) => app.close())));

      if (isInTurn())
        test('R60: a page of the site is allowed; one of another port sends the cookie, and is refused', async () => {
          const app = await start();
          const page = await arrive(app);
          await page.getByRole('button', { name: '/buy' }).click();
          expect(await bought(app, page)).toBe('1');
          // The attack is real: where no guard is, it succeeds.
          expect(await fallFor(page, '127.0.0.1', `${app.address}/unguarded`)).toBe(201);
          expect(await bought(app, page)).toBe('2');
          for (const enctype of ['', 'text/plain']) {
            expect(await fallFor(page, '127.0.0.1', `${app.address}/buy`, enctype), enctype).toBe(403);
          }
          expect(await bought(app, page)).toBe('2');
        });

      if (isInTurn())
        test('a browser signed in by nest-visit/testing acts for its user, without a cookie for scripts', async () => {
          const app = await start();
          const page = await arrive(app);
          expect((await page.goto(`${app.address}/account`))!.status()).toBe(401);
          const ada = await signIn(app.app, 'ada');
          await page.context().addCookies([ada.cookieFor(app.address)]);
          await page.goto(`${app.address}/account`);
          expect(await page.locator('body').innerText()).toBe('ada');
          expect(await page.evaluate('document.cookie')).toBe('');
          await page.goto(app.address);
          await page.getByRole('button', { name: '/buy' }).click();
          expect(await bought(app, page)).toBe('1');
          expect((await page.context().cookies()).map(({ name, value }) => [name, value])).toEqual([
            ['visit', ada.key],
          ]);
        });

      if (isInTurn())
        test('R60: a page of another site is refused, with a form and with a script', async () => {
          const app = await start();
          const page = await arrive(app);
          expect(await fallFor(page, 'localhost', `${app.address}/buy`)).toBe(403);
          const answer = page.waitForResponse(`${app.address}/buy`);
          await page.goto(`http://localhost:${attacker.port}/`);
          await page.evaluate(
            `void fetch('${app.address}/buy', { method: 'POST', mode: 'no-cors', credentials: 'include', body: 'x' })`,
          );
          expect((await answer).status()).toBe(403);
          expect(await bought(app, page)).toBe('0');
        });

      if (isInTurn())
        test('R60: a trusted origin is allowed, and similar ones are not', async () => {
          const app = await start({ trustedOrigins: [`http://127.0.0.1:${attacker.port}`] });
          const page = await arrive(app);
          expect(await fallFor(page, '127.0.0.1', `${app.address}/buy`)).toBe(201);
          expect(await fallFor(page, 'localhost', `${app.address}/buy`)).toBe(403);
          expect(await bought(app, page)).toBe('1');
        });

      if (isInTurn())
        test('R59, B13: a form that is sent again after going back is processed once', async () => {
          const app = await start();
          const page = await arrive(app);
          const send = async (): Promise<number> => {
            const answer = page.waitForResponse(`${app.address}/once`);
            await page.getByRole('button', { name: '/once' }).click();
            return (await answer).status();
          };
          const token = await page.locator('input[name=form_token]').inputValue();
          expect(await send()).toBe(201);
          await page.goto(app.address);
          await page
            .locator('input[name=form_token]')
            .evaluate((field, old) => field.setAttribute('value', old), token);
          expect(await send()).toBe(403);
          expect(await bought(app, page)).toBe('1');
        });
    });
  }
});
