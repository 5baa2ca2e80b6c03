import { inspect } from 'node:util';
import { Controller, Get, Injectable, Logger, Module, Post, Res, type Type } from '@nestjs/common';
import { SchedulerRegistry, ScheduleModule } from '@nestjs/schedule';
import { Mutation, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { Test } from '@nestjs/testing';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  CurrentVisit,
  ExclusiveSession,
  ExpungeService,
  MemoryVisitStore,
  RequireFresh,
  Session,
  SkipVisit,
  UseVisit,
  VisitModule,
  type Duration,
  VisitPlugin,
  VisitService,
  VisitStore,
  type EndedVisit,
  type ExpungeOptions,
  type ExpungedVisits,
  type VisitModuleOptions,
  type VisitStoreCapabilities,
} from 'nest-visit';
import { Visit, visitEntities, VisitIdentity, visitMigrations } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { breakDatabase } from '../support/break-database.js';
import { describeStacks, platforms, startApp, type RunningApp, type Stack } from '../support/app.js';
import { openDatabase } from '../support/databases.js';
import { ManualClock } from '../support/manual-clock.js';

@Controller()
class CountController {
  constructor(private readonly session: Session) {}

  @Get('count')
  count(@CurrentVisit() _visit: CurrentVisit) {
    return (this.session['count'] = ((this.session['count'] as number | undefined) ?? 0) + 1);
  }

  @Get('look')
  look() {
    return this.session.size;
  }

  @Post('res')
  res(@Res() response: { send(body: string): void }) {
    response.send('sent');
  }
}

const parts = { controllers: [CountController] };
const DAY = 86_400_000;

const running: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.close()));
  vi.restoreAllMocks();
});

class LimitedStore extends MemoryVisitStore {
  constructor(override readonly capabilities: VisitStoreCapabilities) {
    super();
  }
}

/** A store without these. */
function without(...lacking: ('users' | 'locks' | keyof VisitStoreCapabilities)[]): VisitStore {
  const lacks = (...features: readonly string[]): boolean => lacking.some((feature) => features.includes(feature));
  const limited = new LimitedStore({
    atomic: !lacks('atomic'),
    revocable: !lacks('revocable'),
    shared: !lacks('shared'),
    durable: !lacks('durable'),
  });
  return Object.assign(limited, {
    ...(lacks('users', 'revocable') && { users: undefined }),
    ...(lacks('locks', 'atomic') && { locks: undefined }),
  });
}

async function compile(options: VisitModuleOptions, imports: unknown[] = []) {
  const module = await Test.createTestingModule({
    ...parts,
    imports: [VisitModule.forRoot(options), ...(imports as Type[])],
  })
    .setLogger(false as never)
    .compile();
  running.push(module);
  return module;
}

describe('Options', () => {
  const store = new MemoryVisitStore();

  test.each<[string, unknown, string]>([
    ['nothing', {}, 'option "dataSource" is needed'],
    ['both stores', { dataSource: { type: 'mysql' } }, 'options "dataSource" and "store" exclude each other, got both'],
    [
      'a word for a duration',
      { touch: { interval: '5 apples' } },
      'option "touch.interval" must be a duration such as 30000 or "30s", got "5 apples" (string)',
    ],
    [
      'a negative duration',
      { timeout: -1 },
      'option "timeout" must be a duration such as 30000 or "30s", got -1 (number)',
    ],
    ['an unknown option', { cokie: {} }, 'option "cokie" is unknown; there are dataSource, store, storeTimeout'],
    [
      'an unknown nested option',
      { cookie: { nam: 'x' } },
      'option "cookie.nam" is unknown; "cookie" has name, path, domain',
    ],
    [
      'an unknown source',
      { source: 'cookie, headers' },
      'option "source" must be a list of "cookie", "header", "query", "body", "form"',
    ],
    ['an empty source', { source: [] }, 'option "source" must be a list'],
    [
      'a bad cookie name',
      { cookie: { name: 'my visit' } },
      'option "cookie.name" must be a cookie name that browsers accept, such as "visit", got "my visit" (string)',
    ],
    [
      'header injection by path',
      { cookie: { path: '/a; Domain=evil' } },
      'option "cookie.path" must be a path that begins with "/"',
    ],
    [
      'an unknown kind of site data',
      { cookie: { clearSiteData: ['cache', 'cookie'] } },
      'option "cookie.clearSiteData" must be true, false or a list of "cache", "cookies", "storage", ' +
        '"executionContexts", "clientHints"',
    ],
    ['no site data', { cookie: { clearSiteData: [] } }, 'option "cookie.clearSiteData" must be true, false or a list'],
    ['a bad domain', { cookie: { domain: 'a b' } }, 'option "cookie.domain" must be a host name'],
    [
      'SameSite=None without Secure',
      { cookie: { sameSite: 'none', secure: false } },
      'browsers refuse SameSite=None without Secure, got "none"',
    ],
    [
      '__Host- with a domain',
      { cookie: { name: '__Host-x', secure: true, domain: 'example.org' } },
      '"__Host-" needs cookie.secure true',
    ],
    [
      'a bad cron expression',
      { expunge: { schedule: 'every night' } },
      'option "expunge.schedule" must be a cron expression such as "0 3 * * *", or false',
    ],
    [
      'a fraction for a count',
      { expunge: { batchSize: 1.5 } },
      'option "expunge.batchSize" must be a whole number from 1 to 500, got 1.5 (number)',
    ],
    ['text for an object', { cookie: 'visit' }, 'option "cookie" must be an object, got "visit" (string)'],
    [
      'no clock',
      { clock: {} },
      'option "clock" must be an object with now(), which gives whole milliseconds since 1970, got {} (object)',
    ],
    ['a clock of fractions', { clock: performance }, 'option "clock" must be an object with now()'],
    [
      'a clock that has to be awaited',
      { clock: { now: async () => 1 } },
      'option "clock" must be an object with now()',
    ],
    ['a clock that gives text', { clock: { now: () => '1' } }, 'option "clock" must be an object with now()'],
    [
      'a clock of nanoseconds',
      { clock: { now: () => Date.now() * 1_000_000 } },
      'option "clock" must be an object with now()',
    ],
    [
      'a clock that fails',
      { clock: { now: () => JSON.parse('{') as number } },
      'option "clock" must be an object with now()',
    ],
    [
      'a longer wait than timers have',
      { storeTimeout: '25d' },
      'option "storeTimeout" must be at most 2147483647 ms (24 days)',
    ],
    [
      'the same for touches',
      { touch: { interval: 2 ** 31 } },
      'option "touch.interval" must be at most 2147483647 ms (24 days)',
    ],
    [
      'the same for exclusive access',
      { session: { maxExclusive: '4w' } },
      'option "session.maxExclusive" must be at most 2147483647 ms',
    ],
    [
      'a life beyond all dates',
      { timeout: '999999999999d' },
      'option "timeout" must be at most 36500 days, got "999999999999d" (string)',
    ],
    [
      'the same for permanent visits',
      { permanentTimeout: '36501d' },
      'option "permanentTimeout" must be at most 36500 days',
    ],
    [
      'the same in all',
      { absoluteTimeout: Number.MAX_SAFE_INTEGER },
      'option "absoluteTimeout" must be at most 36500 days',
    ],
    ['the same for keys', { renewAfter: 1e300 }, 'option "renewAfter" must be at most 36500 days'],
    [
      'clean-up beyond all dates',
      { expunge: { keepDays: 1e9 } },
      'option "expunge.keepDays" must be a number of days from 0 to 36500',
    ],
    [
      'more rows than a statement has',
      { expunge: { batchSize: 501 } },
      'option "expunge.batchSize" must be a whole number from 1 to 500',
    ],
    [
      'an address of another database',
      { dataSource: { type: 'postgres', url: 'mysql://root:SECRET@db/app' } },
      'option "dataSource" must be options whose type and url agree: for type "postgres" a url such as ' +
        '"postgres://…", got one that begins with "mysql:"',
    ],
    [
      'an address of another database, of a primary',
      {
        dataSource: { type: 'mariadb', replication: { master: { url: 'postgres://root:SECRET@db/app' }, slaves: [] } },
      },
      'for type "mariadb" a url such as "mariadb://…", got one that begins with "postgres:"',
    ],
    [
      'an address from an environment variable that is not set',
      { dataSource: { type: 'mysql', url: undefined, migrationsRun: true } },
      'option "dataSource" must be options with the address of the server, such as ' +
        'url: "mysql://user:password@host/database", got a url that is not set',
    ],
    [
      'the same, empty',
      { dataSource: { type: 'postgres', url: '' } },
      'such as url: "postgres://user:password@host/database", got a url that is not set',
    ],
    ['a password with an @', { dataSource: 'mysql://app:first@SECRET@db/app' }, 'got "mysql://***@db/app" (string)'],
    ['a password without a scheme before it', { dataSource: 'app:SECRET@db/app' }, 'got "***@db/app" (string)'],
    [
      'a password in a parameter',
      { dataSource: 'mysql://db/app?password=SECRET' },
      'got "mysql://db/app?password=***" (string)',
    ],
    [
      'a password in an object',
      { dataSource: { host: 'db', password: "it's-SECRET" } },
      'got { host, password } (object)',
    ],
    [
      'a password in a list',
      { csrf: { trustedOrigins: ['https://ann:SECRET@example.org'] } },
      "got [ 'https://***@example.org' ] (array)",
    ],
    [
      'a password in what is shown',
      { dataSource: 'mysql://root:secret@localhost/db' },
      'got "mysql://***@localhost/db" (string)',
    ],
  ])('R16, R74: %s is refused at startup, with a helpful message', async (_, options, text) => {
    const given =
      _ === 'nothing' || 'dataSource' in (options as object)
        ? (options as VisitModuleOptions)
        : { store, ...(options as object) };
    const all = _ === 'both stores' ? { store, ...given } : given;
    const error = await compile(all as VisitModuleOptions).catch((reason: unknown) => reason as Error);
    expect(error).toMatchObject({ code: 'VISIT_OPTION', message: expect.stringContaining(text) as string });
    expect(inspect(error)).not.toContain('SECRET');
  });

  test('R16: the longest valid durations are accepted', async () => {
    const [day, wait] = ['36500d', 2 ** 31 - 1] as const;
    const longest = { timeout: day, permanentTimeout: day, absoluteTimeout: day, renewAfter: day, storeTimeout: wait };
    const more = {
      touch: { interval: wait, resolution: day },
      session: { maxExclusive: wait },
      expunge: { keepDays: 36_500, batchSize: 500 },
    };
    await expect(compile({ store, ...longest, ...more })).resolves.toBeDefined();
    expect(() => ExclusiveSession({ timeout: wait })).not.toThrow();
    expect(() => ExclusiveSession({ timeout: wait + 1 })).toThrow(/at most 2147483647 ms/);
    expect(() => UseVisit({ timeout: '36501d' })).toThrow(/at most 36500 days/);
    expect(() => RequireFresh({ maxAge: '36501d' })).toThrow(/at most 36500 days/);
  });

  test.each([
    [{ secure: false }, 'option "cookie.secure" must be true in production'],
    [{ httpOnly: false }, 'option "cookie.httpOnly" must be true in production'],
    [{ sameSite: 'none' as const, secure: false, allowInsecure: true }, 'browsers refuse SameSite=None without Secure'],
  ])('ASVS 3.3.1, 3.3.4: %j is refused in production', async (cookie, text) => {
    vi.stubEnv('NODE_ENV', 'production');
    onTestFinished(() => void vi.unstubAllEnvs());
    await expect(compile({ store, cookie })).rejects.toThrow(text);
    await expect(
      compile({ store, cookie: { secure: false, httpOnly: false, allowInsecure: true } }),
    ).resolves.toBeDefined();
    await expect(compile({ store })).resolves.toBeDefined();
  });

  test('R14, ASVS 14.2.1: keys in URLs are logged once, at startup', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => warn.mockRestore());
    for (const source of ['cookie', 'cookie, body', 'cookie, form']) {
      warn.mockClear();
      await (await compile({ store, source })).init();
      const lines = warn.mock.calls.filter(([line]) => String(line).includes('Keys are accepted in URLs'));
      expect(lines, source).toHaveLength(source.endsWith('form') ? 1 : 0);
    }
  });

  test('R66: options that a store does not support are refused at startup', async () => {
    const identity = { maxVisitsPerUser: 3 };
    await expect(compile({ store: without('users'), identity })).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message:
        '[visit] option "identity.maxVisitsPerUser" needs a store that has "users", but LimitedStore ' +
        'does not (it counts and ends visits of a user), got 3',
    });
    await expect(compile({ store: without('revocable'), identity, onRetiredKey: 'end' })).rejects.toThrow(
      /"identity\.maxVisitsPerUser"[^]*"users"[^]*"onRetiredKey"[^]*"revocable"/,
    );
    await expect(
      compile({ store: without('atomic', 'shared', 'durable'), identity, onRetiredKey: 'end' }),
    ).resolves.toBeDefined();
    await expect(compile({ store: without('users', 'revocable') })).resolves.toBeDefined();
  });

  test('R66: a plugin that needs earlier visits is refused at startup if the store cannot list them', async () => {
    @VisitPlugin()
    class Devices {
      onNewDevice(): void {}
    }
    const init = async (visits: VisitStore) => {
      const imports = [VisitModule.forRoot({ store: visits })];
      const module = await Test.createTestingModule({ ...parts, imports, providers: [Devices] })
        .setLogger(false as never)
        .compile();
      running.push(module);
      return module.init();
    };
    await expect(init(without('users'))).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message: expect.stringContaining('Devices.onNewDevice() needs a store that has "users"') as string,
    });
    await expect(init(store)).resolves.toBeDefined();
  });

  test('R66, R90: unsupported settings of a handler are refused at startup', async () => {
    class Base {
      @ExclusiveSession()
      alone(): void {}
    }
    @UseVisit({ path: '/shop' })
    @Controller()
    class ShopController extends Base {
      @UseVisit({ source: 'query' })
      linked(): void {}

      @SkipVisit()
      @ExclusiveSession()
      skipped(): void {}

      get broken(): never {
        throw new Error('a getter was read');
      }
    }
    @Injectable()
    @ExclusiveSession()
    class ShopResolver {
      cart(): void {}
    }
    const init = async (options: VisitModuleOptions, controllers: Type[], providers: Type[] = []) => {
      const imports = [VisitModule.forRoot(options)];
      const module = await Test.createTestingModule({ ...parts, imports, controllers, providers })
        .setLogger(false as never)
        .compile();
      running.push(module);
      return module.init();
    };
    const secure = { name: 'visit', secure: true };
    const inCookies = Object.assign(without('atomic'), { clients: { openStorage: () => undefined } });
    await expect(init({ store: inCookies, cookie: secure }, [ShopController], [ShopResolver])).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message: [
        '[visit] @UseVisit() "source" of ShopController.linked() must have "cookie" and no "header" with a store ' +
          'that keeps visits in cookies, got query',
        '@UseVisit() "path" of ShopController.linked() needs another option "cookie.name" than "__Host-visit", ' +
          'such as "__Secure-visit": browsers refuse "__Host-" unless the path is "/", got "/shop"',
        '@ExclusiveSession() of ShopController.alone() needs a store that has "locks", but LimitedStore does not',
        '@UseVisit() "path" of ShopController.alone() needs another option "cookie.name" than "__Host-visit", such ' +
          'as "__Secure-visit": browsers refuse "__Host-" unless the path is "/", got "/shop"',
        '@ExclusiveSession() of ShopResolver.cart() needs a store that has "locks", but LimitedStore does not',
      ].join('\n[visit] '),
    });
    for (const cookie of [
      { ...secure, name: '__Secure-visit' },
      { ...secure, domain: 'shop.example' },
      { secure: false },
    ]) {
      await expect(init({ store, cookie }, [ShopController], [ShopResolver])).resolves.toBeDefined();
    }
  });

  test('R90: a GraphQL field cannot have its own source or path, because its request has one visit', async () => {
    @Resolver()
    class CartResolver {
      @UseVisit({ source: 'cookie, query', path: '/shop' })
      @Query(() => String)
      cart() {}

      @UseVisit({ source: 'query' })
      @Mutation(() => String)
      add() {}

      @UseVisit({ path: '/shop' })
      @ResolveField(() => String)
      price() {}

      @UseVisit({ timeout: '5m' })
      @Query(() => String)
      stock() {}
    }
    const starting = Test.createTestingModule({
      ...parts,
      imports: [VisitModule.forRoot({ store })],
      providers: [CartResolver],
    })
      .setLogger(false as never)
      .compile()
      .then((module) => (running.push(module), module.init()));
    const why = 'all fields of a GraphQL request have one visit and one cookie; use the option of the module';
    await expect(starting).rejects.toMatchObject({
      code: 'VISIT_OPTION',
      message: [
        `[visit] @UseVisit() of CartResolver.cart() cannot have "source" and "path": ${why}`,
        `@UseVisit() of CartResolver.add() cannot have "source": ${why}`,
        `@UseVisit() of CartResolver.price() cannot have "path": ${why}`,
      ].join('\n[visit] '),
    });
  });

  test('R66: calls that a store does not support are refused, whatever its methods do', async () => {
    const refusal = (feature: string, call: string) => ({
      code: 'VISIT_STORE_UNSUPPORTED',
      feature,
      message: expect.stringContaining(`${call}() needs a store that supports "${feature}"`) as string,
    });
    const unlisted = (await compile({ store: without('users') })).get(VisitService);
    await expect(unlisted.listForUser(7)).rejects.toMatchObject(refusal('users', 'listForUser'));
    await expect(unlisted.endOthers()).rejects.toMatchObject(refusal('users', 'endOthers'));
    await expect(unlisted.endAllForUser(7)).rejects.toMatchObject(refusal('users', 'endAllForUser'));
    await expect(unlisted.endAll()).rejects.toMatchObject(refusal('users', 'endAll'));
    expect(await unlisted.end('0'.repeat(32), 'revoked', { anyUser: true })).toBe(false);
    const kept = (await compile({ store: without('revocable') })).get(VisitService);
    await expect(kept.end('0'.repeat(32), 'revoked', { anyUser: true })).rejects.toMatchObject(
      refusal('revocable', 'end'),
    );
    await expect(kept.endAllForUser(7)).rejects.toMatchObject(refusal('users', 'endAllForUser'));
    await expect(kept.endAll()).rejects.toMatchObject(refusal('users', 'endAll'));
  });

  test('R66: a store that other processes cannot see is logged once, in production', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => warn.mockRestore());
    onTestFinished(() => void vi.unstubAllEnvs());
    const warnings = async (visits: VisitStore) => {
      warn.mockClear();
      await (await compile({ store: visits })).init();
      return warn.mock.calls.filter(([line]) => String(line).includes('Other processes cannot see'));
    };
    expect(await warnings(store)).toEqual([]);
    vi.stubEnv('NODE_ENV', 'production');
    expect(await warnings(store)).toEqual([[expect.stringContaining('(MemoryVisitStore)') as string]]);
    expect(await warnings(without('durable', 'atomic'))).toEqual([]);
  });

  test('R74: all invalid options are reported at once', async () => {
    await expect(compile({ store, timeout: 'x' as never, creation: 'never' as never })).rejects.toThrow(
      /"timeout"[^]*"creation"/,
    );
  });

  // The last one, of a configuration file say, only by a cast.
  test.each(['10m', 600_000, '600s', '0.5h', '1.5 h', ' 1H ' as Duration] as const)(
    'R22: %j is a valid duration',
    async (timeout) => {
      await expect(compile({ store, timeout })).resolves.toBeDefined();
    },
  );
});

describe.each(platforms)('forRootAsync under %s', (platform) => {
  const open = async (): Promise<DataSourceOptions> => {
    const { options, drop } = await openDatabase('sqlite');
    running.push({ close: drop });
    return { ...options, entities: visitEntities, migrations: visitMigrations, migrationsRun: true };
  };
  const expectToServe = async (imports: unknown[]): Promise<void> => {
    @Module({ imports: imports as Type[], ...parts })
    class AppModule {}
    const module = await Test.createTestingModule({ imports: [AppModule] }).compile();
    const { FastifyAdapter } = await import('@nestjs/platform-fastify');
    const { ExpressAdapter } = await import('@nestjs/platform-express');
    const app = module.createNestApplication(
      (platform === 'express' ? new ExpressAdapter() : new FastifyAdapter()) as never,
      {
        logger: false,
      },
    );
    running.unshift(app);
    await app.listen(0, '127.0.0.1');
    const answer = await fetch(`${await app.getUrl()}/count`);
    expect(await answer.text()).toBe('1');
    expect(answer.headers.getSetCookie()).toHaveLength(1);
    await app.close();
  };

  test('R65, R74: uses the data source of @nestjs/typeorm, and does not close it', async () => {
    const options = await open();
    await expectToServe([
      TypeOrmModule.forRoot(options),
      VisitModule.forRootAsync({
        inject: [getDataSourceToken()],
        useFactory: (dataSource: DataSource) => ({ dataSource }),
      }),
    ]);
  });

  test('R74: accepts a class', async () => {
    const dataSource = await open();
    @Injectable()
    class Config {
      createVisitOptions(): VisitModuleOptions {
        return { dataSource };
      }
    }
    await expectToServe([VisitModule.forRootAsync({ useClass: Config })]);
  });
});

describeStacks('The module', (stack: Stack) => {
  const ownOptions = async (): Promise<DataSourceOptions> => {
    const { options, drop } = await openDatabase(stack.database);
    running.push({ close: drop });
    return { ...options, migrationsRun: true };
  };

  test('R44, R65: opens a data source of its own from options, and closes it', async () => {
    const dataSource = await ownOptions();
    const app = await startApp(stack.platform, { dataSource }, parts);
    const store = app.app.get<{ dataSource: DataSource }>(VisitStore);
    const browser = app.browser();
    expect((await browser.get('/count')).text).toBe('1');
    expect((await browser.get('/count')).text).toBe('2');
    expect(store.dataSource.isInitialized).toBe(true);
    await app.close();
    expect(store.dataSource.isInitialized).toBe(false);
  });

  test('R71: no unexpected DDL: a missing table is reported at startup, with its migration', async () => {
    const { migrationsRun: _, ...dataSource } = (await ownOptions()) as DataSourceOptions & { migrationsRun: boolean };
    await expect(startApp(stack.platform, { dataSource: dataSource }, parts)).rejects.toMatchObject({
      code: 'VISIT_SCHEMA',
      message: expect.stringMatching(/visit[^]*visitMigrations[^]*migrationsRun/) as string,
    });
  });

  test('B39, R29: pending updates are written at shutdown, also with the module’s own data source', async () => {
    const dataSource = await ownOptions();
    const app = await startApp(
      stack.platform,
      { dataSource, clock: stack.clock, timeout: '5h', touch: { interval: '1h' } },
      parts,
    );
    const browser = app.browser();
    await browser.get('/count');
    stack.clock.advance(3_600_000);
    await browser.get('/look');
    const expected = stack.clock.now() + 5 * 3_600_000;
    await app.close();
    const again = await new DataSource({ ...dataSource, entities: visitEntities, migrationsRun: false }).initialize();
    const [visit] = await again.getRepository(Visit).find();
    await again.destroy();
    expect(visit!.expiry.getTime()).toBe(expected);
  });

  describe('cleans up', () => {
    async function withVisits(app: RunningApp) {
      const visits = app.app.get(VisitService);
      await visits.endAll();
      await app.app.get(ExpungeService).run({ keepDays: 0 });
      stack.clock.advance(1);
      await app.app.get(ExpungeService).run({ keepDays: 0 });
      const stale = await visits.create({ userId: 'stale' });
      const browser = app.browser();
      await browser.get('/count');
      return { visits, stale, browser };
    }

    test('R61, R63, B37: only visits that expired more than keepDays ago, with their identities', async () => {
      const app = await stack.start(parts, { timeout: '1h' });
      const { visits, stale, browser } = await withVisits(app);
      const expunge = app.app.get(ExpungeService);
      stack.clock.advance(50 * 60_000);
      await browser.get('/look');
      await visits.flush();
      stack.clock.advance(7 * DAY);
      expect(await expunge.run()).toEqual({ visits: 0, identities: 0 });
      stack.clock.advance(11 * 60_000);
      expect(await expunge.run({ dryRun: true })).toEqual({ visits: 1, identities: 1 });
      expect(await expunge.run({ batchSize: 1 })).toEqual({ visits: 1, identities: 1 });
      expect(await visits.find(stale.visit.id)).toBeNull();
      expect(await visits.find(browser.jar.get('visit')!.slice(0, 32))).not.toBeNull();
      expect(await stack.dataSource().getRepository(VisitIdentity).countBy({ userId: 'stale' })).toBe(0);
    });

    test.each<[string, ExpungeOptions, string]>([
      ['days below zero', { keepDays: -30 }, '"keepDays" of expunge.run() must be a number of days from 0 to 36500'],
      ['days that are none', { keepDays: Number.NaN }, '"keepDays" of expunge.run()'],
      ['days beyond all dates', { keepDays: 1e9 }, '"keepDays" of expunge.run()'],
      ['no rows at once', { batchSize: 0 }, '"batchSize" of expunge.run() must be a whole number from 1 to 500'],
      ['more rows than a statement has', { batchSize: 501 }, '"batchSize" of expunge.run()'],
    ])('R16, B37: %s are refused, and nothing is deleted', async (_, options, text) => {
      const app = await stack.start(parts, { timeout: '1h' });
      const { visits, stale, browser } = await withVisits(app);
      await expect(app.app.get(ExpungeService).run(options)).rejects.toMatchObject({
        code: 'VISIT_OPTION',
        message: expect.stringContaining(text) as string,
      });
      // They live.
      for (const id of [stale.visit.id, browser.jar.get('visit')!.slice(0, 32)])
        expect(await visits.find(id)).not.toBeNull();
    });

    test('R62: the data of expired visits, and keeps their rows', async () => {
      const app = await stack.start(parts, { timeout: '1h' });
      const { browser, visits } = await withVisits(app);
      const expunge = app.app.get(ExpungeService);
      expect(await expunge.wipeExpired()).toBe(0);
      stack.clock.advance(3_600_000 + 61_000);
      expect(await expunge.wipeExpired({ dryRun: true })).toBe(1);
      expect(await expunge.wipeExpired()).toBe(1);
      expect(await expunge.wipeExpired()).toBe(0);
      const id = browser.jar.get('visit')!.slice(0, 32);
      expect(await stack.dataSource().getRepository(Visit).findOneByOrFail({ id })).toMatchObject({
        sessionData: null,
      });
      expect(await visits.find(id)).not.toBeNull();
    });
  });

  describe('when the database is unavailable', () => {
    const away = (): void =>
      breakDatabase(stack.dataSource(), 'Connection lost: the server closed the connection to root:secret@db');

    test('B18: a failed look-up causes a 503 with Retry-After: no cookie, no visit, no internals', async () => {
      const app = await stack.start(parts);
      const browser = app.browser();
      await browser.get('/count');
      const before = (await stack.rows()).length;
      away();
      for (const path of ['/look', '/count']) {
        const answer = await browser.get(path);
        expect(answer.status).toBe(503);
        expect(answer.headers.get('retry-after')).toBe('5');
        expect(answer.cookies).toEqual([]);
        expect(answer.text).not.toMatch(/root|secret|Connection/);
      }
      vi.restoreAllMocks();
      expect((await browser.get('/count')).text).toBe('2');
      expect(await stack.rows()).toHaveLength(before);
    });

    test('a failed save causes a 503 before anything is acknowledged, even for a new visit', async () => {
      const app = await stack.start(parts);
      away();
      const answer = await app.browser().get('/count');
      expect(answer).toMatchObject({ status: 503, cookies: [] });
    });

    test('B18: a hanging database counts as unavailable: 503 in bounded time, then recovery', async () => {
      // Impatient, so that the test is not long; who is asked what was kept has time.
      const [app, patient] = [await stack.start(parts, { storeTimeout: 50 }), await stack.start(parts)];
      const browser = patient.browser();
      await browser.get('/count');
      const cookie = `visit=${browser.jar.get('visit')}`;
      const create = stack.dataSource().createQueryRunner.bind(stack.dataSource());
      let release!: () => void;
      const released = new Promise<void>((resolve) => (release = resolve));
      vi.spyOn(stack.dataSource(), 'createQueryRunner').mockImplementation((mode) => {
        const runner = create(mode);
        const query = runner.query.bind(runner) as (...args: unknown[]) => Promise<unknown>;
        runner.query = (async (...args: unknown[]) => {
          await released;
          return query(...args);
        }) as typeof runner.query;
        const connect = runner.connect.bind(runner) as () => Promise<unknown>;
        runner.connect = async () => {
          await released;
          return connect();
        };
        return runner;
      });
      for (let i = 0; i < 4; i++) {
        const answer = await app.browser().get('/look', { cookie });
        expect(answer).toMatchObject({ status: 503, cookies: [] });
        expect(answer.headers.get('retry-after')).toBe('5');
      }
      vi.restoreAllMocks();
      release();
      await expect.poll(async () => (await app.browser().get('/look', { cookie })).status).toBe(200);
      expect((await browser.get('/count')).text).toBe('2');
    });

    test('B19, B21, R28: touches wait, and are written after it has recovered', async () => {
      const app = await stack.start(parts, { timeout: '5h', touch: { interval: '1h' } });
      const browser = app.browser();
      await browser.get('/count');
      stack.clock.advance(3_600_000);
      await browser.get('/look');
      const expected = stack.clock.now() + 5 * 3_600_000;
      const visits = app.app.get(VisitService);
      away();
      await visits.flush();
      vi.restoreAllMocks();
      await visits.flush();
      const id = browser.jar.get('visit')!.slice(0, 32);
      expect((await stack.dataSource().getRepository(Visit).findOneByOrFail({ id })).expiry.getTime()).toBe(expected);
    });
  });
});

describe('Schedules', () => {
  test('R63: the library’s own jobs run, unless they are disabled', async () => {
    const clock = new ManualClock();
    const store = new MemoryVisitStore();
    const module = await compile({
      store,
      clock,
      maxClockSkew: false,
      expunge: { schedule: '* * * * * *' },
      wipe: { schedule: false },
    });
    const run = vi.spyOn(module.get(ExpungeService), 'run');
    await module.init();
    await expect.poll(() => run.mock.calls.length).toBeGreaterThan(0);
  });

  test('R63: they use the scheduler of the application, if there is one', async () => {
    const module = await compile({ store: new MemoryVisitStore() }, [ScheduleModule.forRoot()]);
    await module.init();
    const registry = module.get(SchedulerRegistry, { strict: false });
    expect([...registry.getCronJobs().keys()].sort()).toEqual(['nest-visit:expunge', 'nest-visit:wipe']);
    await module.close();
    expect([...registry.getCronJobs().keys()]).toEqual([]);
  });
});

describe.each(platforms)('Plugins under %s', (platform) => {
  const calls: string[] = [];

  @VisitPlugin({ order: 2 })
  class Second {
    async onNewVisit(visit: CurrentVisit): Promise<void> {
      await Promise.resolve();
      calls.push(`second new ${visit.id.length}`);
    }
  }

  @VisitPlugin({ order: 1 })
  class First {
    onNewVisit(visit: CurrentVisit, request: { headers: unknown }): void {
      calls.push(`first new ${visit.isNew} ${typeof request.headers}`);
    }
    onRecordRequest(visit: CurrentVisit): void {
      calls.push(`record ${visit.isNew}`);
      throw new Error('isolated');
    }
    onVisitEnded(visit: EndedVisit): void {
      calls.push(`ended ${visit.reason}`);
    }
    onExpunge(counts: ExpungedVisits): void {
      calls.push(`expunged ${counts.visits}`);
    }
  }

  @VisitPlugin({ enabled: false })
  class Disabled {
    onRecordRequest(): void {
      calls.push('disabled');
    }
  }

  @VisitPlugin({ onError: 'throw' })
  class Fatal {
    onRecordRequest(): void {
      throw new Error('fatal');
    }
  }

  test('R72: are found, called in order and awaited; a failing one is isolated', async () => {
    calls.length = 0;
    const clock = new ManualClock();
    const app = await startApp(
      platform,
      { store: new MemoryVisitStore(), clock },
      { ...parts, providers: [Second, First, Disabled] },
    );
    running.push(app);
    const browser = app.browser();
    expect((await browser.get('/count')).status).toBe(200);
    expect(calls).toEqual(['record true', 'first new true object', 'second new 32']);
    calls.length = 0;
    await browser.get('/count');
    await app.app.get(VisitService).endAll();
    clock.advance(8 * DAY);
    await app.app.get(ExpungeService).run();
    expect(calls).toEqual(['record false', 'expunged 1']);
  });

  test('R72: are fatal by option', async () => {
    const app = await startApp(platform, { store: new MemoryVisitStore() }, { ...parts, providers: [Fatal] });
    running.push(app);
    expect((await app.browser().get('/count')).status).toBe(500);
  });
});
