import { once } from 'node:events';
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo';
import { Injectable } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import {
  Args,
  Field,
  GraphQLModule,
  Int,
  Mutation,
  ObjectType,
  Query,
  ResolveField,
  Resolver,
  Subscription,
} from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import {
  CsrfGuard,
  CurrentUserId,
  CurrentVisit,
  IdentityService,
  RequireIdentity,
  Session,
  SkipVisit,
  VisitService,
  type VisitSettings,
} from 'nest-visit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { OpenStreams } from '../../lib/visit/open-streams.js';
import type { PlatformName } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { PATIENCE } from '../support/patience.js';
import { WatchedStore } from '../support/watched-store.js';

/** What subscriptions are fed with. */
@Injectable()
class Feed {
  readonly readers = new Set<(text: string) => void>();

  publish(text: string): void {
    for (const read of this.readers) read(text);
  }

  /** Those of one subscription, until it ends. */
  events(): AsyncIterableIterator<{ text: string }> {
    const waiting: ((result: IteratorResult<{ text: string }>) => void)[] = [];
    const texts: string[] = [];
    const read = (text: string): void => {
      const next = waiting.shift();
      if (next) next({ done: false, value: { text } });
      else texts.push(text);
    };
    this.readers.add(read);
    return {
      next: () => new Promise((resolve) => (waiting.push(resolve), texts.length > 0 && read(texts.shift()!))),
      return: () => {
        this.readers.delete(read);
        for (const next of waiting.splice(0)) next({ done: true, value: undefined });
        return Promise.resolve({ done: true, value: undefined });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}

@ObjectType()
class News {
  @Field(() => String) text!: string;
  @Field(() => String, { nullable: true }) user!: string | null;
  @Field(() => String, { nullable: true }) injected!: string | null;
  @Field(() => Int) count!: number;
  @Field(() => Int) change!: number;
  @Field(() => Int) updated!: number;
}

const countIn = (session: Session): number => (session['count'] as number | undefined) ?? 0;

@Resolver(() => News)
class NewsResolver {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly feed: Feed,
  ) {}

  @ResolveField(() => String, { nullable: true }) user(@CurrentUserId() id: string | null) {
    return id;
  }
  @ResolveField(() => String, { nullable: true }) injected() {
    return this.identity.userId;
  }
  @ResolveField(() => Int) count(@Session() session: Session) {
    return countIn(session);
  }
  @ResolveField(() => Int) change(@Session() session: Session) {
    return (session['count'] = 99);
  }
  @ResolveField(() => Int) async updated(@Session() session: Session) {
    return session.update('count', (count) => ((count as number | undefined) ?? 0) + 1);
  }

  @Subscription(() => News, { resolve: (event: object) => event }) news() {
    return this.feed.events();
  }

  @RequireIdentity()
  @Subscription(() => String, { resolve: ({ text }: News) => text })
  guarded() {
    return this.feed.events();
  }

  /** Reads in the generator itself, which runs when each event is asked for. */
  @Subscription(() => String, {
    resolve: (text: string) => text,
    filter: (text: string) => !text.endsWith('kept back'),
  })
  async *generated(@CurrentVisit() visit: CurrentVisit) {
    for await (const { text } of this.feed.events()) yield `${visit.id} ${this.identity.userId} ${text}`;
  }

  @SkipVisit() @Subscription(() => News, { resolve: (event: object) => event }) skipped() {
    return this.feed.events();
  }

  @Query(() => String, { nullable: true }) me() {
    return this.identity.userId;
  }
  @Query(() => News) piece() {
    return { text: 'one' };
  }
  @Mutation(() => Int) add(@Session() session: Session) {
    return (session['count'] = countIn(session) + 1);
  }
  @Mutation(() => Boolean) async login(@Args('user') user: string) {
    await this.identity.login(user);
    return true;
  }
  @Mutation(() => Boolean) async logout() {
    await this.identity.logout();
    return true;
  }
  @Query(() => String) async resolved() {
    return this.visits.current().id;
  }
}

const apollo = () =>
  GraphQLModule.forRoot<ApolloDriverConfig>({
    driver: ApolloDriver,
    autoSchemaFile: true,
    subscriptions: { 'graphql-ws': true },
    csrfPrevention: false,
  });
const drivers: [name: string, platform: PlatformName, graphql: () => ReturnType<typeof GraphQLModule.forRoot>][] = [
  ['Apollo on Express', 'express', apollo],
  ['Apollo on Fastify', 'fastify', apollo],
  [
    'Mercurius',
    'fastify',
    () =>
      GraphQLModule.forRoot<MercuriusDriverConfig>({
        driver: MercuriusDriver,
        autoSchemaFile: true,
        subscription: { fullWsTransport: true },
      }),
  ],
];

interface Result {
  readonly data?: Record<string, unknown> | null;
  readonly errors?: readonly { readonly message: string; readonly extensions?: { readonly code?: string } }[];
}

/** A client of graphql-ws, which says what comes. */
class Client {
  private readonly heard = new Map<string, (Result | 'complete')[]>();
  private readonly asked = new Map<string, (result: Result | 'complete') => void>();
  private operations = 0;
  readonly closed: Promise<number>;

  private constructor(private readonly socket: WebSocket) {
    this.closed = once(socket, 'close').then(([code]) => code as number);
    socket.on('message', (text: Buffer) => {
      const { id, type, payload } = JSON.parse(text.toString()) as { id?: string; type: string; payload?: unknown };
      if (id === undefined) return;
      this.hear(
        id,
        type === 'complete'
          ? 'complete'
          : type === 'error'
            ? { errors: payload as Result['errors'] }
            : (payload as Result),
      );
    });
  }

  static async open(address: string, headers: Record<string, string>): Promise<Client> {
    const socket = new WebSocket(`${address.replace('http', 'ws')}/graphql`, 'graphql-transport-ws', { headers });
    const client = new Client(socket);
    await once(socket, 'open');
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    return client;
  }

  /**
   * Begins an operation.
   *
   * @returns what asks for the next result of it; "closed": the connection was, before there was one
   */
  begin(query: string): () => Promise<Result | 'complete' | 'closed'> {
    const id = String(++this.operations);
    this.heard.set(id, []);
    this.socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query } }));
    return () => {
      const result = this.heard.get(id)!.shift();
      if (result) return Promise.resolve(result);
      return Promise.race([
        new Promise<Result | 'complete'>((resolve) => this.asked.set(id, resolve)),
        this.closed.then(() => 'closed' as const),
      ]);
    };
  }

  leave(): void {
    this.socket.terminate();
  }

  private hear(id: string, result: Result | 'complete'): void {
    const ask = this.asked.get(id);
    this.asked.delete(id);
    if (ask) ask(result);
    else this.heard.get(id)?.push(result);
  }
}

describe.each(drivers)('GraphQL on sockets by %s', (_, platform, graphql) => {
  const watched = new WatchedStore();
  const clock = new ManualClock();
  const apps: InlineApp[] = [];
  const clients: Client[] = [];
  const start = async (options: VisitSettings = {}): Promise<InlineApp> => {
    const one = await InlineApp.start(
      platform,
      { store: watched.store, clock, timeout: '20m', source: 'cookie, header', ...options },
      { imports: [graphql()], providers: [NewsResolver, Feed, { provide: APP_GUARD, useExisting: CsrfGuard }] },
    );
    apps.push(one);
    return one;
  };
  let app: InlineApp;
  let feed: Feed;
  beforeAll(async () => {
    app = await start();
    feed = app.running.app.get(Feed, { strict: false });
  });
  beforeEach(() => clock.advance(60_000));
  afterEach(async () => {
    watched.pass();
    for (const client of clients.splice(0)) client.leave();
    // A generator that waits for an event hears of its end with the next one.
    const quiet = (): void => {
      feed.publish('last');
      if (feed.readers.size > 0) throw new Error('subscriptions go on');
    };
    await vi.waitFor(quiet, { timeout: PATIENCE, interval: 1 });
  });
  afterAll(() => Promise.all(apps.map((one) => one.close())));

  const signIn = async (user: string): Promise<Browser> => {
    const browser = app.browser();
    await app.ask(browser, ({ identity }) => identity.login(user));
    return browser;
  };
  const open = async (browser?: Browser, headers: Record<string, string> = {}): Promise<Client> => {
    const cookie = browser?.jar.get('visit');
    const client = await Client.open(app.running.address, { ...(cookie && { cookie: `visit=${cookie}` }), ...headers });
    clients.push(client);
    return client;
  };
  /** A subscription that has begun. */
  const subscribe = async (client: Client, query: string) => {
    const before = feed.readers.size;
    const next = client.begin(`subscription { ${query} }`);
    await expect.poll(() => feed.readers.size, { timeout: PATIENCE, interval: 1 }).toBe(before + 1);
    return next;
  };
  const one = async (client: Client, query: string) => client.begin(query)();
  const code = (name: string) => ({ errors: [{ extensions: { code: name } }] });
  const check = (): Promise<void> => app.running.app.get(OpenStreams, { strict: false }).check();

  test('resolvers of events have the visit of the handshake, with the newest session', async () => {
    const ann = await signIn('ann');
    const client = await open(ann);
    const next = await subscribe(client, 'news { text user injected count }');
    for (let count = 0; count < 3; count++) {
      await app.ask(ann, ({ session }) => void (session['count'] = count));
      feed.publish('one');
      expect(await next()).toEqual({ data: { news: { text: 'one', user: 'ann', injected: 'ann', count } } });
    }
    const generated = await subscribe(client, 'generated');
    for (const text of ['one', 'kept back', 'two']) feed.publish(text);
    const id = ann.jar.get('visit')!.slice(0, 32);
    for (const text of ['one', 'two']) expect(await generated()).toEqual({ data: { generated: `${id} ann ${text}` } });
    expect(await one(await open(), '{ me }')).toEqual({ data: { me: null } });
  });

  test('law 8: concurrent events for many clients each belong to their own visit', async () => {
    const users = ['ann', 'bob', 'eve', 'joe'];
    const asked: (() => Promise<unknown>)[] = [];
    for (const user of users) asked.push(await subscribe(await open(await signIn(user)), 'news { user injected }'));
    // Published in the request of somebody else.
    for (let count = 0; count < 5; count++) {
      await app.ask(await signIn('max'), () => feed.publish('one'));
      expect(await Promise.all(asked.map((next) => next()))).toEqual(
        users.map((user) => ({ data: { news: { user, injected: user } } })),
      );
    }
  });

  test('guards apply, and errors have their codes', async () => {
    const client = await open();
    expect(await one(client, 'subscription { guarded }')).toMatchObject(code('VISIT_IDENTITY_REQUIRED'));
    const ann = await open(await signIn('ann'));
    const next = await subscribe(ann, 'guarded');
    feed.publish('one');
    expect(await next()).toEqual({ data: { guarded: 'one' } });
    const skipped = await subscribe(ann, 'skipped { injected }');
    feed.publish('two');
    expect(await skipped()).toMatchObject(code('VISIT_NOT_RESOLVED'));
  });

  test('queries and mutations are served like messages: changes are saved, and signing in is refused', async () => {
    const ann = await signIn('ann');
    const client = await open(ann);
    expect(await one(client, '{ me piece { user injected count } resolved }')).toEqual({
      data: {
        me: 'ann',
        piece: { user: 'ann', injected: 'ann', count: 0 },
        resolved: ann.jar.get('visit')!.slice(0, 32),
      },
    });
    for (const count of [1, 2]) {
      expect(await one(client, 'mutation { add }')).toEqual({ data: { add: count } });
      expect(await app.ask(ann, ({ session }) => session['count'])).toBe(count);
    }
    expect(await one(client, 'mutation { a: add b: add }')).toEqual({ data: { a: 3, b: 4 } });
    expect(await one(client, 'mutation { login(user: "eve") }')).toMatchObject(code('VISIT_NO_RESPONSE'));
    expect(await one(client, '{ me }')).toEqual({ data: { me: 'ann' } });
    watched.away('save');
    expect(await one(client, 'mutation { add }')).toMatchObject(code('VISIT_STORE_UNAVAILABLE'));
    watched.pass();
    expect(await one(client, 'mutation { logout }')).toBe('closed');
    expect(await client.closed).toBe(4401);
  });

  test('a change that would not be saved is refused, and updates are saved immediately', async () => {
    const ann = await signIn('ann');
    const client = await open(ann);
    for (const count of [1, 2]) {
      expect(await one(client, '{ piece { change } }')).toMatchObject(code('VISIT_HEADERS_SENT'));
      expect(await one(client, 'mutation { add }')).toEqual({ data: { add: count } });
    }
    const next = await subscribe(client, 'news { change }');
    const updates = await subscribe(client, 'news { updated }');
    feed.publish('one');
    expect(await next()).toMatchObject(code('VISIT_HEADERS_SENT'));
    expect(await updates()).toEqual({ data: { news: { updated: 3 } } });
    expect(await app.ask(ann, ({ session }) => session['count'])).toBe(3);
  });

  test('no event is sent after another machine has ended the visit, and the socket is closed', async () => {
    const other = await start();
    const ann = await signIn('ann');
    const client = await open(ann);
    const next = await subscribe(client, 'news { text }');
    feed.publish('one');
    expect(await next()).toEqual({ data: { news: { text: 'one' } } });
    await other.running.app.get(VisitService).endAllForUser('ann');
    feed.publish('two');
    expect([await next(), await client.closed]).toEqual(['closed', 4401]);
  });

  test('closes with its visit: immediately in this process, otherwise by the look-up for all streams', async () => {
    const [ann, bob, eve] = [await signIn('ann'), await signIn('bob'), await signIn('eve')];
    const [out, renewed, expired] = [await open(ann), await open(bob), await open(eve)];
    for (const client of [out, renewed, expired]) await subscribe(client, 'news { text }');
    await app.ask(ann, ({ identity }) => identity.logout());
    expect(await out.closed).toBe(4401);
    await app.ask(bob, ({ identity }) => identity.reauthenticate());
    expect(await renewed.closed).toBe(4401);
    clock.advance(21 * 60_000);
    await check();
    expect(await expired.closed).toBe(4401);
  });

  test('no event is sent while its visit is unknown; the client may try again', async () => {
    const client = await open(await signIn('ann'));
    const next = await subscribe(client, 'news { text }');
    watched.away('find');
    feed.publish('one');
    expect([await next(), await client.closed]).toEqual(['closed', 1013]);
  });

  test('another site gets nothing with the cookie of its visitor; a key in a header is always accepted', async () => {
    const ann = await signIn('ann');
    const headers = { origin: 'https://evil.example' };
    const foreign = await open(ann, headers);
    expect([await one(foreign, '{ me }'), await foreign.closed]).toEqual(['closed', 4403]);
    const native = await open(undefined, { ...headers, authorization: `Bearer ${ann.jar.get('visit')!}` });
    expect(await one(native, '{ me }')).toEqual({ data: { me: 'ann' } });
    const next = await subscribe(await open(undefined, headers), 'news { text user }');
    feed.publish('one');
    expect(await next()).toEqual({ data: { news: { text: 'one', user: null } } });
  });
});
