import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { Controller, Get, Injectable, Post, Query, Req, Res, Scope, UseGuards, type CanActivate } from '@nestjs/common';
import mysql from 'mysql2';
import { CurrentUserId, CurrentVisit, IdentityService, RequireIdentity, Session, VisitService } from 'nest-visit';
import { Observable } from 'rxjs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { has, describeWith, mysqlUrl, postgresUrl } from '../support/needs.js';
import {
  ALL_THE_WAY,
  AROUND,
  atEveryPlace,
  GUARDS,
  MIDDLEWARE,
  Places,
  SeenInPipe,
  Services,
  Watched,
  WatchedHandler,
  type Given,
  type Place,
  type SeenRequest,
  type Sight,
  type Watcher,
} from '../support/places.js';
import { isForToday } from '../support/today.js';
import { describeWays, seenBy, type Way, type WayApp } from '../support/ways.js';

/** How somebody else's callback goes on. */
type Detour = (go: () => void) => void;

/** Whose context code runs in, by a variable of the test's own: to see that a detour leads where it says. */
const control = new AsyncLocalStorage<string>();
afterAll(() => control.disable());
const nobody = new AsyncResource('nobody');
const emitter = new EventEmitter();

interface Pool {
  query(sql: string, callback: (error: unknown) => void): unknown;
  end(callback: () => void): void;
}

const { Pool: PgPool } = createRequire(import.meta.url)('pg') as { Pool: new (options: object) => Pool };

/** With one connection, that is: a connection that somebody else has opened. */
const POOLS: Record<string, (() => Pool) | undefined> = {
  mysql2: has('mysql') ? () => mysql.createPool({ uri: mysqlUrl!, connectionLimit: 1 }) : undefined,
  pg: has('postgres') ? () => new PgPool({ connectionString: postgresUrl, max: 1 }) : undefined,
};

/** What the other one's requests have left. */
interface Other {
  /** In a request that is over. */
  over: AsyncResource;
  /** In one that has not been answered. */
  live: AsyncResource;
  /** In a callback of one of its writes. */
  writing: AsyncResource;
  pools: Record<string, Pool>;
}

/** Ways to lose one's own context. The last ones are real. */
const detours = (other: Other): Record<string, Detour> => ({
  own: (go) => go(),
  none: (go) => nobody.runInAsyncScope(go),
  over: (go) => other.over.runInAsyncScope(go),
  live: (go) => other.live.runInAsyncScope(go),
  writing: (go) => other.writing.runInAsyncScope(go),
  emitter: (go) => void emitter.once('tick', go),
  ...Object.fromEntries(
    Object.entries(other.pools).map(([name, pool]) => [name, (go: () => void) => void pool.query('SELECT 1', go)]),
  ),
});
const DETOURS = [
  'own',
  'none',
  'over',
  'live',
  'writing',
  'emitter',
  ...Object.keys(POOLS).filter((name) => POOLS[name]),
];
/**
 * Those that lead to a request of another user which is still served: no look at the context tells that it is not this
 * one.
 */
const isForeign = (detour: string): boolean => !['own', 'none', 'over'].includes(detour);

@Injectable({ scope: Scope.REQUEST })
class PerRequest {
  constructor(readonly services: Services) {}
}

@Injectable()
class SignedIn implements CanActivate {
  constructor(private readonly identity: IdentityService) {}

  canActivate(): boolean {
    return this.identity.userId !== null;
  }
}

@Watched()
@Controller()
class RightController {
  /** What a test does within these handlers. */
  static inHandler: (
    tools: Given & { services: Services; request: SeenRequest; answer: (value: unknown) => void },
  ) => unknown;
  static other: Other = { pools: {} } as Other;
  static held: { arrived: () => void; go: Promise<void> };

  constructor(
    private readonly places: Places,
    private readonly services: Services,
  ) {}

  @Post('login')
  async login(@Query('user') user: string) {
    await this.services.identity.login(user);
    this.services.session['owner'] = user;
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
    return {};
  }

  @RequireIdentity()
  @Get('required')
  required(@CurrentUserId() userId: string) {
    return { user: userId };
  }

  @UseGuards(SignedIn)
  @Get('signed-in')
  signedIn() {
    return { user: this.services.identity.userId };
  }

  @Get('me')
  me(@Session() session: Session) {
    return { user: this.services.identity.userId, owner: session['owner'] as unknown };
  }

  /** Leaves traces of a request that is over soon. */
  @Get('soon-over')
  soonOver() {
    RightController.other.over = new AsyncResource('over');
    return {};
  }

  /** Leaves traces of a request that is not. */
  @Get('held')
  async held() {
    const { other, held } = RightController;
    other.live = new AsyncResource('live');
    const timer = setInterval(() => emitter.emit('tick'), 2);
    for (const [name, open] of Object.entries(POOLS)) {
      if (!open) continue;
      const pool = (other.pools[name] = open());
      await new Promise<void>((resolve, reject) =>
        pool.query('SELECT 1', (failure) => (failure ? reject(failure) : resolve())),
      );
    }
    const writing = this.services.session.update('writing', async () => {
      other.writing = new AsyncResource('writing');
      held.arrived();
      await held.go;
      return undefined;
    });
    await writing;
    clearInterval(timer);
    return {};
  }

  /** Answers by itself. */
  @Get('answers')
  answers(
    @Req() request: SeenRequest,
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
    @CurrentUserId() userId: string | null,
    @Res() response: { json?(value: unknown): void; send(value: unknown): void },
  ) {
    const answer = (value: unknown): void => (response.json ? response.json(value) : response.send(value));
    RightController.inHandler({ session, visit, userId, request, services: this.services, answer });
  }

  @Get('observed')
  observed(
    @Req() request: SeenRequest,
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
    @CurrentUserId() userId: string | null,
  ) {
    return new Observable((subscriber) => {
      const answer = (value: unknown): void => {
        subscriber.next(value);
        subscriber.complete();
      };
      RightController.inHandler({ session, visit, userId, request, services: this.services, answer });
    });
  }
}

@Controller('per-request')
class PerRequestController {
  constructor(private readonly scoped: PerRequest) {}

  @UseGuards(SignedIn)
  @Get()
  get(@Session() session: Session) {
    const { session: injected, identity } = this.scoped.services;
    return [session['owner'], injected['owner'], identity.userId] as unknown[];
  }
}

describeWays(
  'Code',
  (way: Way) => {
    let app: WayApp;
    let watcher: Watcher = {};
    let alice: Browser;
    let bob: Browser;
    let release: () => void;
    let heldAnswer: Promise<unknown>;
    const owners = new Map<string, string>();
    const { other } = RightController;

    const signIn = async (user: string): Promise<Browser> => {
      const browser = app.browser();
      expect((await browser.post(`/login?user=${user}`)).status).toBe(201);
      owners.set(browser.jar.get('visit')!.slice(0, 32), user);
      app.clock.advance(1);
      return browser;
    };
    /** Sends the requests of the other one into whose context others will get. */
    const holdOther = async (): Promise<void> => {
      watcher = { goOn: (_place, _request, next) => control.run('bob', next) };
      await bob.get('/soon-over');
      const arrived = new Promise<void>((resolve) => {
        const go = new Promise<void>((done) => (release = done));
        RightController.held = { arrived: resolve, go };
      });
      heldAnswer = bob.get('/held');
      await arrived;
    };

    beforeAll(async () => {
      const proxy: Watcher = {
        see: (sight) => watcher.see?.(sight),
        goOn: (...args) => (watcher.goOn ? watcher.goOn(...args) : args[2]()),
        fails: (request) => watcher.fails?.(request),
      };
      app = await way.start(
        atEveryPlace(way.platform, proxy, {
          controllers: [RightController, PerRequestController],
          providers: [PerRequest, SignedIn],
          options: { identity: { loadUser: (id) => ({ name: id }) } },
        }),
      );
      bob = await signIn('bob');
      alice = await signIn('alice');
      await holdOther();
    });
    afterAll(async () => {
      release();
      await heldAnswer;
      await Promise.all(Object.values(other.pools).map((pool) => new Promise<void>((resolve) => pool.end(resolve))));
      other.pools = {};
    });
    beforeEach(() => {
      watcher = {};
    });

    /** Goes on from somebody else's callback at this place, and notes where that led. */
    const losing =
      (at: Place, detour: string, notes: (string | undefined)[]): NonNullable<Watcher['goOn']> =>
      (place, _request, next) => {
        if (place !== at) return next();
        control.run('alice', () =>
          detours(other)[detour]!(() => {
            notes.push(control.getStore());
            next();
          }),
        );
      };
    const landing = (detour: string): (string | undefined)[] => [
      detour === 'own' ? 'alice' : detour === 'none' ? undefined : 'bob',
    ];

    /** What goes by the request itself. */
    const BY_REQUEST: Record<string, (sight: Sight) => unknown> = {
      'request.session': ({ request }) => request.session['owner'],
      'request.session.get()': ({ request }) => request.session.get('owner'),
      'visits.resolve()': async ({ services, request }) =>
        owners.get((await services.visits.resolve(request as never)).id),
      'visits.resolve() of the execution': async ({ services, request, execution }) =>
        owners.get((await services.visits.resolve((execution ?? request) as never)).id),
      'services after visits.resolve()': async ({ services, request }) => {
        await services.visits.resolve(request as never);
        const all = new Set([
          services.session['owner'],
          services.identity.userId,
          owners.get(services.visits.current().id),
        ]);
        return [...all].join();
      },
      '@Session()': ({ given }) => (given ? given.session['owner'] : 'alice'),
      '@CurrentVisit()': ({ given }) => (given ? owners.get(given.visit.id) : 'alice'),
      '@CurrentUserId()': ({ given }) => (given ? given.userId : 'alice'),
    };
    /** What goes by the asynchronous context. */
    const BY_CONTEXT: Record<string, (services: Services) => unknown> = {
      'session property': ({ session }) => session['owner'],
      'session.get()': ({ session }) => session.get('owner'),
      'session.entries()': ({ session }) => Object.fromEntries(session.entries())['owner'],
      'session as an object': ({ session }) => ({ ...session })['owner'],
      'session as JSON': ({ session }) => (JSON.parse(JSON.stringify(session)) as { owner?: unknown }).owner,
      'names of the session': ({ session }) =>
        Object.keys(session).includes('owner') ? session['owner'] : 'an empty one',
      'a name in the session': ({ session }) => ('owner' in session ? session['owner'] : 'an empty one'),
      'visits.current()': ({ visits }) => owners.get(visits.current().id),
      'identity.userId': ({ identity }) => identity.userId,
      'identity.authenticatedAt': async ({ identity, visits }) => {
        const at = identity.authenticatedAt?.getTime();
        for (const [id, owner] of owners) if ((await visits.find(id))?.authenticatedAt?.getTime() === at) return owner;
        return undefined;
      },
      'identity.user()': async ({ identity }) => (await identity.user<{ name: string }>())?.name,
    };

    /** Each probe in an asynchronous scope of its own: some of them mend it. */
    async function probe(
      sight: Sight,
    ): Promise<{ byRequest: Record<string, unknown>; byContext: Record<string, unknown> }> {
      const apart = (read: () => unknown): Promise<unknown> =>
        new AsyncResource('probe').runInAsyncScope(() => seenBy(read));
      const byRequest: Record<string, unknown> = {};
      const byContext: Record<string, unknown> = {};
      for (const [name, read] of Object.entries(BY_CONTEXT)) byContext[name] = await apart(() => read(sight.services));
      for (const [name, read] of Object.entries(BY_REQUEST)) byRequest[name] = await apart(() => read(sight));
      return { byRequest, byContext };
    }

    const every = (table: object, value: unknown) =>
      Object.fromEntries(Object.keys(table).map((name) => [name, value]));

    /** Whether the library has the request in its hands between the two places. */
    const isMended = (lostAt: Place, place: Place): boolean => {
      if (place === 'filter') return true;
      if (!MIDDLEWARE.includes(lostAt)) return false;
      if (!MIDDLEWARE.includes(place)) return true;
      // Express calls middleware of modules after us; Fastify runs all middleware and hooks one after the other.
      return way.platform === 'express' && lostAt.startsWith('main.ts') && place.startsWith('module');
    };

    /** Fastify's middleware comes before its hooks. */
    const order: readonly Place[] =
      way.platform === 'fastify'
        ? [...MIDDLEWARE.slice(2), ...MIDDLEWARE.slice(0, 2), ...ALL_THE_WAY.slice(4)]
        : ALL_THE_WAY;
    const LOSABLE: readonly Place[] = [...MIDDLEWARE, 'interceptor of main.ts', 'interceptor of the class'];

    describe.each(DETOURS)('that continues in a context that is: %s', (detour) => {
      const shift = DETOURS.indexOf(detour) + platforms.indexOf(way.platform);
      const isToday = (_: Place, index: number): boolean => isForToday(index + shift, 3);

      test.each(LOSABLE.filter(isToday))(
        'lost at %s: all later code sees the right request, or an error',
        async (lostAt) => {
          const seen: ({ place: Place } & Awaited<ReturnType<typeof probe>>)[] = [];
          let isLost = false;
          const notes: (string | undefined)[] = [];
          const lose = losing(lostAt, detour, notes);
          watcher = {
            see: async (sight) => {
              if (isLost) seen.push({ place: sight.place, ...(await probe(sight)) });
            },
            goOn: (place, request, next) => {
              isLost ||= place === lostAt;
              lose(place, request, next);
            },
            fails: ({ headers }) => (headers['x-fail'] ? new Error('on purpose') : undefined),
          };
          expect((await alice.get('/seen')).status).toBe(200);
          isLost = false;
          expect((await alice.get('/seen', { headers: { 'x-fail': '1' } })).status).toBe(500);
          expect(notes).toEqual([...landing(detour), ...landing(detour)]);

          const after = order.slice(order.indexOf(lostAt) + 1);
          expect(new Set(seen.map(({ place }) => place))).toEqual(new Set([...after, 'filter']));
          for (const { place, byRequest, byContext } of seen) {
            expect(byRequest, place).toEqual(every(BY_REQUEST, 'alice'));
            if (detour === 'own' || isMended(lostAt, place))
              expect(byContext, place).toEqual(every(BY_CONTEXT, 'alice'));
            // The context of another request that is still served looks like one's own: there, only the request itself
            // says whose it is.
            else if (!isForeign(detour)) expect(byContext, place).toEqual(every(BY_CONTEXT, 'VISIT_NOT_RESOLVED'));
          }
        },
      );

      test.each(MIDDLEWARE.filter(isToday))(
        'lost at %s: guards of class and method and those of the library decide about the right one',
        async (lostAt) => {
          for (const path of ['/required', '/signed-in', '/per-request']) {
            const notes: (string | undefined)[] = [];
            watcher = { goOn: losing(lostAt, detour, notes) };
            const answer = await alice.get(path);
            expect([answer.status, JSON.parse(answer.text)]).toEqual([
              200,
              path === '/per-request' ? ['alice', 'alice', 'alice'] : { user: 'alice' },
            ]);
            // A stranger stays one, whoever else is signed in.
            const stranger = await app.browser().get(path);
            expect([path, stranger.status]).toEqual([path, path === '/required' ? 401 : 403]);
            expect(notes).toEqual([...landing(detour), ...landing(detour)]);
          }
        },
      );

      test.each(['/answers', '/observed'])(
        'within a handler (%s), the objects of the handler are its own, and are saved',
        async (path) => {
          const name = `${detour} ${path}`;
          const notes: (string | undefined)[] = [];
          let seen!: Awaited<ReturnType<typeof probe>>;
          RightController.inHandler = ({ services, request, answer, ...given }) =>
            control.run('alice', () =>
              detours(other)[detour]!(() => {
                notes.push(control.getStore());
                void probe({ place: 'handler', request, services, given }).then((probed) => {
                  seen = probed;
                  given.session[name] = 'by the decorator';
                  request.session[`${name}, too`] = 'by the request';
                  answer({});
                });
              }),
            );
          const before = await app.store.visitOf(bob);
          const answer = await alice.get(path);
          expect([answer.status, answer.text, notes]).toEqual([200, '{}', landing(detour)]);
          expect(seen.byRequest).toEqual(every(BY_REQUEST, 'alice'));
          if (!isForeign(detour))
            expect(seen.byContext).toEqual(every(BY_CONTEXT, detour === 'own' ? 'alice' : 'VISIT_NOT_RESOLVED'));
          let saved: unknown;
          watcher = {
            see: ({ given }) => void (given && (saved = [given.session[name], given.session[`${name}, too`]])),
          };
          await alice.get('/seen');
          expect(saved).toEqual(['by the decorator', 'by the request']);
          expect(await app.store.visitOf(bob)).toEqual(before);
        },
      );
    });

    describe('that writes', () => {
      /** Each leaves something at the visit it was meant for; those marked end it. */
      const WRITES: Record<string, (services: Services) => unknown> = {
        'session.x =': ({ session }) => void (session['x'] = 1),
        'session.set()': ({ session }) => void session.set('x', 1),
        'delete session.owner': ({ session }) => delete session['owner'],
        'session.clear()': ({ session }) => session.clear(),
        'session.update()': ({ session }) => session.update('x', () => 1),
        'session.take()': ({ session }) => session.take('owner'),
        'session.save()': ({ session }) => {
          session['x'] = 1;
          return session.save();
        },
        'session.reload()': async ({ session }) => {
          await session.reload();
          session['x'] = 1;
        },
        'tokens.create()': ({ tokens }) => tokens.create(),
        'identity.login()': ({ identity }) => identity.login('carol'),
        'identity.logout()': ({ identity }) => identity.logout(),
        'identity.logout(), keeping the visit': ({ identity }) => identity.logout({ keepVisit: true }),
        'identity.reauthenticate()': ({ identity }) => identity.reauthenticate(),
        'visits.renew()': ({ visits }) => visits.renew(),
        'visits.end()': ({ visits }) => visits.end(),
        'visits.endOthers()': ({ visits }) => visits.endOthers(),
      };
      /** Where it is lost, where it writes, and whether the library is in between. */
      const WHERE: [Place, Place, boolean][] = [
        ['module middleware, second', 'guard of the class', true],
        ['main.ts, second', 'handler', true],
        ['module middleware, second', 'filter', true],
        ['interceptor of the class', 'handler', false],
      ];
      const cases = Object.keys(WRITES)
        .flatMap((write) => ['none', 'over', 'live', 'writing'].map((detour) => [write, detour] as const))
        .filter((_, index) => isForToday(index + platforms.indexOf(way.platform), 3));

      test.each(cases)(
        '%s in a context that is %s: writes to the right visit, or is refused',
        async (write, detour) => {
          for (const [lostAt, place, isKnown] of WHERE) {
            if (!isKnown && isForeign(detour)) continue;
            // Later than whatever has ended all visits of a user.
            app.clock.advance(1000);
            // Each case has a user of its own, whose visits are few.
            const user = `dora: ${write}, ${detour}, ${lostAt}`;
            const [mine, second] = [await signIn(user), await signIn(user)];
            const before = await Promise.all([mine, second, bob].map((browser) => app.store.visitOf(browser)));
            const notes: (string | undefined)[] = [];
            let error: unknown = null;
            watcher = {
              goOn: losing(lostAt, detour, notes),
              fails: () => (place === 'filter' ? new Error('on purpose') : undefined),
              see: async (sight) => {
                if (sight.place !== place) return;
                error = await seenBy(async () => {
                  await WRITES[write]!(sight.services);
                  return null;
                });
              },
            };
            const answer = await mine.get('/seen', { cookie: `visit=${mine.jar.get('visit')}` });
            watcher = {};
            const after = await Promise.all([mine, second, bob].map((browser) => app.store.visitOf(browser)));
            const label = `lost at ${lostAt}, written at ${place}`;
            expect(notes, label).toEqual(landing(detour));
            expect(answer.status, label).toBe(place === 'filter' ? 500 : 200);
            expect(after[2], label).toEqual(before[2]);
            if (isKnown) {
              expect(error, label).toBeNull();
              const isOther = write === 'visits.endOthers()';
              expect(
                [JSON.stringify(after[0]) === JSON.stringify(before[0]), after[1]!.endedAt === null],
                label,
              ).toEqual([isOther, !isOther]);
            } else {
              expect(error, label).toBe('VISIT_NOT_RESOLVED');
              expect(after, label).toEqual(before);
            }
          }
        },
      );
    });

    test('that a write of another request called back can write for its own, without waiting', async () => {
      let wrote: unknown;
      let nested: unknown;
      watcher = {
        goOn: losing('interceptor of the class', 'writing', []),
        see: async ({ given, services }) => {
          if (!given) return;
          await given.session.update('counted', () => 1);
          wrote = given.session['counted'];
          // By the context it is a write within the other one's write, which would wait for itself.
          nested = await seenBy(() => services.session.update('counted', () => 2));
        },
      };
      expect((await alice.get('/seen')).status).toBe(200);
      expect([wrote, nested]).toEqual([1, 'VISIT_NESTED_CALL']);
    });

    test.each([...MIDDLEWARE])(
      'a caller of callbacks keeps its identity, then and later (lost at %s)',
      async (place) => {
        const seen: [string, unknown, unknown][] = [];
        const look = (when: string): void => {
          let user: unknown;
          try {
            user = app.app.get(Services).identity.userId;
          } catch (error) {
            user = (error as { code: string }).code;
          }
          seen.push([when, control.getStore(), user]);
        };
        const waiting: (() => void)[] = [];
        let finished!: () => void;
        const isDone = new Promise<void>((resolve) => (finished = resolve));
        watcher = {
          goOn: (at, { headers }, next) => {
            if (at !== place || headers['x-caller']) return next();
            waiting.push(next);
          },
          see: async ({ place: at, request }) => {
            if (at !== 'handler' || !request.headers['x-caller']) return;
            await control.run('bob', async () => {
              // A timer of its own, as one that gathers questions to a database.
              await new Promise<void>((resolve) => {
                let ticks = 0;
                const timer = setInterval(() => {
                  look(`tick ${++ticks}`);
                  for (const next of waiting.splice(0)) next();
                  look(`tick ${ticks}, having called back`);
                  if (ticks < 3) return;
                  clearInterval(timer);
                  resolve();
                }, 1);
              });
              look('afterwards');
            });
            finished();
          },
        };
        const waits = alice.get('/me');
        await expect.poll(() => waiting.length).toBe(1);
        // With a request of its own: the one that is held is for others.
        const calls = bob.clone().get('/seen', { headers: { 'x-caller': '1' } });
        expect(JSON.parse((await waits).text)).toEqual({ user: 'alice', owner: 'alice' });
        await isDone;
        expect((await calls).status).toBe(200);
        expect(seen).toHaveLength(7);
        for (const [when, ...who] of seen) expect([when, ...who]).toEqual([when, 'bob', 'bob']);
      },
    );

    test('several concurrent users, each after a callback of the others, are served as themselves', async () => {
      const names = ['ann', 'ben', 'cem', 'dan'];
      const browsers = await Promise.all(names.map(signIn));
      const waiting: (() => void)[] = [];
      watcher = {
        goOn: (place, _request, next) => {
          if (place !== 'module middleware, second') return next();
          waiting.push(next);
          // The last one's request calls back all of them.
          if (waiting.length === names.length) for (const one of waiting.splice(0)) one();
        },
      };
      const answers = await Promise.all(browsers.map((browser) => browser.get('/me')));
      expect(answers.map(({ text }) => JSON.parse(text) as unknown)).toEqual(
        names.map((user) => ({ user, owner: user })),
      );
    });
  },
  ['NestFactory'],
);

/** Parsers of bodies that go on from the end of the request. */
describeWays(
  'A body parser that continues in an event of the request',
  (way: Way) => {
    test.each(['own listener', 'listener that a callback adds'])('%s', async (kind) => {
      const contexts: unknown[] = [];
      const onEnd = (stream: EventEmitter & { resume(): void }, done: () => void): void => {
        const listen = (): void => {
          stream.on('end', () => {
            contexts.push(control.getStore());
            done();
          });
          stream.resume();
        };
        if (kind === 'own listener') listen();
        else nobody.runInAsyncScope(listen);
      };
      const seen: Record<string, unknown> = {};
      const watcher: Watcher = {
        see: async ({ place, request, services }) => {
          if (request.headers['content-type'] !== 'text/plain') return;
          if (![...GUARDS, ...AROUND, 'handler'].includes(place)) return;
          seen[place] = [
            request.session['owner'],
            await seenBy(() => services.session['owner']),
            await seenBy(() => services.identity.userId),
          ];
        },
      };
      @Watched()
      @Controller()
      class BodyController {
        constructor(
          private readonly places: Places,
          private readonly services: Services,
        ) {}

        @Post('login')
        async login() {
          await this.services.identity.login('ann');
          this.services.session['owner'] = 'ann';
        }

        @WatchedHandler()
        @Post('upload')
        async upload(@SeenInPipe() request: SeenRequest) {
          await this.places.handle(request);
        }
      }
      const app = await way.start(
        atEveryPlace(way.platform, watcher, {
          controllers: [BodyController],
          main: (nest) => {
            if (way.platform === 'express') {
              nest.use(
                (request: EventEmitter & SeenRequest & { resume(): void }, _response: unknown, next: () => void) => {
                  if (request.headers['content-type'] === 'text/plain') control.run('ann', () => onEnd(request, next));
                  else next();
                },
              );
            } else {
              const instance = nest.getHttpAdapter().getInstance() as {
                addContentTypeParser(
                  type: string,
                  parse: (request: unknown, body: never, done: (error: null) => void) => void,
                ): void;
              };
              instance.addContentTypeParser('text/plain', (_request, body, done) =>
                control.run('ann', () => onEnd(body, () => done(null))),
              );
            }
          },
        }),
      );
      const browser = app.browser();
      await browser.post('/login');
      const answer = await browser.post('/upload', {
        headers: { 'content-type': 'text/plain' },
        form: { text: 'some text' },
      });
      expect(answer.status, answer.text).toBe(201);
      expect(contexts).toHaveLength(1);
      expect(Object.keys(seen).sort()).toEqual([...GUARDS, ...AROUND, 'handler'].sort());
      for (const [place, values] of Object.entries(seen))
        expect([place, values]).toEqual([place, ['ann', 'ann', 'ann']]);
    });
  },
  ['NestFactory'],
);

// As an application finds its tenant: by callback, of a pool with fewer connections than there are users.
for (const [name, need] of [
  ['mysql2', 'mysql'],
  ['pg', 'postgres'],
] as const) {
  describeWith(need, `A middleware that queries its database with callbacks of ${name}`, () => {
    describeWays(
      'Users',
      (way: Way) => {
        let pool: Pool;
        let app: WayApp;

        @Controller()
        class TenantController {
          constructor(
            private readonly identity: IdentityService,
            private readonly visits: VisitService,
          ) {}

          @Post('login')
          async login(@Query('user') user: string) {
            await this.identity.login(user);
          }

          @Get('me')
          me() {
            return { user: this.identity.userId, visit: this.visits.current().id };
          }

          @UseGuards(SignedIn)
          @Get('secret')
          secret() {
            return 'secret';
          }
        }

        beforeAll(async () => {
          pool = POOLS[name]!();
          const tenant = (_request: unknown, _response: unknown, next: () => void): void =>
            void pool.query('SELECT 1', () => next());
          app = await way.start({
            controllers: [TenantController],
            providers: [SignedIn],
            configure: (consumer) => void consumer.apply(tenant).forRoutes('{*path}'),
          });
        });
        afterAll(() => new Promise<void>((resolve) => pool.end(resolve)));

        test('are served as themselves, one after the other and concurrently, and a stranger is denied', async () => {
          const names = ['ann', 'ben', 'cem', 'dan'];
          const browsers: Browser[] = [];
          for (const user of names) {
            const browser = app.browser();
            expect((await browser.post(`/login?user=${user}`)).status).toBe(201);
            browsers.push(browser);
          }
          const own = names.map((user, index) => ({ user, visit: browsers[index]!.jar.get('visit')!.slice(0, 32) }));
          const seen: unknown[] = [];
          for (const browser of browsers) seen.push(JSON.parse((await browser.get('/me')).text));
          expect(seen).toEqual(own);
          const atOnce = await Promise.all(browsers.map((browser) => browser.get('/me')));
          expect(atOnce.map(({ text }) => JSON.parse(text) as unknown)).toEqual(own);
          expect((await app.browser().get('/secret')).status).toBe(403);
          expect((await browsers[0]!.get('/secret')).text).toBe('secret');
        });
      },
      ['NestFactory'],
    );
  });
}
