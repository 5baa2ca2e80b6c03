import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import type { INestApplication } from '@nestjs/common';
import { MemoryVisitStore } from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { PlatformName } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';

const load = createRequire(import.meta.url);

/** A small application with one library, and a client of it. */
function withLibrary(main: (app: INestApplication) => void, platform: PlatformName = 'express') {
  const suite = { app: undefined as unknown as InlineApp, browser: undefined as unknown as Browser };
  beforeAll(async () => {
    suite.app = await InlineApp.start(platform, { store: new MemoryVisitStore() }, {}, main);
  });
  afterAll(() => suite.app.close());
  beforeEach(() => (suite.browser = suite.app.browser()));
  const ask = <T>(handler: (request: any, tools: Tools) => T | Promise<T>) =>
    suite.app.ask(suite.browser, (tools) => handler(tools.request, tools));
  return { suite, ask };
}

describe('connect-flash', () => {
  const { ask } = withLibrary((app) => app.use(load('connect-flash')()));

  test('keeps messages only for the next request, alongside flash() of the session', async () => {
    await ask((request, { session }) => {
      request.flash('info', 'saved');
      request.flash('info', 'twice');
      session.flash('notice', 'ours');
    });
    expect(await ask((request) => request.flash('info') as unknown)).toEqual(['saved', 'twice']);
    expect(await ask((request) => request.flash() as unknown)).toEqual({});
    expect(await ask((_, { session }) => session.take('notice'))).toBe('ours');
  });
});

describe('@fastify/flash', () => {
  const { suite, ask } = withLibrary((app) => {
    (app.getHttpAdapter().getInstance() as { register(plugin: unknown): void }).register(load('@fastify/flash'));
  }, 'fastify');

  test('keeps messages only for the next request', async () => {
    await ask((request) => request.flash('info', 'saved') as unknown);
    const read = async () => (await suite.app.send(suite.browser, ({ reply }) => reply.send(reply.flash('info')))).text;
    expect(await read()).toBe('["saved"]');
    expect(await read()).toBe('[]');
  });
});

/** A token that one page gives, and that the next request needs. */
function expectTokens(
  suite: { app: InlineApp; browser: Browser },
  tokenOf: (tools: Tools) => string,
): () => Promise<void> {
  return async () => {
    const { app, browser } = suite;
    const token = await app.ask(browser, tokenOf);
    const path = app.path(() => 'passed');
    expect((await browser.post(path, { headers: { 'x-csrf-token': token } })).text).toBe('passed');
    expect((await browser.post(path, { headers: { 'x-csrf-token': 'wrong' } })).status).toBe(403);
    expect((await app.browser().post(path, { headers: { 'x-csrf-token': token } })).status).toBe(403);
  };
}

describe('csurf', () => {
  const { suite } = withLibrary((app) => app.use(load('csurf')()));
  test('creates tokens that are valid for the session', () =>
    expectTokens(suite, ({ request }) => request.csrfToken())());
});

describe('csrf-sync', () => {
  const { suite } = withLibrary((app) => app.use(load('csrf-sync').csrfSync().csrfSynchronisedProtection));
  test('creates tokens that are valid for the session', () =>
    expectTokens(suite, ({ request }) => request.csrfToken())());
});

describe('csrf-csrf', () => {
  const { doubleCsrfProtection, generateCsrfToken } = load('csrf-csrf').doubleCsrf({
    getSecret: () => 'secret',
    getSessionIdentifier: (request: { session: { id: string } }) => request.session.id,
    cookieName: 'csrf',
    cookieOptions: { secure: false },
  });
  const { suite } = withLibrary((app) => app.use(load('cookie-parser')(), doubleCsrfProtection));
  const tokenOf = ({ request }: Tools): string => generateCsrfToken(request, request.res);

  test('creates tokens that are valid for the session', () => expectTokens(suite, tokenOf)());

  test('a token from before a sign-in is invalid after it', async () => {
    const { app, browser } = suite;
    const token = await app.ask(browser, tokenOf);
    await app.ask(browser, ({ identity }) => identity.login('ann'));
    expect(
      (
        await browser.post(
          app.path(() => 'passed'),
          { headers: { 'x-csrf-token': token } },
        )
      ).status,
    ).toBe(403);
    await expectTokens(suite, tokenOf)();
  });
});

describe('connect-ensure-login', () => {
  const { suite, ask } = withLibrary((app) => {
    app.use((request: { isAuthenticated: () => boolean }, _response: unknown, next: () => void) => {
      request.isAuthenticated = () => false;
      next();
    });
    app.use('/secret', load('connect-ensure-login').ensureLoggedIn('/sign-in'));
  });

  test('stores the requested page before the redirect', async () => {
    const answer = await suite.browser.get('/secret?a=1');
    expect([answer.status, answer.headers.get('location')]).toEqual([302, '/sign-in']);
    expect(await ask((request) => request.session.returnTo as unknown)).toBe('/secret?a=1');
  });
});

describe('grant', () => {
  let provider: Server;
  let address: string;
  beforeAll(async () => {
    provider = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://provider.invalid');
      if (pathname === '/authorize') {
        response
          .writeHead(302, { location: `${searchParams.get('redirect_uri')}?code=c&state=${searchParams.get('state')}` })
          .end();
      } else {
        response.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"token"}');
      }
    });
    await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
  });
  afterAll(() => provider.close());

  const { suite, ask } = withLibrary((app) => {
    const config = {
      defaults: { origin: 'http://app.invalid', transport: 'session', state: true },
      provider: {
        authorize_url: `${address}/authorize`,
        access_url: `${address}/token`,
        oauth: 2,
        key: 'k',
        secret: 's',
        callback: '/done',
      },
    };
    app.use(load('grant').express()(config));
  });

  test('waits until its state is stored, and finds it when the browser returns', async () => {
    const { browser } = suite;
    let answer = await browser.get('/connect/provider');
    expect(answer.status).toBe(302);
    const back = await fetch(answer.headers.get('location')!, { redirect: 'manual' });
    const { pathname, search } = new URL(back.headers.get('location')!);
    answer = await browser.get(pathname + search);
    expect(answer.headers.get('location')).toBe('/done');
    expect(await ask((request) => request.session.grant.response.access_token as unknown)).toBe('token');
  });
});
