import { Body, Controller, Get, Post, Query } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import {
  CsrfGuard,
  CurrentUserId,
  CurrentVisit,
  ExclusiveSession,
  IdentityService,
  PassiveVisit,
  RequireIdentity,
  Session,
  SkipVisit,
  UseVisit,
  VisitPlugin,
  VisitService,
} from 'nest-visit';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { Gates } from '../support/gates.js';
import {
  atEveryPlace,
  GUARDS,
  MIDDLEWARE,
  Places,
  SeenInPipe,
  Services,
  Watched,
  WatchedHandler,
  type Place,
  type SeenRequest,
  type Sight,
  type Watcher,
} from '../support/places.js';
import { isForToday } from '../support/today.js';
import { describeWays, seenBy, type WayApp } from '../support/ways.js';

const MINUTE = 60_000;
const recorded: string[] = [];

@VisitPlugin()
class Recorder {
  onRecordRequest(visit: CurrentVisit): void {
    recorded.push(visit.id);
  }
  onNewVisit(visit: CurrentVisit): void {
    recorded.push(`new ${visit.id}`);
  }
}

@Watched()
@Controller()
class PolicyController {
  constructor(
    private readonly places: Places,
    private readonly identity: IdentityService,
    private readonly session: Session,
    private readonly visits: VisitService,
    private readonly gates: Gates,
  ) {}

  @Post('login')
  async login(@Body() { user }: { user: string }) {
    await this.identity.login(user);
    this.session['owner'] = user;
  }

  private who() {
    return {
      user: this.identity.userId,
      owner: (this.session['owner'] as unknown) ?? null,
      id: this.visits.current().id,
    };
  }

  @WatchedHandler()
  @Get('plain')
  async plain(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @PassiveVisit()
  @WatchedHandler()
  @Get('passive')
  async passive(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @UseVisit({ timeout: '5h' })
  @WatchedHandler()
  @Get('long')
  async long(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @UseVisit({ source: 'cookie' })
  @WatchedHandler()
  @Get('narrow')
  async narrow(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @UseVisit({ source: 'cookie' })
  @RequireIdentity()
  @Get('narrow-secret')
  narrowSecret(@CurrentUserId() userId: string) {
    return userId;
  }

  @UseVisit({ source: 'query' })
  @WatchedHandler()
  @Get('query-only')
  async queryOnly(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @UseVisit({ source: 'body' })
  @WatchedHandler()
  @Post('body-only')
  async bodyOnly(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return this.who();
  }

  @UseVisit({ path: '/shop' })
  @WatchedHandler()
  @Get('path')
  async path(@SeenInPipe() request: SeenRequest, @Session() session: Session) {
    await this.places.handle(request);
    session['seen'] = true;
  }

  @SkipVisit()
  @WatchedHandler()
  @Get('skipped')
  async skipped(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return {};
  }

  @SkipVisit()
  @RequireIdentity()
  @Post('skipped-secret')
  skippedSecret() {
    return 'let in';
  }

  @RequireIdentity()
  @Post('secret')
  secret() {
    return 'let in';
  }

  @ExclusiveSession()
  @Get('exclusive')
  async exclusive(@Query('gate') gate: string) {
    const count = (this.session['count'] as number | undefined) ?? 0;
    await this.gates.pass(gate);
    this.session['count'] = count + 1;
    return { count: count + 1, noted: this.session['noted'] as unknown };
  }

  @Get('shared')
  async shared(@Query('gate') gate: string) {
    const count = (this.session['count'] as number | undefined) ?? 0;
    await this.gates.pass(gate);
    this.session['count'] = count + 1;
    return { count: count + 1 };
  }
}

@SkipVisit()
@Watched()
@Controller('aside')
class SkippingController {
  constructor(private readonly identity: IdentityService) {}

  @Get()
  skipped() {
    return { user: this.identity.userId };
  }

  @SkipVisit(false)
  @Get('not')
  not() {
    return { user: this.identity.userId };
  }
}

@PassiveVisit()
@UseVisit({ timeout: '2h' })
@Watched()
@Controller('quiet')
class QuietController {
  @Get()
  quiet() {
    return {};
  }

  @PassiveVisit(false)
  @Get('not')
  not() {
    return {};
  }
}

/** Who looks at the visit before its handler, and how. */
const LOOKS: Record<string, (sight: Sight) => unknown> = {
  'request.session': ({ request }) => request.session['owner'],
  'visits.resolve(request)': ({ services, request }) => services.visits.resolve(request as never),
  'visits.resolve(execution)': ({ services, request, execution }) =>
    services.visits.resolve((execution ?? request) as never),
  'the services': ({ services: { session, identity, visits } }) => [
    session['owner'],
    identity.userId,
    visits.current().expiry,
  ],
};
const PLACES: readonly (Place | 'nowhere' | 'everywhere')[] = [
  'nowhere',
  ...MIDDLEWARE,
  ...GUARDS,
  'interceptor of main.ts',
  'interceptor of the class',
  'everywhere',
];

describeWays('The policy of a handler', (way) => {
  let app: WayApp;
  let watcher: Watcher;
  const proxy: Watcher = { see: (sight) => watcher.see?.(sight) };
  const parts = {
    controllers: [PolicyController, SkippingController, QuietController],
    providers: [Recorder, Gates],
  };

  beforeAll(async () => {
    app = await way.start(
      atEveryPlace(way.platform, proxy, {
        ...parts,
        providers: [...parts.providers, { provide: APP_GUARD, useExisting: CsrfGuard }],
        options: {
          timeout: '20m',
          source: 'cookie, query, body',
          renewAfter: '10m',
          touch: { interval: '1h', resolution: '1s' },
          identity: { loadUser: (id: string) => ({ id }) },
        },
      }),
    );
  });
  beforeEach(() => {
    watcher = {};
    app.clock.advance(1000);
  });

  const signIn = async (user = 'ann', at = app): Promise<Browser> => {
    const before = watcher;
    watcher = {};
    const browser = at.browser();
    expect(
      (await browser.post('/login', { json: { user }, headers: { 'sec-fetch-site': 'same-origin' } })).status,
    ).toBe(201);
    watcher = before;
    return browser;
  };
  const keyOf = (browser: Browser): string => browser.jar.get('visit')!;
  const idOf = (browser: Browser): string => keyOf(browser).slice(0, 32);
  const flush = (): Promise<void> => app.app.get(VisitService).flush();
  /** All ways to look, or what a test adds, at this place. */
  const looking = (at: (typeof PLACES)[number], more?: (sight: Sight) => unknown): void => {
    watcher = {
      see: async (sight) => {
        if (at !== 'everywhere' && sight.place !== at) return;
        for (const look of Object.values(LOOKS)) await seenBy(() => look(sight));
        await more?.(sight);
      },
    };
  };

  const places = PLACES.filter((_, index) => isForToday(index + platforms.indexOf(way.platform), 3));

  describe.each(places)('applies even if the visit was read before: %s', (at) => {
    test('@PassiveVisit(): no touch and no new key; another handler causes both', async () => {
      const browser = await signIn();
      const before = await app.store.visitOf(browser);
      looking(at);
      app.clock.advance(11 * MINUTE);
      for (let i = 0; i < 2; i++) {
        const answer = await browser.get('/passive');
        expect([answer.status, answer.cookies]).toEqual([200, []]);
      }
      await flush();
      expect(await app.store.visitOf(browser)).toEqual(before);
      expect((await browser.get('/plain')).cookies).toHaveLength(1);
      await flush();
      const after = await app.store.visitOf(browser);
      expect([after.expiry, after.keyHash === before.keyHash]).toEqual([app.clock.now() + 20 * MINUTE, false]);
      // Polling keeps nobody signed in.
      app.clock.advance(15 * MINUTE);
      expect(JSON.parse((await browser.get('/passive')).text)).toMatchObject({ user: 'ann' });
      app.clock.advance(5 * MINUTE);
      expect(JSON.parse((await browser.get('/passive')).text)).toMatchObject({ user: null });
    });

    test('@UseVisit({ timeout })', async () => {
      const browser = await signIn();
      looking(at);
      await browser.get('/long');
      await flush();
      expect((await app.store.visitOf(browser)).expiry).toBe(app.clock.now() + 300 * MINUTE);
    });

    test('@UseVisit({ source }) without a source: keys from that source are ignored', async () => {
      const browser = await signIn();
      const seen: Record<string, unknown> = {};
      looking(at, ({ place, request, services: { identity } }) => {
        seen[place] = [request.session['owner'] ?? null, identity.userId];
      });
      const answer = await app.browser().get(`/narrow?visit_key=${keyOf(browser)}`);
      expect(JSON.parse(answer.text)).toMatchObject({ user: null, owner: null });
      expect((await app.browser().get(`/narrow-secret?visit_key=${keyOf(browser)}`)).status).toBe(401);
      // The handler is not known yet in middleware; from the first guard on nobody sees the visit.
      for (const [place, value] of Object.entries(seen)) {
        expect([place, value]).toEqual([place, MIDDLEWARE.includes(place as Place) ? ['ann', 'ann'] : [null, null]]);
      }
      // The same key where it counts.
      expect((await browser.get('/narrow-secret')).text).toBe('ann');
      expect(JSON.parse((await app.browser().get(`/plain?visit_key=${keyOf(browser)}`)).text)).toMatchObject({
        user: 'ann',
      });
    });

    test.each(['query', 'body'] as const)(
      '@UseVisit({ source: "%s" }): the key in that source is used, and the cookie is not',
      async (source) => {
        const [cookie, other] = [await signIn('ann'), await signIn('bea')];
        looking(at);
        const ask = (key?: string) =>
          source === 'query'
            ? cookie.get(`/query-only${key ? `?visit_key=${key}` : ''}`)
            : cookie.post('/body-only', {
                json: key ? { visit_key: key } : {},
                headers: { 'sec-fetch-site': 'same-origin' },
              });
        expect(JSON.parse((await ask(keyOf(other))).text)).toEqual({ user: 'bea', owner: 'bea', id: idOf(other) });
        expect(JSON.parse((await ask()).text)).toMatchObject({ user: null, owner: null });
      },
    );

    test('@UseVisit({ path })', async () => {
      looking(at);
      const answer = await app.browser().get('/path');
      expect(answer.cookies).toHaveLength(1);
      expect(answer.cookies[0]).toContain('; Path=/shop;');
    });

    test('@SkipVisit(): neither visit nor session, even for its guards; no touch, no key, no event', async () => {
      const browser = await signIn();
      app.clock.advance(11 * MINUTE);
      const before = await app.store.visitOf(browser);
      recorded.length = 0;
      const seen: [Place, unknown][] = [];
      looking(at, async (sight) => {
        for (const look of Object.values(LOOKS)) seen.push([sight.place, await seenBy(() => look(sight))]);
      });
      const calls = await app.store.callsOf(async () => {
        const answer = await browser.get('/skipped');
        expect([answer.status, answer.cookies]).toEqual([200, []]);
        await flush();
      });
      expect(calls).toEqual(['find']);
      expect(recorded).toEqual([]);
      expect(await app.store.visitOf(browser)).toEqual(before);
      for (const [place, value] of seen) {
        if (MIDDLEWARE.includes(place)) expect([place, value]).not.toEqual([place, 'VISIT_NOT_RESOLVED']);
        else expect([place, value]).toEqual([place, 'VISIT_NOT_RESOLVED']);
      }
      const own = { 'sec-fetch-site': 'same-origin' };
      const foreign = { 'sec-fetch-site': 'same-site', origin: 'https://neighbor.example' };
      // A guard that needs a visit closes a handler that has none, wherever the request comes from.
      for (const headers of [own, foreign])
        expect((await browser.post('/skipped-secret', { headers })).status).toBe(500);
      expect([
        (await browser.post('/secret', { headers: own })).text,
        (await browser.post('/secret', { headers: foreign })).status,
      ]).toEqual(['let in', 403]);
    });

    test('@ExclusiveSession(): one after the other, each with what the previous one has stored', async () => {
      const browser = await signIn();
      looking(at);
      const counts = await Promise.all(Array.from({ length: 5 }, () => browser.clone().get('/exclusive')));
      expect(counts.map(({ text }) => (JSON.parse(text) as { count: number }).count).sort((a, b) => a - b)).toEqual([
        1, 2, 3, 4, 5,
      ]);
    });

    test('plugins are called once for the request', async () => {
      const browser = await signIn();
      looking(at);
      for (const path of ['/plain', '/passive', '/long', '/exclusive']) {
        recorded.length = 0;
        expect((await browser.get(path)).status).toBe(200);
        expect([path, ...recorded]).toEqual([path, idOf(browser)]);
      }
    });
  });

  test('without @ExclusiveSession() requests overlap: the test of it can fail', async () => {
    const browser = await signIn();
    const gates = app.app.get(Gates);
    const [one, other] = [gates.make('one'), gates.make('other')];
    const answers = ['one', 'other'].map((gate) => browser.clone().get(`/shared?gate=${gate}`));
    await Promise.all([one.arrived, other.arrived]);
    one.open();
    other.open();
    expect((await Promise.all(answers)).map(({ text }) => JSON.parse(text) as unknown)).toEqual([
      { count: 1 },
      { count: 1 },
    ]);
  });

  test('@ExclusiveSession() keeps changes that middleware or a guard made before it waited', async () => {
    const browser = await signIn();
    const gates = app.app.get(Gates);
    const gate = gates.make('first');
    const first = browser.clone().get('/exclusive?gate=first');
    await gate.arrived;
    let written!: () => void;
    const hasWritten = new Promise<void>((resolve) => (written = resolve));
    watcher = {
      see: ({ place, request }) => {
        if (place === 'main.ts') request.session['noted'] = request.session['count'] ?? 'nothing';
        if (place === 'guard of the class') written();
      },
    };
    const second = browser.clone().get('/exclusive');
    await hasWritten;
    gate.open();
    expect(JSON.parse((await first).text)).toMatchObject({ count: 1 });
    expect(JSON.parse((await second).text)).toEqual({ count: 2, noted: 'nothing' });
  });

  test('changes of middleware to an earlier visit are saved there, and not in the visit of the handler', async () => {
    const [linked, own] = [await signIn('ann'), await signIn('bea')];
    watcher = { see: ({ place, request }) => void (place === 'main.ts' && (request.session['mark'] = 'of main.ts')) };
    const answer = await own.get(`/query-only?visit_key=${keyOf(linked)}`);
    expect(JSON.parse(answer.text)).toMatchObject({ user: 'ann' });
    const marks: unknown[] = [];
    watcher = { see: ({ place, request }) => void (place === 'handler' && marks.push(request.session['mark'])) };
    await own.get('/plain');
    await linked.get('/plain');
    expect(marks).toEqual(['of main.ts', undefined]);
  });

  test('law 8: the user that middleware has loaded is not the user of a handler with another source', async () => {
    const [linked, own] = [await signIn('ann'), await signIn('bea')];
    const users: unknown[] = [];
    watcher = {
      see: async ({ place, services: { identity } }) => {
        if (place === 'main.ts' || place === 'handler') users.push([place, await identity.user()]);
      },
    };
    await own.get(`/query-only?visit_key=${keyOf(linked)}`);
    expect(users).toEqual([
      ['main.ts', { id: 'bea' }],
      ['handler', { id: 'ann' }],
    ]);
  });

  test('a guard that refuses the request leaves the visit as it was', async () => {
    const browser = await signIn();
    const before = await app.store.visitOf(browser);
    app.clock.advance(11 * MINUTE);
    for (const place of GUARDS) {
      recorded.length = 0;
      watcher = {
        see: (sight) => {
          LOOKS['the services']!(sight);
          if (sight.place === place) throw new Error('refused');
        },
      };
      const answer = await browser.get('/plain');
      expect([answer.status, answer.cookies, recorded]).toEqual([500, [], []]);
    }
    await flush();
    expect(await app.store.visitOf(browser)).toEqual(before);
  });

  test('of the method takes precedence over that of its class', async () => {
    const browser = await signIn();
    expect((await browser.get('/aside')).status).toBe(500);
    expect(JSON.parse((await browser.get('/aside/not')).text)).toEqual({ user: 'ann' });
    const before = await app.store.visitOf(browser);
    app.clock.advance(MINUTE);
    await browser.get('/quiet');
    await flush();
    expect(await app.store.visitOf(browser)).toEqual(before);
    await browser.get('/quiet/not');
    await flush();
    expect((await app.store.visitOf(browser)).expiry).toBe(app.clock.now() + 120 * MINUTE);
  });

  describe.each(places)('with `creation: immediate`, if the visit was read before: %s', (at) => {
    let immediate: WayApp;
    beforeAll(async () => {
      immediate = await way.start(atEveryPlace(way.platform, proxy, { ...parts, options: { creation: 'immediate' } }));
    });

    test('begins a visit once for a handler, but not if that skips visits, is denied or unknown', async () => {
      looking(at);
      for (const path of ['/skipped', '/aside', '/unknown']) {
        recorded.length = 0;
        expect((await immediate.browser().get(path)).cookies).toEqual([]);
        expect(recorded).toEqual([]);
      }
      recorded.length = 0;
      const browser = immediate.browser();
      expect((await browser.get('/passive')).cookies).toHaveLength(1);
      expect(recorded).toEqual([`new ${idOf(browser)}`, idOf(browser)]);
    });
  });
});

/** Whose `request.user` it is. */
describeWays('request.user', (way) => {
  let watcher: Watcher;
  const someone = { name: 'of a strategy' };
  let loaded: string[];

  @Watched()
  @Controller()
  class UserController {
    constructor(
      private readonly services: Services,
      private readonly places: Places,
    ) {}

    private show({ user }: SeenRequest) {
      return { user: user ?? null };
    }

    @Post('login')
    async login(@Body() { user }: { user: string }, @SeenInPipe() request: SeenRequest) {
      await this.services.identity.login(user);
      return this.show(request);
    }

    @WatchedHandler()
    @Get('user')
    async user(@SeenInPipe() request: SeenRequest) {
      await this.places.handle(request);
      return this.show(request);
    }

    @PassiveVisit()
    @Get('passive')
    passive(@SeenInPipe() request: SeenRequest) {
      return this.show(request);
    }

    @SkipVisit()
    @Get('skipped')
    skipped(@SeenInPipe() request: SeenRequest) {
      return this.show(request);
    }

    @Post('act')
    async act(@Query('act') act: string, @SeenInPipe() request: SeenRequest) {
      await ACTS[act]!.act(this.services);
      return this.show(request);
    }
  }

  const ANN = { name: 'ann' };
  const ACTS: Record<string, { act: (services: Services) => unknown; user: unknown }> = {
    'logout()': { act: ({ identity }) => identity.logout(), user: null },
    'logout(), keeping the visit': { act: ({ identity }) => identity.logout({ keepVisit: true }), user: null },
    'visits.end()': { act: ({ visits }) => visits.end(), user: null },
    'visits.end() of its own id': { act: ({ visits }) => visits.end(visits.current().id), user: null },
    'endAllForUser()': { act: ({ visits }) => visits.endAllForUser('ann'), user: null },
    'endAll()': { act: ({ visits }) => visits.endAll(), user: null },
    'a login as somebody else': { act: ({ identity }) => identity.login('bea'), user: { name: 'bea' } },
    'a login after a logout': {
      act: async ({ identity }) => {
        await identity.logout();
        await identity.login('bea');
      },
      user: { name: 'bea' },
    },
    'a login that fails': { act: ({ identity }) => seenBy(() => identity.login('nobody')), user: ANN },
    'endOthers()': { act: ({ visits }) => visits.endOthers(), user: ANN },
    'endAllForUser() of another': { act: ({ visits }) => visits.endAllForUser('bea'), user: ANN },
    'visits.renew()': { act: ({ visits }) => visits.renew(), user: ANN },
    'reauthenticate()': { act: ({ identity }) => identity.reauthenticate(), user: ANN },
  };

  const start = (requestUser: boolean, main?: (app: WayApp['app']) => void): Promise<WayApp> =>
    way.start(
      atEveryPlace(
        way.platform,
        { see: (sight) => watcher.see?.(sight) },
        {
          controllers: [UserController],
          ...(main ? { main } : {}),
          options: {
            identity: {
              requestUser,
              loadUser: (id) => {
                if (id === 'nobody') throw new Error('no such user');
                loaded.push(id);
                return { name: id };
              },
            },
          },
        },
      ),
    );
  let app: WayApp;
  beforeAll(async () => {
    watcher = {};
    loaded = [];
    app = await start(true);
  });
  beforeEach(() => {
    watcher = {};
    loaded = [];
    app.clock.advance(1000);
  });
  const signIn = async (at = app): Promise<Browser> => {
    // Later than whatever has ended all visits of a user.
    at.clock.advance(1000);
    const browser = at.browser();
    expect((await browser.post('/login', { json: { user: 'ann' } })).status).toBe(201);
    return browser;
  };
  const userOf = async (browser: Browser, path = '/user'): Promise<unknown> =>
    (JSON.parse((await browser.get(path)).text) as { user: unknown }).user;

  test('is the signed-in user, loaded once, even in a passive handler, but not under @SkipVisit()', async () => {
    const browser = await signIn();
    loaded = [];
    expect(await userOf(browser)).toEqual(ANN);
    expect(loaded).toEqual(['ann']);
    expect(await userOf(browser, '/passive')).toEqual(ANN);
    expect(await userOf(browser, '/skipped')).toBeNull();
    expect(await userOf(app.browser())).toBeNull();
    expect(JSON.parse((await app.browser().post('/login', { json: { user: 'ann' } })).text)).toEqual({ user: ANN });
  });

  test.each(Object.keys(ACTS))('follows %s', async (act) => {
    const browser = await signIn();
    const answer = await browser.post(`/act?act=${encodeURIComponent(act)}`);
    expect([answer.status, answer.text]).toEqual([201, JSON.stringify({ user: ACTS[act]!.user })]);
  });

  test.each([...MIDDLEWARE, ...GUARDS])('set by other code at %s is kept, whoever signs in or out', async (place) => {
    const set = ({ place: at, request, execution }: Sight): void => {
      if (at !== place) return;
      // Under Fastify, middleware has Node's own request: what it sets is not seen elsewhere anyway.
      const target = execution ? execution.switchToHttp().getRequest<SeenRequest>() : request;
      target.user = someone;
    };
    const isSeen = way.platform === 'express' || !place.startsWith('module');
    const browser = await signIn();
    watcher = { see: set };
    if (isSeen) {
      expect(await userOf(app.browser())).toEqual(someone);
      expect(await userOf(browser)).toEqual(someone);
      if (place !== 'guard of the method') {
        for (const act of Object.keys(ACTS)) {
          watcher = {};
          const other = await signIn();
          watcher = { see: set };
          const answer = await other.post(`/act?act=${encodeURIComponent(act)}`);
          expect([act, answer.text]).toEqual([act, JSON.stringify({ user: someone })]);
        }
        expect(JSON.parse((await app.browser().post('/login', { json: { user: 'ann' } })).text)).toEqual({
          user: someone,
        });
      }
    } else expect(await userOf(browser)).toEqual(ANN);
  });

  test('is not set unless the option says so', async () => {
    const without = await start(false);
    const browser = await signIn(without);
    expect(await userOf(browser)).toBeNull();
    watcher = { see: ({ place, request }) => void (place === 'guard of main.ts' && (request.user = someone)) };
    expect(await userOf(browser)).toEqual(someone);
    expect(loaded).toEqual([]);
  });
});
