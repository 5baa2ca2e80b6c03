import { once } from 'node:events';
import http from 'node:http';
import { Socket } from 'node:net';
import { inspect } from 'node:util';
import {
  Controller,
  Get,
  Injectable,
  Module,
  Post,
  Query,
  Req,
  type BeforeApplicationShutdown,
  type INestApplicationContext,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientProxyFactory, MessagePattern, Transport, type MicroserviceOptions } from '@nestjs/microservices';
import { Cron, CronExpression, Interval, ScheduleModule, Timeout } from '@nestjs/schedule';
import { CurrentUserId, CurrentVisit, RequireIdentity, Session, SkipVisit, VisitModule } from 'nest-visit';
import { firstValueFrom } from 'rxjs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Browser } from '../support/browser.js';
import { Gates } from '../support/gates.js';
import { ManualClock } from '../support/manual-clock.js';
import {
  AROUND,
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
  type Watcher,
} from '../support/places.js';
import { describeWays, seenBy, WatchedStore, type WayApp } from '../support/ways.js';

/** What reads, by method and by property. */
const READS: Record<string, (services: Services) => unknown> = {
  'session.name': ({ session }) => session['name'],
  "session['any name']": ({ session }) => session['any name'],
  'session.id': ({ session }) => session['id'],
  'session.user': ({ session }) => session['user'],
  'session.toJSON': ({ session }) => session['toJSON'],
  'session.length': ({ session }) => session['length'],
  'session.get()': ({ session }) => session.get('name'),
  'session.get() with a fallback': ({ session }) => session.get('name', 'fallback'),
  'session.has()': ({ session }) => session.has('name'),
  'session.size': ({ session }) => session.size,
  'session.keys()': ({ session }) => session.keys(),
  'session.values()': ({ session }) => session.values(),
  'session.entries()': ({ session }) => session.entries(),
  'a name in the session': ({ session }) => 'name' in session,
  'Object.keys(session)': ({ session }) => Object.keys(session),
  'Object.hasOwn(session)': ({ session }) => Object.hasOwn(session, 'name'),
  'a loop over the session': ({ session }) => {
    for (const name in session) return name;
    return 'empty';
  },
  '{ ...session }': ({ session }) => ({ ...session }),
  'JSON.stringify(session)': ({ session }) => JSON.stringify(session),
  'visits.current()': ({ visits }) => visits.current(),
  'identity.userId': ({ identity }) => identity.userId,
  'identity.authenticatedAt': ({ identity }) => identity.authenticatedAt,
  'identity.user()': ({ identity }) => identity.user(),
};
const WRITES: Record<string, (services: Services) => unknown> = {
  'session.name =': ({ session }) => void (session['name'] = 'x'),
  'delete session.name': ({ session }) => delete session['name'],
  'Object.assign(session)': ({ session }) => Object.assign(session, { name: 'x' }),
  'session.set()': ({ session }) => session.set('name', 'x'),
  'session.delete()': ({ session }) => session.delete('name'),
  'session.pop()': ({ session }) => session.pop('name'),
  'session.setDefault()': ({ session }) => session.setDefault('name', 'x'),
  'session.flash()': ({ session }) => session.flash('name', 'x'),
  'session.clear()': ({ session }) => session.clear(),
  'session.revert()': ({ session }) => session.revert(),
  'session.update()': ({ session }) => session.update('name', () => 'x'),
  'session.take()': ({ session }) => session.take('name'),
  'session.save()': ({ session }) => session.save(),
  'session.reload()': ({ session }) => session.reload(),
  'identity.login()': ({ identity }) => identity.login('carol'),
  'identity.logout()': ({ identity }) => identity.logout(),
  'identity.reauthenticate()': ({ identity }) => identity.reauthenticate(),
  'visits.renew()': ({ visits }) => visits.renew(),
  'visits.end()': ({ visits }) => visits.end(),
  'visits.endOthers()': ({ visits }) => visits.endOthers(),
  'tokens.create()': ({ tokens }) => tokens.create(),
  'tokens.consume()': ({ tokens }) => tokens.consume('x'),
};
const ALL = { ...READS, ...WRITES };
const everyOf = (table: object, value: unknown) => Object.fromEntries(Object.keys(table).map((name) => [name, value]));

async function seenOf(services: Services, table = ALL): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown> = {};
  for (const [name, act] of Object.entries(table)) seen[name] = await seenBy(() => act(services));
  return seen;
}

let workers = 0;

/** What works anywhere, by passing ids. */
async function work({ visits }: Services): Promise<unknown> {
  const userId = `worker ${++workers}`;
  const { visit, key } = await visits.create({ userId });
  const { visit: other } = await visits.create({ userId });
  const listed = (await visits.listForUser(userId)).map(({ id }) => id).sort();
  const ended = await visits.end(visit.id, 'by a job', { anyUser: true });
  const again = await visits.end(visit.id, 'again', { userId });
  const unnamed = await seenBy(() => visits.end(other.id));
  const foreign = await visits.end(other.id, 'revoked', { userId: `not ${userId}` });
  const found = await visits.find(visit.id);
  const left = await visits.endAllForUser(userId);
  await visits.flush();
  return {
    hasKey: key.startsWith(visit.id),
    isListed: listed.includes(visit.id) && listed.includes(other.id),
    isCurrent: [visit, other, found!].map(({ isCurrent }) => isCurrent),
    ended: [ended, again, unnamed, foreign, found!.endReason, left],
    policy: typeof visits.describePolicy(),
  };
}
const WORKED = {
  hasKey: true,
  isListed: true,
  isCurrent: [false, false, false],
  ended: [true, false, 'VISIT_NOT_RESOLVED', false, 'by a job', 1],
  policy: 'object',
};

/** Where an application runs code without a request. */
const NOTES: Record<string, Promise<{ seen: Record<string, unknown>; worked: unknown }>> = {};

@Injectable()
class Jobs
  implements OnModuleInit, OnApplicationBootstrap, OnModuleDestroy, BeforeApplicationShutdown, OnApplicationShutdown
{
  constructor(readonly services: Services) {}

  private note(where: string, isOpen = true): Promise<unknown> {
    NOTES[where] ??= (async () => ({
      seen: await seenOf(this.services),
      worked: isOpen ? await work(this.services) : WORKED,
    }))();
    return NOTES[where];
  }

  onModuleInit() {
    return this.note('onModuleInit');
  }
  onApplicationBootstrap() {
    return this.note('onApplicationBootstrap');
  }
  @Interval(5)
  interval() {
    return this.note('interval');
  }
  @Timeout(1)
  timeout() {
    return this.note('timeout');
  }
  @Cron(CronExpression.EVERY_SECOND)
  cron() {
    return this.note('cron');
  }
  onModuleDestroy() {
    return this.note('onModuleDestroy');
  }
  beforeApplicationShutdown() {
    return this.note('beforeApplicationShutdown');
  }
  onApplicationShutdown() {
    // The store is closed by then.
    return this.note('onApplicationShutdown', false);
  }
}

@Controller()
class Messages {
  constructor(private readonly services: Services) {}

  @MessagePattern('plain')
  plain() {
    return 'plain';
  }
  @MessagePattern('services')
  see() {
    return seenOf(this.services);
  }
  @MessagePattern('work')
  work() {
    return work(this.services);
  }
  @MessagePattern('session')
  session(@Session() session: Session) {
    return session['name'] ?? 'anonymous';
  }
  @MessagePattern('visit')
  visit(@CurrentVisit() visit: CurrentVisit) {
    return visit.id;
  }
  @MessagePattern('user')
  user(@CurrentUserId() userId: string | null) {
    return userId ?? 'anonymous';
  }
  @RequireIdentity()
  @MessagePattern('guarded')
  guarded() {
    return 'let in';
  }
}

const options = () => ({
  store: new WatchedStore(),
  clock: new ManualClock(),
  expunge: { schedule: false as const },
  wipe: { schedule: false as const },
  identity: { loadUser: (id: string) => ({ id }) },
});

function moduleWith(controllers: Type[] = [], providers: Type[] = []): Type {
  @Module({
    imports: [VisitModule.forRoot(options()), ScheduleModule.forRoot()],
    controllers,
    providers: [Services, ...providers],
  })
  class Application {}
  return Application;
}

const QUIET = { logger: false, abortOnError: false } as const;

describe('Outside of requests', () => {
  /** Of an application without HTTP at all. */
  let context: INestApplicationContext;
  let services: Services;
  beforeAll(async () => {
    context = await NestFactory.createApplicationContext(moduleWith([], [Jobs]), QUIET);
    services = context.get(Services);
  });

  test.each(Object.keys(ALL))('%s throws in an application context', async (name) => {
    expect(await seenBy(() => ALL[name]!(services))).toBe('VISIT_NOT_RESOLVED');
  });

  test('calls that fail there throw synchronously, not by a promise that might not be awaited', () => {
    for (const name of ['session.name', 'session.get()', 'session.name =', 'identity.userId', 'visits.current()']) {
      expect(() => ALL[name]!(services), name).toThrow(expect.objectContaining({ code: 'VISIT_NOT_RESOLVED' }));
    }
  });

  test('jobs create, list, find and end visits', async () => {
    expect(await work(services)).toEqual(WORKED);
  });

  test.each([
    'then',
    'onModuleInit',
    'onApplicationBootstrap',
    'onModuleDestroy',
    'beforeApplicationShutdown',
    'onApplicationShutdown',
    Symbol.iterator,
    Symbol.toPrimitive,
    Symbol.toStringTag,
    inspect.custom,
    Symbol('of a library'),
  ])('Nest and other code can probe the injected session by %s, without effect', (name) => {
    expect(Reflect.get(services.session, name)).toBeUndefined();
  });

  // As JavaScript, or a context of GraphQL without a request, passes them.
  test.each([undefined, null, 'a secret', 1, true, {}])(
    'visits.resolve(%j) throws, and shows no text',
    async (source) => {
      const refused = { code: 'VISIT_NOT_RESOLVED', message: expect.not.stringContaining('secret') };
      await expect(services.visits.resolve(source as never)).rejects.toMatchObject(refused);
    },
  );

  test('visits.resolve() of a handshake names visits.verify()', async () => {
    const handshake = Object.assign(new http.IncomingMessage(new Socket()), { method: 'GET', url: '/' });
    const refused = { code: 'VISIT_NOT_RESOLVED', message: expect.stringContaining('visits.verify()') };
    await expect(services.visits.resolve(handshake)).rejects.toMatchObject(refused);
  });

  test('the injected session can be awaited, injected and printed', async () => {
    expect(await Promise.resolve(services.session)).toBe(services.session);
    expect(typeof inspect(context)).toBe('string');
  });

  test.each(['onModuleInit', 'onApplicationBootstrap', 'interval', 'timeout', 'cron'])('%s', async (where) => {
    await expect.poll(() => NOTES[where]).toBeDefined();
    expect(await NOTES[where]).toEqual({ seen: everyOf(ALL, 'VISIT_NOT_RESOLVED'), worked: WORKED });
  });

  test.each(['onModuleDestroy', 'beforeApplicationShutdown', 'onApplicationShutdown'])('%s', async (where) => {
    await context.close();
    expect(await NOTES[where]).toEqual({ seen: everyOf(ALL, 'VISIT_NOT_RESOLVED'), worked: WORKED });
  });
});

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = http.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

describe.each(['a microservice', 'a hybrid application', 'a hybrid application with the same guards and interceptors'])(
  'Messages of %s',
  (kind) => {
    let close: () => Promise<void>;
    let send: (pattern: string) => Promise<unknown>;
    beforeAll(async () => {
      const transport: MicroserviceOptions = {
        transport: Transport.TCP,
        options: { host: '127.0.0.1', port: await freePort() },
      };
      if (kind === 'a microservice') {
        const app = await NestFactory.createMicroservice<MicroserviceOptions>(moduleWith([Messages]), {
          ...transport,
          ...QUIET,
        });
        await app.listen();
        close = () => app.close();
      } else {
        const app = await NestFactory.create(moduleWith([Messages]), QUIET);
        app.connectMicroservice(transport, { inheritAppConfig: kind.includes('same guards') });
        await app.startAllMicroservices();
        await app.listen(0, '127.0.0.1');
        close = () => app.close();
      }
      const client = ClientProxyFactory.create(transport as never);
      send = (pattern) => firstValueFrom(client.send<unknown>(pattern, {}));
      const closeApp = close;
      close = async () => {
        client.close();
        await closeApp();
      };
    });
    afterAll(() => close());

    test('are handled', async () => {
      expect(await send('plain')).toBe('plain');
    });

    test('have no visit: using one throws', async () => {
      expect(await send('services')).toEqual(everyOf(ALL, 'VISIT_NOT_RESOLVED'));
    });

    test.each(['session', 'visit', 'user', 'guarded'])('%s: an error, not an anonymous visitor', async (pattern) => {
      await expect(send(pattern)).rejects.toMatchObject({ status: 'error' });
    });

    test('work with visits by their ids', async () => {
      expect(await send('work')).toEqual(WORKED);
    });
  },
);

/** What somebody kept of a request that is over. */
interface Kept {
  services: Services;
  session: Session;
  visit: CurrentVisit;
  request: SeenRequest;
}

@Watched()
@Controller()
class OutsideController {
  static after: ((kept: Kept) => Promise<void>) | undefined;
  static run: (kept: Kept) => unknown;

  constructor(
    private readonly services: Services,
    private readonly places: Places,
    private readonly gates: Gates,
  ) {}

  @Post('login')
  async login(@Query('user') user: string) {
    await this.services.identity.login(user);
    this.services.session['name'] = user;
  }

  @Get('name')
  name(@Session() session: Session) {
    return {
      user: this.services.identity.userId,
      name: (session['name'] as unknown) ?? null,
      late: (session['late'] as unknown) ?? null,
    };
  }

  /** Starts something that goes on after the response. */
  @Get('starts')
  starts(@Req() request: SeenRequest, @Session() session: Session, @CurrentVisit() visit: CurrentVisit) {
    OutsideController.run({ services: this.services, session, visit, request });
    return {};
  }

  /** Goes on for as long as the gate is shut, whoever waits for the answer. */
  @Get('slow')
  async slow(
    @Query('gate') gate: string,
    @Req() request: SeenRequest,
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
  ) {
    await this.gates.pass(gate);
    await OutsideController.run({ services: this.services, session, visit, request });
    return {};
  }

  @SkipVisit()
  @WatchedHandler()
  @Get('skipped')
  async skipped(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return {};
  }

  @SkipVisit()
  @Get('skipped/session')
  skippedSession(@Session() session: Session) {
    return session.size;
  }

  @SkipVisit()
  @Get('skipped/visit')
  skippedVisit(@CurrentVisit() visit: CurrentVisit) {
    return visit.id;
  }

  @SkipVisit()
  @Get('skipped/user')
  skippedUser(@CurrentUserId() userId: string) {
    return userId;
  }

  @SkipVisit()
  @RequireIdentity()
  @Get('skipped/guarded')
  skippedGuarded() {
    return 'let in';
  }

  @WatchedHandler()
  @Get('seen')
  async seen(@SeenInPipe() request: SeenRequest) {
    await this.places.handle(request);
    return {};
  }
}

describeWays('A request after its response, without a visit, or without a store', (way) => {
  let app: WayApp;
  let watcher: Watcher = {};
  beforeAll(async () => {
    app = await way.start(
      atEveryPlace(
        way.platform,
        { see: (sight) => watcher.see?.(sight), fails: (request) => watcher.fails?.(request) },
        { controllers: [OutsideController], providers: [Gates], options: { identity: { loadUser: (id) => ({ id }) } } },
      ),
    );
  });
  beforeEach(() => {
    watcher = {};
    app.store.isAway = false;
    app.clock.advance(1000);
  });

  const signIn = async (user = 'ann'): Promise<Browser> => {
    app.clock.advance(1000);
    const browser = app.browser();
    expect((await browser.post(`/login?user=${user}`)).status).toBe(201);
    return browser;
  };

  /** Runs `then` in what the request has started, when the request is over. */
  async function afterwards(browser: Browser, then: (kept: Kept) => Promise<void>): Promise<void> {
    let done!: Promise<void>;
    const started = new Promise<void>((resolve) => {
      OutsideController.run = (kept) => {
        let isClosed!: () => void;
        const closed = new Promise<void>((close) => (isClosed = close));
        closes.push(isClosed);
        done = closed.then(() => new Promise(setImmediate)).then(() => then(kept));
        resolve();
      };
    });
    const answer = await browser.get('/starts');
    expect(answer.status).toBe(200);
    await started;
    await done;
  }
  /** The server tells when a response has closed. */
  const closes: (() => void)[] = [];
  beforeAll(() => {
    app.app.getHttpServer().prependListener('request', (_request: unknown, response: http.ServerResponse) => {
      response.once('close', () => closes.splice(0).forEach((close) => close()));
    });
  });

  test('work that it has started acts for no user: services and the injected session throw', async () => {
    const [ann, bea] = [await signIn(), await signIn('bea')];
    const before = await Promise.all([ann, bea].map((browser) => app.store.visitOf(browser)));
    let seen: unknown;
    let message = '';
    await afterwards(ann, async ({ services }) => {
      seen = await seenOf(services);
      try {
        services.session['name'] = 'x';
      } catch (error) {
        ({ message } = error as Error);
      }
    });
    expect(seen).toEqual(everyOf(ALL, 'VISIT_NOT_RESOLVED'));
    // It names the way.
    expect(message).toContain('visits.create()');
    expect(await Promise.all([ann, bea].map((browser) => app.store.visitOf(browser)))).toEqual(before);
    expect(JSON.parse((await ann.get('/name')).text)).toEqual({ user: 'ann', name: 'ann', late: null });
  });

  test('its objects are useless, too: reads throw, writes are refused, changes are discarded', async () => {
    const ann = await signIn();
    const before = await app.store.visitOf(ann);
    const reads: Record<string, (kept: Kept) => unknown> = {
      'request.session': ({ request }) => request.session,
      'session property': ({ session }) => session['name'],
      'session.get()': ({ session }) => session.get('name'),
      'session.entries()': ({ session }) => session.entries(),
      'session as JSON': ({ session }) => JSON.stringify(session),
      'visit.id': ({ visit }) => visit.id,
      'visit.key': ({ visit }) => visit.key,
      'visit.expiry': ({ visit }) => visit.expiry,
      'visit as JSON': ({ visit }) => JSON.stringify(visit),
      'visits.resolve()': ({ services, request }) => services.visits.resolve(request as never),
      'session.update()': ({ session }) => session.update('late', () => true),
      'session.take()': ({ session }) => session.take('name'),
      'session.save()': ({ session }) => session.save(),
      'session.reload()': ({ session }) => session.reload(),
    };
    const changes: Record<string, (kept: Kept) => unknown> = {
      'session.late =': ({ session }) => void (session['late'] = true),
      'session.set()': ({ session }) => void session.set('late', true),
      'session.delete()': ({ session }) => session.delete('name') || 'not deleted',
      'session.clear()': ({ session }) => session.clear(),
    };
    const seen: Record<string, unknown> = {};
    await afterwards(ann, async (kept) => {
      for (const [name, read] of Object.entries({ ...reads, ...changes })) seen[name] = await seenBy(() => read(kept));
    });
    expect(seen).toEqual({
      ...everyOf(reads, 'VISIT_NOT_RESOLVED'),
      ...everyOf(changes, undefined),
      'session.delete()': 'not deleted',
    });
    expect(await app.store.visitOf(ann)).toEqual(before);
    expect(JSON.parse((await ann.get('/name')).text)).toEqual({ user: 'ann', name: 'ann', late: null });
  });

  test('it works with visits as a job does, and must say whose visit may end', async () => {
    const [ann, bea] = [await signIn(), await signIn('bea')];
    const id = (await app.store.visitOf(bea)).id;
    let inRequest: unknown;
    OutsideController.run = ({ services }) => void (inRequest = services.visits.end(id));
    await ann.get('/starts');
    // In a request only one's own can be.
    expect(await inRequest).toBe(false);
    let seen: unknown;
    await afterwards(ann, async ({ services }) => {
      seen = [
        await seenBy(() => services.visits.end(id)),
        await services.visits.end(id, 'revoked', { userId: 'ann' }),
        await services.visits.end(id, 'revoked', { userId: 'bea' }),
        await work(services),
      ];
    });
    expect(seen).toEqual(['VISIT_NOT_RESOLVED', false, true, WORKED]);
    expect(JSON.parse((await bea.get('/name')).text)).toMatchObject({ user: null });
  });

  test('a timer that the first request has started never acts as its user', async () => {
    const ann = await signIn();
    const bea = await signIn('bea');
    let ticks = 0;
    const seen: unknown[] = [];
    let timer!: NodeJS.Timeout;
    await afterwards(ann, async () => {});
    OutsideController.run = ({ services, request }) => {
      let isOver = false;
      closes.push(() => (isOver = true));
      expect(request.session['name']).toBe('ann');
      timer = setInterval(() => {
        if (!isOver) return;
        ticks++;
        void seenBy(() => services.identity.userId).then((user) => seen.push(user));
      }, 1);
    };
    await ann.get('/starts');
    await expect.poll(() => ticks).toBeGreaterThan(2);
    await bea.get('/name');
    await ann.get('/name');
    const before = ticks;
    await expect.poll(() => ticks).toBeGreaterThan(before + 2);
    clearInterval(timer);
    expect(new Set(seen)).toEqual(new Set(['VISIT_NOT_RESOLVED']));
  });

  test('a worker that a request has started does not process other jobs as its user', async () => {
    const [ann, bea] = [await signIn(), await signIn('bea')];
    const jobs: string[] = [];
    const done: unknown[] = [];
    let wake!: () => void;
    OutsideController.run = ({ services }) => {
      void (async () => {
        for (;;) {
          await new Promise<void>((resolve) => (wake = resolve));
          const job = jobs.shift();
          if (job === 'stop') return;
          done.push([job, await seenBy(() => services.identity.userId), await seenBy(() => services.session['name'])]);
        }
      })();
    };
    await ann.get('/starts');
    await afterwardsClosed();
    OutsideController.run = () => {
      jobs.push('of bea');
      wake();
    };
    await bea.get('/starts');
    await expect.poll(() => done).toEqual([['of bea', 'VISIT_NOT_RESOLVED', 'VISIT_NOT_RESOLVED']]);
    jobs.push('stop');
    wake();

    /** One more request on another connection, whose end comes after that of the last one. */
    async function afterwardsClosed(): Promise<void> {
      await afterwards(await signIn('cem'), async () => {});
    }
  });

  test('a handler acts for its user after the client has disconnected, but not after its own end', async () => {
    const ann = await signIn();
    const gate = app.app.get(Gates).make('slow');
    let during: unknown;
    let kept!: Kept;
    let ran!: () => void;
    const hasRun = new Promise<void>((resolve) => (ran = resolve));
    OutsideController.run = async (tools) => {
      kept = tools;
      during = [
        tools.services.identity.userId,
        tools.session['name'],
        tools.visit.id,
        await tools.session.update('late', () => 'kept'),
      ];
      ran();
    };
    const request = http.get(`${app.address}/slow?gate=slow`, {
      headers: { cookie: `visit=${ann.jar.get('visit')}` },
      agent: false,
    });
    request.on('error', () => {});
    await gate.arrived;
    const closed = new Promise<void>((resolve) => closes.push(resolve));
    request.destroy();
    await closed;
    gate.open();
    await hasRun;
    expect(during).toEqual(['ann', 'ann', ann.jar.get('visit')!.slice(0, 32), 'kept']);
    await expect.poll(() => seenBy(() => kept.visit.id)).toBe('VISIT_NOT_RESOLVED');
    expect(await seenBy(() => kept.session.update('late', () => 'too late'))).toBe('VISIT_NOT_RESOLVED');
    expect(JSON.parse((await ann.get('/name')).text)).toMatchObject({ late: 'kept' });
  });

  describe('a handler with @SkipVisit()', () => {
    test('has no visit, nor do its guards, interceptors, pipes and filters: using one throws', async () => {
      const [ann, second] = [await signIn(), await signIn()];
      const before = await Promise.all([ann, second].map((browser) => app.store.visitOf(browser)));
      const seen = new Map<Place, unknown>();
      const more: typeof ALL = {
        'visits.end() of another visit': ({ visits }) => visits.end(before[1]!.id),
        'visits.end() of its own visit': ({ visits }) => visits.end(before[0]!.id),
      };
      watcher = {
        see: async ({ place, request, services }) => {
          if (MIDDLEWARE.includes(place)) return;
          seen.set(place, {
            ...(await seenOf(services, { ...ALL, ...more })),
            'request.session': await seenBy(() => request.session),
          });
        },
        fails: ({ headers }) => (headers['x-fail'] ? new Error('on purpose') : undefined),
      };
      for (const headers of [{}, { 'x-fail': '1' }])
        await ann.get('/skipped', { headers: headers as Record<string, string> });
      expect([...seen.keys()].sort()).toEqual(
        [...GUARDS, ...AROUND, 'handler', 'interceptor on the way back', 'filter'].sort(),
      );
      for (const [place, value] of seen) {
        expect([place, value]).toEqual([
          place,
          everyOf({ ...ALL, ...more, 'request.session': 1 }, 'VISIT_NOT_RESOLVED'),
        ]);
      }
      expect(await Promise.all([ann, second].map((browser) => app.store.visitOf(browser)))).toEqual(before);
      // And its request is served.
      watcher = {};
      expect((await ann.get('/skipped')).status).toBe(200);
    });

    test.each(['session', 'visit', 'user', 'guarded'])('denies requests if it needs one: %s', async (path) => {
      expect((await (await signIn()).get(`/skipped/${path}`)).status).toBe(500);
    });
  });

  describe('an unavailable store', () => {
    test.each([...MIDDLEWARE, ...GUARDS])('using the visit at %s throws', async (place) => {
      const ann = await signIn();
      let seen: unknown;
      watcher = {
        see: async (sight) => {
          if (sight.place !== place) return;
          seen = { ...(await seenOf(sight.services)), 'request.session': await seenBy(() => sight.request.session) };
        },
      };
      app.store.isAway = true;
      expect((await ann.get('/seen')).status).toBe(503);
      expect(seen).toEqual(everyOf({ ...ALL, 'request.session': 1 }, 'VISIT_STORE_UNAVAILABLE'));
    });
  });
});
