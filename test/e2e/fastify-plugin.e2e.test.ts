/* oxlint-disable oxc/no-async-endpoint-handlers -- Fastify, other than Express, awaits its handlers */
import { createRequire } from 'node:module';
import { Inject, UseGuards, type CanActivate } from '@nestjs/common';
import fastify, { type FastifyInstance } from 'fastify';
import {
  CsrfGuard,
  ExclusiveSession,
  IdentityRequiredError,
  IdentityService,
  PassiveVisit,
  RequireIdentity,
  SkipCsrf,
  SkipVisit,
  UseVisit,
  VisitPlugin,
  type EndedVisit,
  type VisitPluginHooks,
} from 'nest-visit';
import { visits, type FastifyVisitOptions } from 'nest-visit/fastify';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { of } from 'rxjs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { PATIENCE } from '../support/patience.js';
import { WatchedStore } from '../support/watched-store.js';

const load = createRequire(import.meta.url);
const { Authenticator, Strategy } = load('@fastify/passport');

/** Lets in whoever says a name. */
class ByName extends (Strategy as new (name: string) => { success(user: object): void; fail(): void }) {
  authenticate({ query }: { query: { user?: string } }) {
    if (query.user) this.success({ id: query.user });
    else this.fail();
  }
}

const clock = new ManualClock();
const watched = new WatchedStore();
const USUAL = {
  clock,
  storeTimeout: PATIENCE,
  maxClockSkew: false,
  expunge: { schedule: false },
  wipe: { schedule: false },
} as const;

const running: FastifyInstance[] = [];
const listen = async (app: FastifyInstance): Promise<() => Browser> => {
  running.push(app);
  const address = await app.listen({ port: 0, host: '127.0.0.1' });
  return () => new Browser(address);
};
const start = async (
  options: FastifyVisitOptions,
  routes: (app: FastifyInstance) => void | Promise<void>,
): Promise<() => Browser> => {
  const app = fastify();
  await app.register(visits, { ...USUAL, logger: ['error'], ...options });
  await routes(app);
  return listen(app);
};

const ended: EndedVisit[] = [];

@VisitPlugin()
class Ends implements VisitPluginHooks {
  onVisitEnded(visit: EndedVisit) {
    ended.push(visit);
  }
}

/** What the handler in front of the current request waits for. */
let gate: Promise<void> = Promise.resolve();

function serve(app: FastifyInstance): void {
  const { visits: service, identity } = app;
  const data = (session: { [name: string]: unknown }) => session['count'] ?? 0;
  app.get('/count', (request) => ({ count: data(request.session), visit: request.visit.id, user: identity.userId }));
  app.get('/add', async (request) => String((request.session['count'] = Number(data(request.session)) + 1)));
  app.get('/add-callback', (request, reply) => {
    request.session['count'] = Number(data(request.session)) + 1;
    setImmediate(() => void reply.redirect('/count'));
  });
  app.get('/add-raw', (request, reply) => {
    request.session['count'] = Number(data(request.session)) + 1;
    reply.hijack();
    reply.raw.end('raw');
  });
  app.post<{ Body: { user: string } }>('/login', async ({ body }) => identity.login(body.user));
  app.get('/logout', async () => identity.logout());
  const seen: (string | null)[] = [];
  const preValidation = async () => void seen.push(identity.userId);
  app.post('/hooked', { preValidation, preHandler: preValidation }, async () => seen.splice(0));
  app.get('/mine', async () => (await service.listForUser(identity.userId!)).length);
  app.get('/fails', async (request) => {
    request.session['count'] = 99;
    throw new Error('broken');
  });
  app.get('/fails-at-once', (request) => {
    request.session['count'] = 99;
    throw new Error('broken');
  });
  app.get('/sends-failure', (request, reply) => {
    request.session['count'] = 99;
    void reply.send(new Error('broken'));
  });
  app.get('/denies', async (request) => {
    request.session['count'] = 5;
    throw Object.assign(new Error('no'), { statusCode: 422 });
  });
  app.get('/bad', async (request) => {
    request.session['bad'] = () => 1;
    return 'never';
  });
  app.get('/passive', { config: { visit: [PassiveVisit()] } }, async () => String(identity.userId));
  app.get('/long', { config: { visit: [UseVisit({ timeout: '2h' })] } }, async () => String(identity.userId));
  app.get('/skipped', { config: { visit: [SkipVisit()] } }, async (request) => request.visit.id);
  app.get('/guarded', { config: { visit: [RequireIdentity()] } }, async () => 'let in');
  app.get('/exclusive', { config: { visit: [ExclusiveSession()] } }, async (request) => {
    const count = Number(data(request.session));
    await gate;
    return String((request.session['count'] = count + 1));
  });
}

afterEach(() => watched.pass());
afterAll(() => Promise.all(running.map((app) => app.close())));

describe('A plain Fastify application', () => {
  let browse: () => Browser;
  let browser: Browser;
  beforeAll(async () => {
    browse = await start({ store: watched.store, plugins: [Ends], timeout: '20m' }, serve);
  });
  beforeEach(() => {
    browser = browse();
    clock.advance(60_000);
    watched.calls.length = 0;
    ended.length = 0;
  });
  const login = (user: string, at = browser) => at.post('/login', { json: { user } });
  const count = async (at = browser): Promise<unknown> => JSON.parse((await at.get('/count')).text) as unknown;

  test('has visits: nothing is stored before a change, and nothing is sent before the save', async () => {
    expect(await count()).toMatchObject({ count: 0, user: null });
    expect([browser.jar.size, watched.calls]).toEqual([0, []]);
    watched.around = async (_call, go) => (await new Promise((resolve) => setImmediate(resolve)), go());
    for (const [index, path] of ['/add', '/add-callback', '/add-raw', '/add'].entries()) {
      await browser.get(path);
      const visit = browser.jar.get('visit')!.slice(0, 32);
      expect(await count(), path).toEqual({ count: index + 1, visit, user: null });
    }
    const { cookies, headers } = await browse().get('/add');
    expect(cookies).toEqual([
      expect.stringMatching(/^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/),
    ]);
    expect(headers.get('cache-control')).toBe('no-store');
  });

  test('signs in with a new key, which invalidates the old one, and signs out', async () => {
    await browser.get('/add');
    const before = browser.clone();
    expect((await login('ann')).status).toBe(200);
    expect(browser.jar.get('visit')).not.toBe(before.jar.get('visit'));
    expect(await count()).toMatchObject({ count: 1, user: 'ann' });
    expect((await browser.get('/mine')).text).toBe('1');
    clock.advance(60_000);
    expect(await count(before)).toMatchObject({ count: 0, user: null });
    await browser.get('/logout');
    expect(browser.jar.size).toBe(0);
    expect(ended).toMatchObject([{ reason: 'logout' }]);
  });

  test('each request acts for its own visit, even with a body', async () => {
    watched.around = async (_call, go) => (
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 3)),
      go()
    );
    const users = ['ann', 'bob', 'eve', 'joe'];
    const browsers = users.map(() => browse());
    await Promise.all(browsers.map((one, index) => login(users[index]!, one)));
    const asked = browsers.flatMap((one) => [count(one), count(one), count(one)]);
    expect((await Promise.all(asked)).map((seen) => (seen as { user: string }).user)).toEqual(
      users.flatMap((user) => [user, user, user]),
    );
  });

  test('hooks know their request even after its body has arrived', async () => {
    await login('ann');
    const json = { text: 'a'.repeat(200_000) };
    expect(JSON.parse((await browser.post('/hooked', { json })).text)).toEqual(['ann', 'ann']);
  });

  test('a request extends the visit by the timeout of its route, unless the route is passive', async () => {
    for (const [path, isAlive] of [
      ['/count', true],
      ['/passive', false],
      ['/long', true],
    ] as const) {
      const one = browse();
      await login('ann', one);
      clock.advance('/long' === path ? 0 : 15 * 60_000);
      await one.get(path);
      clock.advance('/long' === path ? 100 * 60_000 : 15 * 60_000);
      expect(((await count(one)) as { user: string | null }).user, path).toBe(isAlive ? 'ann' : null);
    }
  });

  test('a request without a route does not use the visit', async () => {
    await login('ann');
    clock.advance(15 * 60_000);
    expect((await browser.get('/nowhere')).status).toBe(404);
    clock.advance(10 * 60_000);
    expect(await count()).toMatchObject({ user: null });
  });

  test('discards the changes of a handler that fails, and keeps those of one that answers with a 4xx', async () => {
    await browser.get('/add');
    for (const path of ['/fails', '/fails-at-once', '/sends-failure']) {
      expect((await browser.get(path)).status, path).toBe(500);
      expect(await count(), path).toMatchObject({ count: 1 });
    }
    expect((await browser.get('/denies')).status).toBe(422);
    expect(await count()).toMatchObject({ count: 5 });
  });

  test('law 7: a failed save is handled as an error of the application', async () => {
    await browser.get('/add');
    expect(JSON.parse((await browser.get('/bad')).text)).toMatchObject({ statusCode: 500, code: 'SESSION_VALUE' });
    watched.away('save');
    for (const path of ['/add', '/add-callback']) {
      const { status, text, headers } = await browser.get(path);
      expect([status, JSON.parse(text), headers.get('location')]).toEqual([
        503,
        expect.objectContaining({ code: 'VISIT_STORE_UNAVAILABLE' }),
        null,
      ]);
    }
    expect((await browser.get('/add-raw')).status).toBe(503);
    watched.away('find');
    expect((await browser.get('/count')).status).toBe(503);
    expect((await browser.get('/guarded')).status).toBe(503);
    watched.pass();
    expect(await count()).toMatchObject({ count: 1 });
  });

  test('routes have the decorators of handlers', async () => {
    expect(JSON.parse((await browser.get('/guarded')).text)).toMatchObject({
      statusCode: 401,
      code: 'VISIT_IDENTITY_REQUIRED',
    });
    await login('ann');
    expect((await browser.get('/guarded')).text).toBe('let in');
    expect(JSON.parse((await browser.get('/skipped')).text)).toMatchObject({
      statusCode: 500,
      code: 'VISIT_NOT_RESOLVED',
    });
  });

  test('requests to exclusive routes go one after the other', async () => {
    await browser.get('/add');
    let open!: () => void;
    gate = new Promise((resolve) => (open = resolve));
    const answers = [1, 2, 3, 4].map(() => browser.get('/exclusive'));
    await expect.poll(() => watched.calls.includes('lock'), { timeout: PATIENCE }).toBe(true);
    open();
    expect((await Promise.all(answers)).map(({ text }) => text).toSorted()).toEqual(['2', '3', '4', '5']);
    expect(await count()).toMatchObject({ count: 5 });
    expect(watched.calls.filter((call) => call === 'unlock')).toHaveLength(4);
  });
});

test('decorators are for one route, though routes share a handler', async () => {
  const browser = (
    await start({ store: watched.store }, (app) => {
      const handler = async (): Promise<string> => 'let in';
      app.get('/open', handler);
      app.get('/guarded', { config: { visit: [RequireIdentity()] } }, handler);
    })
  )();
  expect([(await browser.get('/open')).status, (await browser.get('/guarded')).status]).toEqual([200, 401]);
});

test('an error handler of the application receives what a handler throws, and the changes are discarded', async () => {
  const browser = (
    await start({ store: watched.store }, (app) => {
      app.setErrorHandler((_error, _request, reply) => reply.code(200).send('all is well'));
      app.get('/count', async (request) => String(request.session['count'] ?? 0));
      app.get('/add', async (request) => String((request.session['count'] = 1)));
      app.get('/fails', async (request) => {
        request.session['count'] = 99;
        throw new Error('broken');
      });
    })
  )();
  await browser.get('/add');
  expect((await browser.get('/fails')).text).toBe('all is well');
  expect((await browser.get('/count')).text).toBe('1');
});

class Throws implements CanActivate {
  canActivate(): never {
    throw new IdentityRequiredError();
  }
}

class SaysNo implements CanActivate {
  canActivate() {
    return of(false);
  }
}

class Asks implements CanActivate {
  constructor(@Inject(IdentityService) private readonly identity: IdentityService) {}

  async canActivate() {
    return this.identity.userId !== null;
  }
}

describe('Guards for all routes', () => {
  test('CsrfGuard refuses cross-site requests, and routes can be exempted', async () => {
    const browser = (
      await start({ store: watched.store, guards: [CsrfGuard] }, (app) => {
        app.post('/form', async () => 'done');
        app.get('/form', () => app.formTokens.hiddenField());
        app.post('/hook', { config: { visit: [SkipCsrf()] } }, async () => 'done');
        app.post('/json', async () => 'done');
      })
    )();
    const foreign = { headers: { origin: 'https://evil.example' } };
    expect(JSON.parse((await browser.post('/form', foreign)).text)).toMatchObject({
      statusCode: 403,
      code: 'VISIT_CROSS_SITE',
    });
    expect((await browser.post('/form', { headers: { origin: browser.address } })).text).toBe('done');
    expect((await browser.post('/hook', foreign)).text).toBe('done');
    const [, token] = /value="([\w-]+)"/.exec((await browser.get('/form')).text)!;
    const once = { json: { form_token: token } };
    expect([(await browser.post('/json', once)).status, (await browser.post('/json', once)).status]).toEqual([
      200, 403,
    ]);
  });

  test('guards of the application run before validation and handlers, and deny requests', async () => {
    for (const [guard, status] of [
      [Throws, 401],
      [SaysNo, 403],
      [Asks, 403],
    ] as const) {
      const browser = (
        await start({ store: watched.store, guards: [guard] }, (app) => {
          app.get('/', { schema: { querystring: { type: 'object', required: ['page'] } } }, async () => 'never');
        })
      )();
      expect((await browser.get('/')).status, guard.name).toBe(status);
    }
  });

  test('a guard of a route is created with its dependencies', async () => {
    const browser = (
      await start({ store: watched.store }, (app) => {
        app.get('/', { config: { visit: [UseGuards(Asks)] } }, async () => 'let in');
        app.get('/login', async () => app.identity.login('ann'));
      })
    )();
    expect((await browser.get('/')).status).toBe(403);
    await browser.get('/login');
    expect((await browser.get('/')).text).toBe('let in');
  });
});

test('visits can be stored in sealed cookies, too', async () => {
  const browser = (
    await start({ store: new SealedCookieVisitStore({ secrets: ['a'.repeat(64)] }) }, (app) => {
      app.get('/add', async (request) =>
        String((request.session['count'] = Number(request.session['count'] ?? 0) + 1)),
      );
    })
  )();
  expect([(await browser.get('/add')).text, (await browser.get('/add')).text]).toEqual(['1', '2']);
});

test('a key in the body is found after parsing', async () => {
  let key!: string;
  const browser = (
    await start({ store: watched.store, source: 'body' }, async (app) => {
      ({ key } = await app.visits.create({ userId: 'ann' }));
      app.post('/me', async () => String(app.identity.userId));
    })
  )();
  expect((await browser.post('/me', { json: { visit_key: key } })).text).toBe('ann');
  expect((await browser.post('/me', { json: { visit_key: `${key}x` } })).text).toBe('null');
});

test('closing the application writes pending updates and closes the store', async () => {
  const store = new WatchedStore();
  const app = fastify();
  await app.register(visits, { ...USUAL, store: store.store, logger: ['error'] });
  app.get('/', async (request) => String((request.session['count'] = 1)));
  const browser = (await listen(app))();
  await browser.get('/');
  clock.advance(120_000);
  await browser.get('/');
  await app.close();
  expect(store.calls.slice(-2)).toEqual(['touch', 'close']);
});

test('unsupported options are refused at startup, by name', async () => {
  const refusalOf = (options: object, routes: (app: FastifyInstance) => void = () => undefined): Promise<unknown> => {
    const app = fastify();
    const starting = (async () => {
      await app.register(visits, { ...USUAL, store: watched.store, logger: false, ...options } as never);
      routes(app);
      await app.ready();
    })();
    return starting.then(
      () => undefined,
      (error: { code?: string; message: string }) => `${error.code} ${error.message}`,
    );
  };
  expect(await refusalOf({ timout: '5m' })).toMatch(/^VISIT_OPTION .*timout/);
  const sealed = new SealedCookieVisitStore({ secrets: ['a'.repeat(64)] });
  const exclusive = (app: FastifyInstance) =>
    void app.get('/x', { config: { visit: [ExclusiveSession()] } }, async () => 1);
  expect(await refusalOf({ store: sealed }, exclusive)).toMatch(
    /^VISIT_OPTION .*@ExclusiveSession\(\) of GET \/x needs /,
  );
  expect(await refusalOf({})).toBeUndefined();
});

describe('@fastify/passport', () => {
  let browse: () => Browser;
  beforeAll(async () => {
    browse = await start({ store: watched.store }, async (app) => {
      const passport = new Authenticator();
      passport.registerUserSerializer(async ({ id }: { id: string }) => id);
      passport.registerUserDeserializer(async (id: string) => ({ id }));
      passport.use('test', new ByName('test'));
      await app.register(passport.initialize());
      await app.register(passport.secureSession());
      app.get('/login', { preValidation: passport.authenticate('test', { authInfo: false }) }, async () => 'in');
      app.get('/me', async (request) => ({
        user: (request as unknown as { user?: object }).user ?? null,
        userId: app.identity.userId,
      }));
      app.get('/logout', async (request) => (request as unknown as { logout(): Promise<void> }).logout());
    });
  });

  test('has the same users as the visits', async () => {
    const browser = browse();
    expect((await browser.get('/login?user=ann')).text).toBe('in');
    expect(JSON.parse((await browser.get('/me')).text)).toEqual({ user: { id: 'ann' }, userId: 'ann' });
    await browser.get('/logout');
    expect(JSON.parse((await browser.get('/me')).text)).toEqual({ user: null, userId: null });
  });
});
