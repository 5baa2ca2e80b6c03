import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Body, Controller, Get, Post, Req, type INestApplication } from '@nestjs/common';
import {
  CurrentUserId,
  CurrentVisit,
  IdentityService,
  RequireIdentity,
  Session,
  SkipVisit,
  VISIT_EVENTS,
  VisitPlugin,
  VisitService,
} from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  ALL_THE_WAY,
  AROUND,
  atEveryPlace,
  GUARDS,
  MIDDLEWARE,
  Places,
  SeenInPipe,
  Watched,
  WatchedHandler,
  type Place,
  type SeenRequest,
  type Sight,
  type Watcher,
} from '../support/places.js';
import { describeWays, seenBy, type Recipe, type Way, type WayApp } from '../support/ways.js';

const MINUTE = 60_000;
/** A key of the right form that no store knows. */
const FORGED = `${'0123456789abcdef'.repeat(2)}.${'A'.repeat(43)}`;

/** All that an application can hear of. */
const heard: string[] = [];
const hooks = Object.fromEntries(
  [...Object.keys(VISIT_EVENTS), 'onRecordRequest'].map((hook) => [hook, () => void heard.push(hook)]),
);

@VisitPlugin()
class Listener {
  constructor() {
    Object.assign(this, hooks);
  }
}
Object.assign(Listener.prototype, hooks);

@Watched()
@Controller()
class EntryController {
  constructor(
    private readonly places: Places,
    private readonly identity: IdentityService,
    private readonly session: Session,
    private readonly visits: VisitService,
  ) {}

  @Post('login')
  async login(@Body() { user }: { user: string }) {
    await this.identity.login(user);
    this.session['name'] = user;
  }

  @WatchedHandler()
  @Get('seen')
  async seen(
    @SeenInPipe() request: SeenRequest,
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
    @CurrentUserId() userId: string | null,
  ) {
    await this.places.handle(request, { session, visit, userId });
    return { name: session['name'] as unknown, places: session['places'] as unknown, id: visit.id };
  }

  @WatchedHandler()
  @Post('seen')
  async posted(
    @SeenInPipe() request: SeenRequest,
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
    @Body() body: object,
  ) {
    await this.places.handle(request);
    return { name: session['name'] as unknown, id: visit.id, body };
  }

  @Get('idle')
  idle() {
    return 'idle';
  }

  @Get('reads')
  reads() {
    return String(this.session['name']);
  }

  @RequireIdentity()
  @Get('secret')
  secret() {
    return this.identity.userId;
  }

  @SkipVisit()
  @Get('health')
  health() {
    return 'well';
  }

  @Get('resolved')
  async resolved(@Req() request: SeenRequest) {
    const visits = await Promise.all([1, 2, 3].map(() => this.visits.resolve(request as never)));
    return { ids: [...new Set(visits.map(({ id }) => id))], current: this.visits.current().id };
  }
}

/** The framework's own routes, which Nest knows nothing of. */
function addRoute(app: INestApplication, way: Way, path: string, answer: (request: SeenRequest) => unknown): void {
  const instance = app.getHttpAdapter().getInstance() as {
    get(path: string, handler: (...args: never[]) => unknown): void;
  };
  if (way.platform === 'fastify') instance.get(path, (request: SeenRequest) => Promise.resolve(answer(request)));
  else
    instance.get(path, (request: SeenRequest, response: { json(value: unknown): void }) =>
      response.json(answer(request)),
    );
}

interface RawAsk {
  readonly path: string;
  readonly headers: Record<string, string | number>;
}

/** A POST whose body can be kept back. */
function begin({ address }: WayApp, { path, headers }: RawAsk) {
  const request = http.request(`${address}${path}`, { method: 'POST', headers, agent: false });
  request.flushHeaders();
  const answer = once(request, 'response').then(async ([response]) => {
    let text = '';
    for await (const part of response as http.IncomingMessage) text += String(part);
    return { status: (response as http.IncomingMessage).statusCode!, text };
  });
  return { send: (body: string) => void request.end(body), answer };
}

describeWays('A request', (way) => {
  const signIn = async (app: WayApp, user = 'ann') => {
    const browser = app.browser();
    expect((await browser.post('/login', { json: { user } })).status).toBe(201);
    return browser;
  };
  const keyOf = (browser: { jar: Map<string, string> }): string => browser.jar.get('visit')!;

  describe('A visit that is found at the entry', () => {
    let app: WayApp;
    let watcher: Watcher;
    const sights: (Record<string, unknown> & { place: Place })[] = [];

    beforeAll(async () => {
      watcher = {};
      const proxy: Watcher = {
        see: (sight) => watcher.see?.(sight),
        fails: (request) => watcher.fails?.(request),
      };
      app = await way.start(atEveryPlace(way.platform, proxy, { controllers: [EntryController] }));
    });
    beforeEach(() => {
      sights.length = 0;
      watcher = {};
    });

    const look = ({ place, request, services, given }: Sight): void => {
      const { session, identity, visits } = services;
      sights.push({
        place,
        byRequest: request.session['name'],
        injected: session['name'],
        user: identity.userId,
        since: identity.authenticatedAt?.getTime(),
        id: visits.current().id,
        ...(given && { given: given.session['name'], visit: given.visit.id, userId: given.userId }),
      });
    };

    test('is the same in middleware, guard, interceptor, pipe, handler and filter, by one look-up', async () => {
      const browser = await signIn(app);
      watcher = { see: look, fails: ({ headers }) => (headers['x-fail'] ? new Error('on purpose') : undefined) };
      const id = keyOf(browser).slice(0, 32);
      const since = app.clock.now();
      const common = { byRequest: 'ann', injected: 'ann', user: 'ann', since, id };
      expect(await app.store.callsOf(() => browser.get('/seen'))).toEqual(['find']);
      expect(sights.map(({ place }) => place).sort()).toEqual([...ALL_THE_WAY, 'interceptor on the way back'].sort());
      for (const { place, given, visit, userId, ...seen } of sights) {
        expect(seen, place).toEqual(common);
        expect([given, visit, userId], place).toEqual(
          place === 'handler' ? ['ann', id, 'ann'] : [undefined, undefined, undefined],
        );
      }
      sights.length = 0;
      expect(await app.store.callsOf(() => browser.get('/seen', { headers: { 'x-fail': '1' } }))).toEqual(['find']);
      expect(sights.at(-1)).toEqual({ place: 'filter', ...common });
    });

    test('has the same session everywhere, at the request and by injection', async () => {
      const browser = await signIn(app);
      const objects = { shown: new Set<unknown>(), given: new Set<unknown>() };
      watcher = {
        see: ({ request, given }) => {
          objects.shown.add(request.session);
          if (given) objects.given.add(given.session);
        },
      };
      await browser.get('/seen');
      expect([objects.shown.size, objects.given.size]).toEqual([1, 1]);
    });

    test.each([...ALL_THE_WAY])('changes made at %s are saved, and visible to all later code', async (place) => {
      const browser = await signIn(app);
      watcher = {
        see: (sight) => {
          if (sight.place === place) sight.request.session['places'] = place;
        },
      };
      const answer = await browser.get('/seen');
      expect(answer.status, answer.text).toBe(200);
      if (place !== 'interceptor on the way back') expect(JSON.parse(answer.text)).toMatchObject({ places: place });
      watcher = {};
      expect(JSON.parse((await browser.get('/seen')).text)).toMatchObject({ name: 'ann', places: place });
    });

    test.each([...MIDDLEWARE])('can begin at %s, even for an unknown path', async (place) => {
      watcher = {
        see: (sight) => {
          if (sight.place === place) sight.request.session['places'] = place;
        },
      };
      const browser = app.browser();
      expect((await browser.get('/unknown')).status).toBe(404);
      watcher = {};
      expect(JSON.parse((await browser.get('/seen')).text)).toMatchObject({ places: place });
    });

    test('without a key: the session is empty everywhere, there is no user, and no look-up', async () => {
      watcher = { see: look };
      expect(await app.store.callsOf(() => app.browser().get('/seen'))).toEqual([]);
      expect(sights.length).toBeGreaterThan(ALL_THE_WAY.length - 1);
      for (const { place, byRequest, injected, user } of sights) {
        expect({ place, byRequest, injected, user }).toEqual({
          place,
          byRequest: undefined,
          injected: undefined,
          user: null,
        });
      }
    });

    test.each([...GUARDS])(
      'the guard at %s admits a user and denies a stranger, without awaiting anything',
      async (place) => {
        watcher = {
          see: (sight) => {
            if (sight.place === place && sight.services.identity.userId === null)
              throw Object.assign(new Error('no'), { code: 'OUT' });
          },
        };
        expect((await (await signInFirst()).get('/seen')).status).toBe(200);
        expect((await app.browser().get('/seen')).status).toBe(500);

        async function signInFirst() {
          const before = watcher;
          watcher = {};
          const browser = await signIn(app);
          watcher = before;
          return browser;
        }
      },
    );

    test('visits.resolve() is harmless anywhere, any number of times, with any argument', async () => {
      const browser = await signIn(app);
      const ids = new Set<string>();
      watcher = {
        see: async ({ request, execution, services: { visits } }) => {
          const sources = [request, ...(execution ? [execution] : [])] as never[];
          for (const visit of await Promise.all([...sources, ...sources].map((source) => visits.resolve(source))))
            ids.add(visit.id);
          ids.add(visits.current().id);
        },
      };
      expect(await app.store.callsOf(() => browser.get('/seen'))).toEqual(['find']);
      expect([...ids]).toEqual([keyOf(browser).slice(0, 32)]);
      const { ids: inHandler, current } = JSON.parse((await browser.get('/resolved')).text) as {
        ids: string[];
        current: string;
      };
      expect([...inHandler, current]).toEqual([current, current]);
    });
  });

  if (way.platform === 'fastify') {
    test('plugins of main.ts find the decorator at registration, and the session in their hooks', async () => {
      interface Instance {
        hasRequestDecorator(name: string): boolean;
        addHook(name: string, hook: (request: SeenRequest) => Promise<void>): void;
        register(plugin: (instance: Instance) => Promise<void>): void;
      }
      const seen: unknown[] = [];
      const recipe: Recipe = {
        controllers: [EntryController],
        main: async (nest) => {
          const instance = nest.getHttpAdapter().getInstance() as Instance;
          const plugin = async (inner: Instance): Promise<void> => {
            seen.push(inner.hasRequestDecorator('session'));
            for (const hook of ['onRequest', 'preValidation', 'preHandler']) {
              inner.addHook(hook, async (request) => void seen.push([hook, request.session['name']]));
            }
          };
          // Plugins of other people say so, so that their hooks hold for the whole server.
          instance.register(Object.assign(plugin, { [Symbol.for('skip-override')]: true }));
        },
      };
      const app = await way.start(atEveryPlace(way.platform, {}, recipe));
      const browser = await signIn(app);
      seen.splice(1);
      await browser.get('/reads');
      expect(seen).toEqual([true, ['onRequest', 'ann'], ['preValidation', 'ann'], ['preHandler', 'ann']]);
    });
  }

  test('middleware that main.ts adds with app.use() reads and writes request.session', async () => {
    const seen: unknown[] = [];
    const recipe: Recipe = {
      controllers: [EntryController],
      main: (nest) => {
        nest.use((request: SeenRequest, _response: unknown, next: () => void) => {
          seen.push(request.session['views']);
          request.session['views'] = ((request.session['views'] as number | undefined) ?? 0) + 1;
          next();
        });
      },
    };
    const app = await way.start(atEveryPlace(way.platform, {}, recipe));
    const browser = app.browser();
    for (let i = 0; i < 3; i++) expect((await browser.get('/idle')).status).toBe(200);
    expect(seen).toEqual([undefined, 1, 2]);
  });

  describe('A visit that is only found', () => {
    const folder = mkdtempSync(join(tmpdir(), 'visit-static-'));
    let app: WayApp;

    beforeAll(async () => {
      writeFileSync(join(folder, 'page.txt'), 'a page');
      const watcher: Watcher = {
        see: ({ place, request }) => {
          if (place === 'guard of the class' && request.headers['x-deny']) throw Object.assign(new Error('no'));
        },
      };
      app = await way.start(
        atEveryPlace(way.platform, watcher, {
          controllers: [EntryController],
          providers: [Listener],
          // All that makes a request leave a trace.
          options: {
            creation: 'immediate',
            renewAfter: '1m',
            timeout: '30m',
            permanentTimeout: '1h',
            cookie: { permanent: true },
            identity: { requestUser: true },
          },
          main: async (nest) => {
            addRoute(nest, way, '/own-route', () => ({}));
            if (way.platform === 'express') {
              const { default: express } = await import('express');
              nest.use('/static', (express as unknown as { static(path: string): never }).static(folder));
            }
          },
        }),
      );
    });
    afterAll(() => rmSync(folder, { recursive: true }));

    const requests: [string, string, number, Record<string, string>?][] = [
      ['an unknown path', '/unknown', 404],
      ['a health check', '/health', 200],
      ['a route that Nest does not know', '/own-route', 200],
      ['a handler behind a guard that denies it', '/idle', 500, { 'x-deny': '1' }],
      ...(way.platform === 'express'
        ? ([['a static file', '/static/page.txt', 200]] as [string, string, number][])
        : []),
    ];
    const writes = (calls: string[]): string[] => calls.filter((call) => call !== 'find');

    test.each(requests)(
      'by %s is not recorded: no row, touch, key, event or cookie',
      async (_, path, status, headers = {}) => {
        const known = await signIn(app);
        app.clock.advance(35 * MINUTE);
        const before = await app.store.visitOf(known);
        const crawler = app.browser();
        const forger = app.browser();
        forger.jar.set('visit', FORGED);
        for (const browser of [known, crawler, forger]) {
          heard.length = 0;
          const calls = await app.store.callsOf(async () => {
            const answer = await browser.get(path, { headers });
            expect([answer.status, answer.cookies]).toEqual([status, []]);
            expect(answer.headers.get('cache-control')).not.toBe('no-store');
            await app.app.get(VisitService).flush();
          });
          expect(writes(calls)).toEqual([]);
          // A forged key is told of, so that many of one address can be seen, but only where a handler is meant.
          expect(heard).toEqual(browser === forger && headers['x-deny'] ? ['onKeyRefused'] : []);
        }
        expect(await app.store.visitOf(known)).toEqual(before);
        expect(crawler.jar.size).toBe(0);
        // The same visit at a handler: it is touched, gets a new key and is told of. And another client gets one.
        heard.length = 0;
        const calls = await app.store.callsOf(async () => {
          expect((await known.get('/idle')).cookies).toHaveLength(1);
          expect((await crawler.get('/idle')).cookies).toHaveLength(1);
          await app.app.get(VisitService).flush();
        });
        expect(writes(calls).sort()).toEqual(['create', 'rekey', 'touch']);
        expect(heard).toEqual(['onRecordRequest', 'onNewVisit', 'onRecordRequest']);
      },
    );

    test.each(['', 'x', FORGED.slice(1), `${FORGED}A`, FORGED.toUpperCase(), "' OR 1=1 --", 'a'.repeat(3000)])(
      'by the malformed key %j causes no look-up',
      async (key) => {
        const calls = await app.store.callsOf(async () => {
          for (const path of ['/unknown', '/health', '/own-route'])
            await app.browser().get(path, { cookie: `visit=${key}` });
        });
        expect(calls).toEqual([]);
        // Another form of key is one to look for.
        expect(await app.store.callsOf(() => app.browser().get('/unknown', { cookie: `visit=${FORGED}` }))).toEqual([
          'find',
        ]);
      },
    );
  });

  describe('A request with a body', () => {
    let app: WayApp;
    let watcher: Watcher;
    const start = (source: string) =>
      way.start(
        atEveryPlace(
          way.platform,
          { see: (sight) => watcher.see?.(sight) },
          { controllers: [EntryController], options: { source } },
        ),
      );
    beforeAll(async () => {
      app = await start('cookie, query, body');
    });
    beforeEach(() => {
      watcher = {};
    });

    const namesAt = (places: readonly Place[]) => {
      const seen: Record<string, unknown> = {};
      watcher = {
        see: async ({ place, request, services }) => {
          if (!places.includes(place)) return;
          seen[place] = await seenBy(() => request.session['name'] ?? null);
          expect(await seenBy(() => services.session['name'] ?? null), place).toBe(seen[place]);
          expect(await seenBy(() => services.visits.current() && seen[place]), place).toBe(seen[place]);
        },
      };
      return seen;
    };
    const all = (places: readonly Place[], value: unknown) => Object.fromEntries(places.map((place) => [place, value]));
    const json = (body: string) => ({ 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });

    test.each(['cookie', 'query'])('does not wait for the body if there is a valid key in the %s', async (source) => {
      const browser = await signIn(app);
      let look!: (name: unknown) => void;
      const looked = new Promise((resolve) => (look = resolve));
      watcher = { see: ({ place, request }) => place === 'main.ts' && look(request.session['name']) };
      const body = JSON.stringify({ a: 1, visit_key: FORGED });
      const { send, answer } = begin(app, {
        path: source === 'query' ? `/seen?visit_key=${keyOf(browser)}` : '/seen',
        headers: { ...json(body), ...(source === 'cookie' ? { cookie: `visit=${keyOf(browser)}` } : {}) },
      });
      // The body is not on its way yet.
      expect(await looked).toBe('ann');
      send(body);
      const { status, text } = await answer;
      expect([status, JSON.parse(text)]).toEqual([
        201,
        { id: keyOf(browser).slice(0, 32), name: 'ann', body: { a: 1 } },
      ]);
    });

    test('reads the key in it after parsing, and removes it; until then, reading the visit throws', async () => {
      const browser = await signIn(app);
      const seen = namesAt([...MIDDLEWARE, ...GUARDS, ...AROUND, 'handler']);
      const calls = await app.store.callsOf(async () => {
        const answer = await app.browser().post('/seen', { json: { a: 1, visit_key: keyOf(browser) } });
        expect(JSON.parse(answer.text)).toEqual({ id: keyOf(browser).slice(0, 32), name: 'ann', body: { a: 1 } });
      });
      expect(calls).toEqual(['find']);
      // Fastify parses bodies after all middleware, Express before that of modules.
      const early = way.platform === 'express' ? MIDDLEWARE.slice(0, 2) : MIDDLEWARE;
      const late = [...MIDDLEWARE, ...GUARDS, ...AROUND, 'handler' as const].filter((place) => !early.includes(place));
      expect(seen).toEqual({ ...all(early, 'VISIT_NOT_RESOLVED'), ...all(late, 'ann') });
    });

    test('accepts a key in a form', async () => {
      const browser = await signIn(app);
      const answer = await app.browser().post('/seen', { form: { a: '1', visit_key: keyOf(browser) } });
      expect(JSON.parse(answer.text)).toEqual({ id: keyOf(browser).slice(0, 32), name: 'ann', body: { a: '1' } });
    });

    test('accepts a key in a body without a length', async () => {
      const browser = await signIn(app);
      const { send, answer } = begin(app, { path: '/seen', headers: { 'content-type': 'application/json' } });
      send(JSON.stringify({ visit_key: keyOf(browser) }));
      expect(JSON.parse((await answer).text)).toMatchObject({ name: 'ann' });
    });

    test('prefers a key in it to an invalid key in the cookie, but not to a valid one', async () => {
      const [ann, bea] = [await signIn(app), await signIn(app, 'bea')];
      const name = async (cookie: string): Promise<unknown> =>
        JSON.parse((await app.browser().post('/seen', { cookie, json: { visit_key: keyOf(ann) } })).text);
      expect(await name(`visit=${FORGED}`)).toMatchObject({ name: 'ann' });
      expect(await name(`visit=${keyOf(bea)}`)).toMatchObject({ name: 'bea', body: {} });
    });

    test('evaluates the cookie after the body if the body takes precedence', async () => {
      const first = await start('body, cookie');
      const [ann, bea] = [await signIn(first), await signIn(first, 'bea')];
      const seen = namesAt(['main.ts', 'guard of the method']);
      const both = await first
        .browser()
        .post('/seen', { cookie: `visit=${keyOf(bea)}`, json: { visit_key: keyOf(ann) } });
      expect(JSON.parse(both.text)).toMatchObject({ name: 'ann' });
      expect(seen).toEqual({ 'main.ts': 'VISIT_NOT_RESOLVED', 'guard of the method': 'ann' });
      // No key in the body, and no body at all.
      expect(JSON.parse((await bea.post('/seen', { json: {} })).text)).toMatchObject({ name: 'bea' });
      expect(seen).toEqual({ 'main.ts': 'VISIT_NOT_RESOLVED', 'guard of the method': 'bea' });
      expect(JSON.parse((await bea.get('/seen')).text)).toMatchObject({ name: 'bea' });
      expect(seen).toEqual({ 'main.ts': 'bea', 'guard of the method': 'bea' });
    });

    test('is decided immediately if the body is empty', async () => {
      const seen = namesAt(MIDDLEWARE);
      expect((await app.browser().get('/seen')).status).toBe(200);
      expect(seen).toEqual(all(MIDDLEWARE, null));
      const posted = namesAt(MIDDLEWARE);
      expect((await app.browser().post('/seen')).status).toBe(201);
      expect(posted).toEqual(all(MIDDLEWARE, null));
    });

    test.each(['{"a": ', '"', '{"a":1}}', '\u0000'])(
      'that is not JSON (%j) gets a 400, and the next request is served',
      async (body) => {
        const browser = await signIn(app);
        for (const cookie of [undefined, `visit=${keyOf(browser)}`, `visit=${FORGED}`]) {
          const { send, answer } = begin(app, {
            path: '/seen',
            headers: { ...json(body), ...(cookie ? { cookie } : {}) },
          });
          send(body);
          expect((await answer).status).toBe(400);
        }
        expect((await browser.get('/seen')).status).toBe(200);
      },
    );

    test('of a type that is not parsed still has a visit', async () => {
      const browser = await signIn(app);
      const answer = await browser.post('/seen', { headers: { 'content-type': 'text/unknown' }, form: {} });
      // Fastify refuses it by itself.
      expect(answer.status).toBe(way.platform === 'fastify' ? 415 : 201);
      const anonymous = await app
        .browser()
        .post('/seen', { headers: { 'content-type': 'text/unknown' }, form: { a: '1' } });
      expect(anonymous.status).toBe(way.platform === 'fastify' ? 415 : 201);
    });

    test.each([
      'null',
      '1',
      '"text"',
      '[]',
      '{"visit_key":{}}',
      '{"visit_key":["a"]}',
      '{"__proto__":{"visit_key":"x"}}',
    ])('%s contains no key: decided after parsing', async (body) => {
      const { send, answer } = begin(app, { path: '/seen', headers: json(body) });
      const calls = await app.store.callsOf(async () => {
        send(body);
        // Express's parser takes objects only; Fastify refuses "__proto__".
        expect([201, 400]).toContain((await answer).status);
      });
      expect(calls).toEqual([]);
    });
  });

  describe('A request whose look-up failed', () => {
    let app: WayApp;
    let watcher: Watcher;
    beforeAll(async () => {
      const proxy: Watcher = { see: (sight) => watcher.see?.(sight) };
      app = await way.start(
        atEveryPlace(way.platform, proxy, {
          controllers: [EntryController],
          main: (nest) => {
            addRoute(nest, way, '/own-route', () => ({}));
            addRoute(nest, way, '/own-route-with-session', (request) => ({ name: request.session['name'] }));
          },
        }),
      );
    });
    beforeEach(() => {
      watcher = {};
      app.store.isAway = false;
    });

    const NEEDS: Record<string, (sight: Sight) => unknown> = {
      'request.session': ({ request }) => request.session,
      'the injected session': ({ services }) => services.session['name'],
      'identity.userId': ({ services }) => services.identity.userId,
      'visits.current()': ({ services }) => services.visits.current(),
      'visits.resolve()': ({ services, request, execution }) =>
        services.visits.resolve((execution ?? request) as never),
    };

    test.each([...MIDDLEWARE, ...GUARDS].flatMap((place) => Object.keys(NEEDS).map((need) => [place, need] as const)))(
      'is refused with 503 at %s by %s',
      async (place, need) => {
        const browser = await signIn(app);
        const reached = new Set<Place>();
        watcher = {
          see: (sight) => {
            reached.add(sight.place);
            return sight.place === place && NEEDS[need]!(sight);
          },
        };
        app.store.isAway = true;
        const answer = await browser.get('/health');
        // Of a handler that wants no visit, a guard that wants one is refused for that.
        const isGuard = GUARDS.includes(place) && place !== 'guard of the method';
        if (isGuard) expect(answer.status).toBe(500);
        const served = await browser.get('/seen');
        expect(served.status).toBe(503);
        expect(JSON.parse(served.text)).toMatchObject({ statusCode: 503, code: 'VISIT_STORE_UNAVAILABLE' });
        expect([served.headers.get('retry-after'), served.cookies]).toEqual(['5', []]);
        expect(reached.has('handler')).toBe(false);
        app.store.isAway = false;
        expect((await browser.get('/seen')).status).toBe(200);
      },
    );

    test.each([
      ['/seen', 503],
      ['/idle', 503],
      ['/reads', 503],
      ['/secret', 503],
      ['/resolved', 503],
      ['/own-route-with-session', 503],
      ['/health', 200],
      ['/own-route', 200],
      ['/unknown', 404],
    ])('%s gets %d', async (path, status) => {
      const browser = await signIn(app);
      app.store.isAway = true;
      const answer = await browser.get(path);
      expect([answer.status, answer.headers.get('retry-after'), answer.cookies]).toEqual([
        status,
        status === 503 ? '5' : null,
        [],
      ]);
      // Who brings no key needs no store.
      expect((await app.browser().get(path)).status).toBe(status === 503 ? (path === '/secret' ? 401 : 200) : status);
      app.store.isAway = false;
      expect((await browser.get(path)).status).toBe(status === 503 ? 200 : status);
    });

    test('continues in middleware that does not need the visit', async () => {
      const browser = await signIn(app);
      const seen: unknown[] = [];
      watcher = {
        see: async ({ place, request }) => place === 'main.ts' && seen.push(await seenBy(() => request.session)),
      };
      app.store.isAway = true;
      expect((await browser.get('/health')).status).toBe(200);
      expect((await browser.get('/unknown')).status).toBe(404);
      expect(seen).toEqual(['VISIT_STORE_UNAVAILABLE', 'VISIT_STORE_UNAVAILABLE']);
    });

    test('is served if it is for a static file', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'visit-static-'));
      writeFileSync(join(folder, 'page.txt'), 'a page');
      const withFiles = await way.start(
        atEveryPlace(
          way.platform,
          {},
          {
            controllers: [EntryController],
            main: async (nest) => {
              if (way.platform === 'fastify') return addRoute(nest, way, '/page.txt', () => 'a page');
              const { default: express } = await import('express');
              nest.use((express as unknown as { static(path: string): never }).static(folder));
            },
          },
        ),
      );
      const browser = await signIn(withFiles);
      withFiles.store.isAway = true;
      const answer = await browser.get('/page.txt');
      expect([answer.status, answer.text]).toEqual([200, 'a page']);
      rmSync(folder, { recursive: true });
    });
  });
});
