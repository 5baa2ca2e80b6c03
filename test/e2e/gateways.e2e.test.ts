import type { IncomingMessage } from 'node:http';
import {
  Controller,
  Get,
  Inject,
  Injectable,
  Optional,
  Query,
  UseInterceptors,
  type CallHandler,
  type ExecutionContext,
  type INestApplication,
  type NestInterceptor,
  type Provider,
  type WebSocketAdapter,
} from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import { IoAdapter } from '@nestjs/platform-socket.io';
import { WsAdapter } from '@nestjs/platform-ws';
import {
  ConnectedSocket,
  MessageBody,
  SubscribeMessage,
  WebSocketGateway,
  type OnGatewayConnection,
} from '@nestjs/websockets';
import {
  CurrentUserId,
  CurrentVisit,
  ExclusiveSession,
  IdentityService,
  MemoryVisitStore,
  PassiveVisit,
  RequireIdentity,
  Session,
  SkipVisit,
  VisitService,
  type VisitSettings,
  type VisitsInStore,
} from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { concatMap, from, Observable, of, timer } from 'rxjs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { OpenStreams } from '../../lib/visit/open-streams.js';
import { startApp, type PlatformName, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { PATIENCE } from '../support/patience.js';
import { connect, type SocketAnswer, type SocketClient, type Transport } from '../support/sockets.js';
import { WatchedStore } from '../support/watched-store.js';

interface Tools {
  readonly session: Session;
  readonly identity: IdentityService;
  readonly visits: VisitService;
  readonly client: object;
}

/** What the handler `run` does, by the name that a message brings. */
const acts: Record<string, (tools: Tools) => unknown> = {
  count: ({ session }) => session['count'] ?? null,
  add: ({ session }) => (session['count'] = ((session['count'] as number | undefined) ?? 0) + 1),
  user: ({ identity }) => identity.userId,
  login: ({ identity }) => identity.login('eve'),
  reauthenticate: ({ identity }) => identity.reauthenticate(),
  renew: ({ visits }) => visits.renew(),
  logout: ({ identity }) => identity.logout(),
  verify: async ({ visits, client }) => (await visits.verify(client))?.userId ?? null,
  'end of others': ({ visits }) => visits.endOthers(),
  'end of another': ({ visits }) => visits.end(anothers.id),
  update: ({ session }) => session.update('count', (count) => ((count as number | undefined) ?? 0) + 1),
};

/** Somebody else's visit. */
const anothers = { id: '' };

/** What the gateway is told of connections. */
const opened: { readonly client: object; readonly user: Promise<string | null> }[] = [];

const answer = (data: unknown): SocketAnswer => ({ event: 'answer', data });

/** Has handlers called two by two: those of the first message in the asynchronous context of the second. */
@Injectable()
class Together implements NestInterceptor {
  private waiting: (() => void)[] = [];

  constructor(@Optional() @Inject('events') private readonly events: readonly string[] = ['together']) {}

  intercept(execution: ExecutionContext, next: CallHandler) {
    if (!this.events.includes(execution.getHandler().name)) return next.handle();
    return new Observable((subscriber) => {
      this.waiting.push(() => next.handle().subscribe(subscriber));
      if (this.waiting.length === 2) for (const go of this.waiting.splice(0)) go();
    });
  }
}

@WebSocketGateway()
class Desk implements OnGatewayConnection {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  handleConnection(client: object) {
    const user = this.visits.verify(client).then((found) => found?.userId ?? null);
    user.catch(() => undefined);
    opened.push({ client, user });
  }

  @SubscribeMessage('run') async run(@ConnectedSocket() client: object, @MessageBody() act: string) {
    const { session, identity, visits } = this;
    return answer(await acts[act]!({ session, identity, visits, client }));
  }

  @SubscribeMessage('decorated') decorated(
    @Session() session: Session,
    @CurrentVisit() visit: CurrentVisit,
    @CurrentUserId() user: string | null,
  ) {
    return answer({ count: session['count'], visit: visit.id, user });
  }

  @RequireIdentity() @SubscribeMessage('guarded') guarded() {
    return answer('let in');
  }

  @PassiveVisit() @SubscribeMessage('passive') passive() {
    return answer(this.identity.userId);
  }

  @SkipVisit() @SubscribeMessage('skipped') skipped() {
    return answer(this.identity.userId);
  }

  @UseInterceptors(Together) @SubscribeMessage('together') together(@CurrentUserId() user: string | null) {
    return answer({ parameter: user, injected: this.identity.userId });
  }

  @SubscribeMessage('whose') whose(@CurrentUserId() user: string | null) {
    return answer({ parameter: user, injected: this.identity.userId });
  }

  @SubscribeMessage('several') several() {
    return from([1, 2, 3]).pipe(
      concatMap((part) => timer(0).pipe(concatMap(() => of(answer((this.session['part'] = part)))))),
    );
  }

  @SubscribeMessage('bad') bad(@Session() session: Session) {
    session['bad'] = () => 1;
    return answer('never');
  }
}

/** Let in by what a header says, as an application may have it. */
const isOpen = ({ headers }: IncomingMessage): boolean => headers['x-way'] === 'open';

@WebSocketGateway({ verifyClient: ({ req }: { req: IncomingMessage }) => isOpen(req) } as object)
class StrictByWs extends Desk {}

@WebSocketGateway({
  allowRequest: (request: IncomingMessage, done: (error: null, isOpen: boolean) => void) => done(null, isOpen(request)),
})
class StrictByIo extends Desk {}

/** Another one at the same server. */
@WebSocketGateway()
class Counter {
  @ExclusiveSession() @SubscribeMessage('exclusive') async exclusive(@Session() session: Session) {
    const count = (session['count'] as number | undefined) ?? 0;
    await new Promise((resolve) => setImmediate(resolve));
    return answer((session['count'] = count + 1));
  }
}

@Controller()
class Pages {
  constructor(
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('login') login(@Query('user') user: string) {
    return this.identity.login(user);
  }
  @Get('reauthenticate') reauthenticate() {
    return this.identity.reauthenticate();
  }
  @Get('logout') logout() {
    return this.identity.logout();
  }
  @Get('renew') renew() {
    return this.visits.renew();
  }
  @Get('keep') keep(@Query('count') count: string) {
    this.session['count'] = Number(count);
  }
  @Get('count') count() {
    return String(this.session['count'] ?? 0);
  }
  @Get('me') me() {
    return String(this.identity.userId);
  }
}

const transports: [Transport, PlatformName][] = [
  ['ws', 'express'],
  ['socket.io', 'fastify'],
];

describe.each(transports)('Gateways by %s under %s', (transport, platform) => {
  const watched = new WatchedStore();
  const clock = new ManualClock();
  const running: RunningApp[] = [];
  const clients: SocketClient[] = [];
  const start = async (
    options: VisitSettings & Partial<VisitsInStore> = {},
    providers: Provider[] = [Desk, Counter],
    adapterFor = (nest: INestApplication): WebSocketAdapter =>
      transport === 'ws' ? new WsAdapter(nest) : new IoAdapter(nest),
  ): Promise<RunningApp> => {
    const app = await startApp(
      platform,
      { store: watched.store, clock, timeout: '20m', csrf: { trustedOrigins: ['https://friend.example'] }, ...options },
      { controllers: [Pages], providers },
      (nest) => void nest.useWebSocketAdapter(adapterFor(nest)),
    );
    running.push(app);
    return app;
  };
  let app: RunningApp;
  beforeAll(async () => {
    app = await start();
  });
  beforeEach(() => {
    clock.advance(60_000);
    watched.calls.length = 0;
    opened.length = 0;
  });
  afterEach(() => {
    watched.pass();
    for (const client of clients.splice(0)) client.leave();
  });
  afterAll(() => Promise.all(running.map((one) => one.close())));

  const signIn = async (user = 'ann', at = app): Promise<Browser> => {
    const browser = at.browser();
    expect((await browser.get(`/login?user=${user}`)).status).toBe(200);
    return browser;
  };
  const open = async (browser?: Browser, headers?: Record<string, string>, at = app): Promise<SocketClient> => {
    const client = await connect(transport, at.address, browser, headers);
    clients.push(client);
    return client;
  };
  const run = async (client: SocketClient, act: string): Promise<unknown> => {
    const { event, data } = await client.ask('run', act);
    return event === 'answer' ? (data as unknown) : { event, data: data as unknown };
  };
  const check = (at = app): Promise<void> => at.app.get(OpenStreams, { strict: false }).check();
  const openVisits = (at = app): number => at.app.get(OpenStreams, { strict: false }).size;
  const error = (code: string, statusCode: number) => ({
    event: 'exception',
    data: { status: 'error', statusCode, code, message: expect.any(String) as string },
  });

  test('decorators, guards and injected services know the visit of the handshake', async () => {
    const ann = await signIn();
    await ann.get('/keep?count=5');
    const client = await open(ann);
    expect((await client.ask('decorated')).data).toEqual({
      count: 5,
      visit: ann.jar.get('visit')!.slice(0, 32),
      user: 'ann',
    });
    expect(await client.ask('guarded')).toEqual(answer('let in'));
    expect(await run(client, 'user')).toBe('ann');
    expect(await run(client, 'verify')).toBe('ann');
    expect(await opened[0]!.user).toBe('ann');
    const anonymous = await open();
    expect((await anonymous.ask('decorated')).data).toMatchObject({ user: null });
    expect(await anonymous.ask('guarded')).toEqual(error('VISIT_IDENTITY_REQUIRED', 401));
    expect(await client.ask('skipped')).toEqual(error('VISIT_NOT_RESOLVED', 500));
  });

  test('a key in a header of the handshake opens a connection from any origin, if the option is set', async () => {
    const [native, browsers] = [await start({ source: 'cookie, header' }), app];
    const { key } = await native.app.get(VisitService).create({ userId: 'ann' });
    const headers = { authorization: `Bearer ${key}` };
    const client = await open(undefined, { ...headers, origin: 'https://evil.example' }, native);
    expect([await run(client, 'user'), await run(client, 'verify')]).toEqual(['ann', 'ann']);
    expect(await run(await open(undefined, headers, browsers), 'user')).toBe(null);
    const both = open(await signIn('bob', native), { ...headers, origin: 'https://evil.example' }, native);
    await expect(both).rejects.toThrow('403');
    await native.app.get(VisitService).end(key.slice(0, 32), 'revoked', { anyUser: true });
    expect(await client.closed).toBe(4401);
  });

  test('each message sees the newest session, and its changes are saved before its response', async () => {
    const ann = await signIn();
    const client = await open(ann);
    watched.around = async (_call, go) => (await new Promise((resolve) => setImmediate(resolve)), go());
    for (let count = 1; count < 40; count += 2) {
      await ann.get(`/keep?count=${count}`);
      expect(await run(client, 'add')).toBe(count + 1);
      expect((await ann.get('/count')).text).toBe(String(count + 1));
    }
    expect(await run(client, 'update')).toBe(41);
    client.send('several');
    await expect.poll(() => client.heard.map(({ data }) => data as number), { timeout: PATIENCE }).toEqual([1, 2, 3]);
  });

  test('law 7: a failed save is reported instead of the response, with its code', async () => {
    const ann = await signIn();
    const client = await open(ann);
    expect(await client.ask('bad')).toEqual(error('SESSION_VALUE', 500));
    expect(await run(client, 'count')).toBe(null);
    watched.away('save');
    expect(await run(client, 'add')).toEqual(error('VISIT_STORE_UNAVAILABLE', 503));
    watched.away('find');
    expect(await client.ask('guarded')).toEqual(error('VISIT_STORE_UNAVAILABLE', 503));
    watched.pass();
    expect(await run(client, 'count')).toBe(null);
  });

  test('law 8: concurrent messages of many clients each act for their own visit', async () => {
    watched.around = async (_call, go) => (
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 3)),
      go()
    );
    const users = ['ann', 'bob', 'eve', 'joe'];
    const all = await Promise.all(users.map(async (user) => open(await signIn(user))));
    const asked = all.flatMap((client) => Array.from({ length: 10 }, () => run(client, 'user')));
    expect(await Promise.all(asked)).toEqual(users.flatMap((user) => Array.from({ length: 10 }, () => user)));
  });

  test('law 8: handlers that are called back for another client act for their own, or throw', async () => {
    const [ann, bob] = [await open(await signIn('ann')), await open(await signIn('bob'))];
    const all = Promise.all([ann.ask('together'), bob.ask('together')]);
    const notKnown = error('VISIT_NOT_RESOLVED', 500);
    const own = (user: string) => answer({ parameter: user, injected: user });
    // Which of the two came first is not said.
    expect([
      [notKnown, own('bob')],
      [own('ann'), notKnown],
    ]).toContainEqual(await all);

    const around = await start({}, [Desk, { provide: APP_INTERCEPTOR, useFactory: () => new Together(['whose']) }]);
    const [eve, joe] = [
      await open(await signIn('eve', around), {}, around),
      await open(await signIn('joe', around), {}, around),
    ];
    expect(await Promise.all([eve.ask('whose'), joe.ask('whose')])).toEqual([own('eve'), own('joe')]);
  });

  test('a message cannot end a visit of another user', async () => {
    const ann = await signIn();
    anothers.id = ann.jar.get('visit')!.slice(0, 32);
    for (const client of [await open(), await open(await signIn('bob'))])
      expect(await run(client, 'end of another')).toBe(false);
    expect((await ann.get('/me')).text).toBe('ann');
  });

  test('messages of one client start in order, and exclusive ones run one after the other', async () => {
    const ann = await signIn();
    const client = await open(ann);
    await ann.get('/keep?count=0');
    let calls = 0;
    // The first look-up is the slowest.
    watched.around = async (_call, go) => (
      await new Promise((resolve) => setTimeout(resolve, calls++ === 0 ? 30 : 0)),
      go()
    );
    const answers = await Promise.all(Array.from({ length: 5 }, () => client.ask('exclusive')));
    expect(answers.map(({ data }) => data as number)).toEqual([1, 2, 3, 4, 5]);
  });

  test('a message cannot sign in, renew a key or begin a visit, because it has no response for the key', async () => {
    const client = await open(await signIn());
    for (const act of ['login', 'reauthenticate', 'renew'])
      expect(await run(client, act), act).toEqual(error('VISIT_NO_RESPONSE', 500));
    expect(await run(client, 'user')).toBe('ann');
    const anonymous = await open();
    for (const act of ['login', 'add', 'update'])
      expect(await run(anonymous, act), act).toEqual(error('VISIT_NO_RESPONSE', 500));
    expect(watched.calls.filter((call) => call === 'create')).toHaveLength(1);
  });

  test('a message counts as use, unless it is passive', async () => {
    for (const [event, isAlive] of [
      ['run', true],
      ['passive', false],
    ] as const) {
      const ann = await signIn();
      const client = await open(ann);
      clock.advance(15 * 60_000);
      expect((await client.ask(event, 'user')).data).toBe('ann');
      clock.advance(15 * 60_000);
      expect((await ann.get('/me')).text, event).toBe(isAlive ? 'ann' : 'null');
      expect((await client.ask(event, 'user')).data, event).toBe(isAlive ? 'ann' : 4401);
    }
  });

  test.each([
    ['a sign-out', '/logout'],
    ['a sign-in as another user', '/login?user=eve'],
    ['a sign-in again, whose key alone has rights from then on', '/reauthenticate'],
  ])('closes immediately with its visit in the same process: by %s', async (_, path) => {
    const ann = await signIn();
    const [one, two] = [await open(ann), await open(ann)];
    await Promise.all([run(one, 'user'), run(two, 'user')]);
    expect((await ann.clone().get(path)).status).toBe(200);
    expect(await Promise.all([one.closed, two.closed])).toEqual([4401, 4401]);
    expect(openVisits()).toBe(0);
  });

  test('closes when its visit was ended on another machine or expired, or its key was replaced long ago', async () => {
    const other = await start();
    const [ann, bob, eve, joe] = [await signIn('ann'), await signIn('bob'), await signIn('eve'), await signIn('joe')];
    const [ended, expired, renewed, left] = [await open(ann), await open(bob), await open(eve), await open(joe)];
    await Promise.all([ended, expired, renewed, left].map((client) => run(client, 'user')));
    await other.app.get(VisitService).endAllForUser('ann');
    await eve.get('/renew');
    watched.calls.length = 0;
    await check();
    expect(await ended.closed).toBe(4401);
    expect([expired.hasClosed(), renewed.hasClosed(), left.hasClosed()]).toEqual([false, false, false]);
    expect(watched.calls.filter((call) => call === 'find')).toHaveLength(1);
    await eve.get('/me');
    clock.advance(31_000);
    expect(await renewed.ask('run', 'user')).toEqual({ event: 'closed', data: 4401 });
    clock.advance(19 * 60_000);
    await run(left, 'user');
    clock.advance(60_000);
    await check();
    expect(await expired.closed).toBe(4401);
    expect(left.hasClosed()).toBe(false);
  });

  test('closes without a message, within `streams.interval`, when another machine ends its visit', async () => {
    const [here, other] = [await start({ streams: { interval: '20ms' } }), await start()];
    const client = await open(await signIn('ann', here), {}, here);
    await run(client, 'user');
    await other.app.get(VisitService).endAllForUser('ann');
    expect(await client.closed).toBe(4401);
  });

  test('serves no message of a visit that has ended elsewhere, but closes', async () => {
    const other = await start();
    const client = await open(await signIn());
    await run(client, 'user');
    await other.app.get(VisitService).endAllForUser('ann');
    expect(await client.ask('passive')).toEqual({ event: 'closed', data: 4401 });
  });

  test('closes when the store fails at the handshake, or twice in a row', async () => {
    const ann = await signIn();
    const client = await open(ann);
    await run(client, 'user');
    watched.away('find');
    await check();
    expect(client.hasClosed()).toBe(false);
    await check();
    expect(await client.closed).toBe(4401);
    expect(await (await open(ann)).closed).toBe(1013);
  });

  test('closed connections are forgotten, and nothing is looked up if none is open', async () => {
    const ann = await signIn();
    const client = await open(ann);
    await run(client, 'user');
    expect(openVisits()).toBe(1);
    client.leave();
    await expect.poll(() => openVisits(), { timeout: PATIENCE }).toBe(0);
    watched.calls.length = 0;
    await check();
    expect(watched.calls).toEqual([]);
  });

  describe('cross-site WebSocket hijacking', () => {
    test.each([
      ['another site', { origin: 'https://evil.example' }],
      ['a neighbor', { origin: 'https://neighbor.example', 'sec-fetch-site': 'same-site' }],
      ['a sandboxed frame', { origin: 'null' }],
    ])(
      'a connection that %s opens with the cookie of its visitor is refused with 403, without a socket',
      async (_, headers) => {
        await expect(open(await signIn(), headers)).rejects.toThrow('403');
        expect(opened).toEqual([]);
      },
    );

    test('a connection that another adapter accepted reaches no handler', async () => {
      const own = await start({}, [Desk], (nest) => {
        const adapter = transport === 'ws' ? new WsAdapter(nest) : new IoAdapter(nest);
        const create = adapter.create.bind(adapter) as (port: number, options: object) => never;
        adapter.create = (port: number, options: object) =>
          create(port, { ...options, verifyClient: undefined, allowRequest: undefined });
        return adapter;
      });
      const client = await open(await signIn('ann', own), { origin: 'https://evil.example' }, own);
      expect(await client.closed).toBe(4403);
      expect(opened).toEqual([]);
    });

    test("the application's own check of handshakes applies, too", async () => {
      const strict = await start({}, [transport === 'ws' ? StrictByWs : StrictByIo]);
      const ann = await signIn('ann', strict);
      await expect(open(ann, { 'x-way': 'closed' }, strict)).rejects.toThrow(transport === 'ws' ? '401' : '400');
      await expect(open(ann, { 'x-way': 'open', origin: 'https://evil.example' }, strict)).rejects.toThrow('403');
      expect(await run(await open(ann, { 'x-way': 'open' }, strict), 'user')).toBe('ann');
    });

    test('this site, trusted ones and non-browsers are allowed; others only without a cookie', async () => {
      const ann = await signIn();
      for (const origin of [app.address, 'https://friend.example', undefined])
        expect(await run(await open(ann, origin ? { origin } : {}), 'user')).toBe('ann');
      expect(await run(await open(undefined, { origin: 'https://evil.example' }), 'user')).toBe(null);
    });
  });

  test('an invalid key identifies nobody, and is reported once', async () => {
    const ann = await signIn();
    await ann.clone().get('/logout');
    clock.advance(60_000);
    const client = await open(ann);
    expect(await run(client, 'user')).toBe(null);
    expect(openVisits()).toBe(0);
  });

  test('a visit in sealed cookies can be read by messages, but not changed', async () => {
    const store = new SealedCookieVisitStore({ secrets: ['a'.repeat(64)] });
    const sealed = await start({ store }, [Desk]);
    const ann = await signIn('ann', sealed);
    await ann.get('/keep?count=3');
    const client = await open(ann, undefined, sealed);
    expect([await run(client, 'user'), await run(client, 'count')]).toEqual(['ann', 3]);
    for (const act of ['add', 'update']) expect(await run(client, act), act).toEqual(error('VISIT_NO_RESPONSE', 500));
    await check(sealed);
    expect(await run(client, 'user')).toBe('ann');
    clock.advance(21 * 60_000);
    await check(sealed);
    expect(await client.closed).toBe(4401);
    expect(store.size).toBe(0);
  });
});

test.each([
  ['ws', 'fastify'],
  ['socket.io', 'express'],
] as const)('handshakes of other sites are refused by %s under %s, even by polling', async (transport, platform) => {
  const app = await startApp(
    platform,
    { store: new MemoryVisitStore() },
    { controllers: [Pages], providers: [Desk] },
    (nest) => void nest.useWebSocketAdapter(transport === 'ws' ? new WsAdapter(nest) : new IoAdapter(nest)),
  );
  try {
    const ann = app.browser();
    await ann.get('/login?user=ann');
    const foreign = { origin: 'https://evil.example' };
    await expect(connect(transport, app.address, ann, foreign)).rejects.toThrow('403');
    if (transport === 'socket.io') {
      const polling = '/socket.io/?EIO=4&transport=polling';
      expect([(await ann.get(polling, { headers: foreign })).status, (await ann.get(polling)).status]).toEqual([
        403, 200,
      ]);
    }
    const client = await connect(transport, app.address, ann, { origin: app.address });
    expect((await client.ask('run', 'user')).data).toBe('ann');
    client.leave();
  } finally {
    await app.close();
  }
});

test('open sockets do not prevent an application from closing', async () => {
  const app = await startApp(
    'express',
    { store: new MemoryVisitStore() },
    { controllers: [Pages], providers: [Desk] },
    (nest) => void nest.useWebSocketAdapter(new WsAdapter(nest)),
  );
  const ann = app.browser();
  await ann.get('/login?user=ann');
  const client = await connect('ws', app.address, ann);
  await client.ask('run', 'user');
  await app.close();
  await client.closed;
  expect(app.app.get(OpenStreams, { strict: false }).size).toBe(0);
});
