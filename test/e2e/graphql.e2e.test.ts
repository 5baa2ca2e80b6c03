import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo';
import { Injectable } from '@nestjs/common';
import { Args, Field, GraphQLModule, Int, Mutation, ObjectType, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import {
  CurrentUserId,
  CurrentVisit,
  ExclusiveSession,
  IdentityService,
  PassiveVisit,
  RequireIdentity,
  Session,
  SkipVisit,
  VisitService,
} from 'nest-visit';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { PlatformName } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { WatchedStore } from '../support/watched-store.js';

@ObjectType()
class Item {
  @Field(() => String)
  visitId!: string;
  @Field(() => String, { nullable: true })
  user!: string | null;
  @Field(() => Int)
  count!: number;
  @Field(() => String)
  secret!: string;
}

@Injectable()
class Counter {
  constructor(private readonly session: Session) {}

  add(): number {
    return (this.session['count'] = ((this.session['count'] as number | undefined) ?? 0) + 1);
  }
}

/** Holds the field `slow` until a test lets it go. */
const held = { arrive: (): void => undefined, arrived: Promise.resolve(), gate: Promise.resolve() };

@Resolver(() => Item)
class ItemResolver {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly counter: Counter,
  ) {}

  @Query(() => Item)
  item(@CurrentVisit() visit: CurrentVisit) {
    return { visitId: visit.id };
  }

  @Query(() => [Item])
  items(@CurrentVisit() visit: CurrentVisit) {
    return [{ visitId: visit.id }, { visitId: this.visits.current().id }];
  }

  @ResolveField(() => String, { nullable: true })
  user(@CurrentUserId() id: string | null) {
    return id;
  }

  @ResolveField(() => Int)
  count(@Session() session: Session) {
    return (session['count'] as number | undefined) ?? 0;
  }

  @RequireIdentity()
  @ResolveField(() => String)
  secret() {
    return 'secret';
  }

  @RequireIdentity()
  @Query(() => String)
  me() {
    return this.identity.userId;
  }

  @SkipVisit()
  @Query(() => String)
  skipped() {
    try {
      return this.visits.current().id;
    } catch (error) {
      return (error as { code: string }).code;
    }
  }

  @PassiveVisit()
  @Query(() => Int)
  glance(@Session() session: Session) {
    return (session['count'] as number | undefined) ?? 0;
  }

  @Mutation(() => Int)
  add() {
    return this.counter.add();
  }

  @Mutation(() => Int)
  keep(@Args('value', { type: () => Int }) value: number, @Session() session: Session) {
    session['count'] = value;
    return value;
  }

  @Mutation(() => Int)
  bad(@Session() session: Session) {
    session['bad'] = () => 1;
    return 1;
  }

  @Mutation(() => Boolean)
  async login() {
    await this.identity.login('ann');
    return true;
  }

  @Mutation(() => Boolean)
  async logout() {
    await this.identity.logout();
    return true;
  }

  @Query(() => Int)
  async beside(@Session() session: Session) {
    await held.arrived;
    return session['count'] as number;
  }

  @ExclusiveSession()
  @Query(() => Int)
  async slow(@Session() session: Session) {
    const count = session['count'] as number;
    held.arrive();
    await held.gate;
    return (session['count'] = count + 1);
  }

  @ExclusiveSession()
  @Mutation(() => Int)
  async exclusive(@Session() session: Session) {
    const count = (session['count'] as number | undefined) ?? 0;
    await new Promise((resolve) => setImmediate(resolve));
    return (session['count'] = count + 1);
  }
}

const drivers: [name: string, platform: PlatformName, graphql: () => ReturnType<typeof GraphQLModule.forRoot>][] = [
  [
    'Apollo on Express',
    'express',
    () =>
      GraphQLModule.forRoot<ApolloDriverConfig>({
        driver: ApolloDriver,
        autoSchemaFile: true,
        fieldResolverEnhancers: ['guards'],
        csrfPrevention: false,
        allowBatchedHttpRequests: true,
      }),
  ],
  [
    'Apollo on Fastify',
    'fastify',
    () =>
      GraphQLModule.forRoot<ApolloDriverConfig>({
        driver: ApolloDriver,
        autoSchemaFile: true,
        fieldResolverEnhancers: ['guards'],
        csrfPrevention: false,
        allowBatchedHttpRequests: true,
      }),
  ],
  [
    'Mercurius',
    'fastify',
    () =>
      GraphQLModule.forRoot<MercuriusDriverConfig>({
        driver: MercuriusDriver,
        autoSchemaFile: true,
        fieldResolverEnhancers: ['guards'],
        allowBatchedQueries: true,
      }),
  ],
];

describe.each(drivers)('GraphQL by %s', (_, platform, graphql) => {
  let app: InlineApp;
  const watched = new WatchedStore();
  const clock = new ManualClock();
  beforeAll(async () => {
    app = await InlineApp.start(
      platform,
      { store: watched.store, clock, timeout: '30m', source: 'cookie, header' },
      { imports: [graphql()], providers: [ItemResolver, Counter] },
    );
  });
  afterAll(() => app.close());
  afterEach(() => watched.pass());

  const ask = async (browser: Browser, query: string) => {
    const answer = await browser.post('/graphql', { json: { query } });
    const { data, errors } = JSON.parse(answer.text) as { data?: Record<string, any>; errors?: { message: string }[] };
    return { data, errors, status: answer.status, cookies: answer.cookies };
  };

  test('session, visit, identity, decorators and guards work in resolvers and field resolvers', async () => {
    const browser = app.browser();
    expect((await ask(browser, 'mutation { add }')).data).toEqual({ add: 1 });
    const { data } = await ask(browser, '{ item { visitId user count } items { visitId count } }');
    expect(data!['item']).toMatchObject({ user: null, count: 1 });
    expect(new Set([data!['item'].visitId, ...data!['items'].map((one: Item) => one.visitId)]).size).toBe(1);
    expect((await ask(browser, '{ me }')).errors).toHaveLength(1);
    expect((await ask(browser, '{ item { secret } }')).errors).toHaveLength(1);
    const login = await ask(browser, 'mutation { login }');
    expect([login.data, login.cookies.length]).toEqual([{ login: true }, 1]);
    expect((await ask(browser, '{ me item { user secret count } }')).data).toEqual({
      me: 'ann',
      item: { user: 'ann', secret: 'secret', count: 1 },
    });
    expect((await ask(browser, 'mutation { logout }')).cookies[0]).toMatch(/max-age=0/i);
    expect((await ask(browser, '{ me }')).errors).toHaveLength(1);
  });

  test('a client that stores its own key gets a new one in a header', async () => {
    const { key } = await app.ask(app.browser(), async ({ visits }) => visits.create());
    const post = (own: string, query: string) =>
      app.browser().post('/graphql', { json: { query }, headers: { authorization: `Bearer ${own}` } });
    await post(key, 'mutation { add }');
    const login = await post(key, 'mutation { login }');
    const next = login.headers.get('visit-key')!;
    expect([login.cookies, next.slice(0, 32)]).toEqual([[], key.slice(0, 32)]);
    expect(JSON.parse((await post(next, '{ me item { count } }')).text)).toEqual({
      data: { me: 'ann', item: { count: 1 } },
    });
    expect(JSON.parse((await post(key, '{ me }')).text)).toMatchObject({ errors: [{}] });
  });

  test('law 7: 20 of 20 mutations are stored before their response, for new and known visits', async () => {
    watched.around = async (_call, go) => (await new Promise((resolve) => setImmediate(resolve)), go());
    const known = app.browser();
    for (let index = 1; index <= 20; index++) {
      for (const browser of [app.browser(), known]) {
        await ask(browser, `mutation { keep(value: ${index}) }`);
        expect((await ask(browser, '{ item { count } }')).data).toEqual({ item: { count: index } });
      }
    }
  });

  test('law 7: a failed save is reported, and nothing of it is stored later', async () => {
    const browser = app.browser();
    await ask(browser, 'mutation { keep(value: 1) }');
    expect((await ask(browser, 'mutation { bad }')).errors).toHaveLength(1);
    watched.away('save');
    expect((await ask(browser, 'mutation { keep(value: 2) }')).errors).toMatchObject([
      { message: expect.stringContaining('unavailable') as string },
    ]);
    watched.pass();
    expect((await ask(browser, '{ item { count } }')).data).toEqual({ item: { count: 1 } });
  });

  test('@ExclusiveSession() applies to mutations of parallel requests, and within one request', async () => {
    const browser = app.browser();
    await ask(browser, 'mutation { keep(value: 0) }');
    await Promise.all(Array.from({ length: 5 }, () => ask(browser.clone(), 'mutation { exclusive }')));
    expect((await ask(browser, 'mutation { a: exclusive b: exclusive }')).data).toEqual({ a: 6, b: 7 });
    expect((await ask(browser, '{ item { count } }')).data).toEqual({ item: { count: 7 } });
  });

  test('@ExclusiveSession() of a field lasts until the field is resolved, whatever runs beside it', async () => {
    const browser = app.browser();
    await ask(browser, 'mutation { keep(value: 0) }');
    const releases = (): number => watched.calls.filter((call) => call === 'unlock').length;
    const before = releases();
    let go!: () => void;
    held.gate = new Promise((resolve) => (go = resolve));
    held.arrived = new Promise((resolve) => (held.arrive = resolve));
    const first = ask(browser.clone(), '{ slow beside }');
    await held.arrived;
    await app.call(browser.clone(), () => 'ok');
    const second = ask(browser.clone(), 'mutation { exclusive }');
    expect(releases()).toBe(before);
    go();
    expect([(await first).data, (await second).data]).toEqual([{ slow: 1, beside: 0 }, { exclusive: 2 }]);
  });

  test('@SkipVisit() applies only to its field, not to parallel ones', async () => {
    const browser = app.browser();
    await ask(browser, 'mutation { keep(value: 3) }');
    expect((await ask(browser, '{ skipped a: item { count } other: skipped b: items { count } }')).data).toEqual({
      skipped: 'VISIT_NOT_RESOLVED',
      a: { count: 3 },
      other: 'VISIT_NOT_RESOLVED',
      b: [{ count: 3 }, { count: 3 }],
    });
  });

  test.each([
    ['{ glance }', 0],
    ['{ a: glance b: glance }', 0],
    ['{ item { count } }', 3],
    ['{ glance item { count } }', 3],
    ['{ item { count } glance }', 3],
  ])('@PassiveVisit() applies to a request whose fields all have it: %s', async (query, left) => {
    const browser = app.browser();
    await ask(browser, 'mutation { keep(value: 3) }');
    clock.advance(20 * 60_000);
    expect(JSON.stringify((await ask(browser, query)).data)).toContain('3');
    clock.advance(20 * 60_000);
    expect((await ask(browser, '{ item { count } }')).data).toEqual({ item: { count: left } });
  });

  test('law 7: queries in one request share its visit, and are stored before their response', async () => {
    watched.around = async (_call, go) => (await new Promise((resolve) => setImmediate(resolve)), go());
    const browser = app.browser();
    const queries = ['mutation { add }', 'mutation { login }', 'mutation { add }', '{ item { visitId } }'];
    const answer = await browser.post('/graphql', { json: queries.map((query) => ({ query })) });
    const answers = JSON.parse(answer.text) as { data: Record<string, unknown>; errors?: unknown }[];
    expect(answers.map(({ errors }) => errors)).toEqual(queries.map(() => undefined));
    expect(answers[0]!.data['add']).not.toBe(answers[2]!.data['add']);
    expect(answer.cookies).toHaveLength(1);
    expect((await ask(browser, '{ me item { count } }')).data).toEqual({ me: 'ann', item: { count: 2 } });
  });
});
