import {
  Module,
  type DynamicModule,
  type INestApplication,
  type MiddlewareConsumer,
  type ModuleMetadata,
  type NestModule,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { MemoryVisitStore, VisitModule, type VisitSettings } from 'nest-visit';
import { afterAll, afterEach, beforeEach, describe } from 'vitest';
import { platforms, type PlatformName } from './app.js';
import { Browser } from './browser.js';
import { ManualClock } from './manual-clock.js';
import { PATIENCE } from './patience.js';
import { isForToday } from './today.js';

/** How an application is created: as in `main.ts`, or as in a test. */
export type Maker = 'NestFactory' | 'createTestingModule';

/** The parts of an application besides VisitModule. */
export interface Recipe extends ModuleMetadata {
  /** Modules that are imported before VisitModule. */
  readonly earlier?: NonNullable<ModuleMetadata['imports']>;
  readonly options?: VisitSettings;
  /** Middleware of the module. */
  readonly configure?: (consumer: MiddlewareConsumer) => void;
  /** The actions of `main.ts` before the application listens. */
  readonly main?: (app: INestApplication) => unknown;
}

/** A running application with its own store and clock. */
export interface WayApp {
  readonly app: INestApplication;
  readonly address: string;
  readonly store: WatchedStore;
  readonly clock: ManualClock;
  /** A new client without cookies. */
  browser(): Browser;
}

/** A platform and a way to create applications on it. */
export interface Way {
  readonly platform: PlatformName;
  readonly maker: Maker;
  /** Starts an application that is closed after the suite. */
  start(recipe: Recipe): Promise<WayApp>;
}

/** A store that records its calls, and that can be unavailable. */
export class WatchedStore extends MemoryVisitStore {
  /** The calls since the test has cleared it, such as `find`. */
  readonly calls: string[] = [];
  isAway = false;

  constructor() {
    super();
    // All methods of the contract that use visits.
    for (const name of [
      'find',
      'create',
      'save',
      'touch',
      'rekey',
      'end',
      'lock',
      'unlock',
      'listForUser',
      'endAllForUser',
      'endAll',
      'revokedAt',
    ] as const) {
      const method = (super[name] as (...args: unknown[]) => Promise<never>).bind(this);
      (this as Record<string, unknown>)[name] = async (...args: unknown[]) => {
        this.calls.push(name);
        if (this.isAway) throw new Error('the store is away');
        return method(...args);
      };
    }
  }

  /** The calls during `work`. */
  async callsOf(work: () => Promise<unknown>): Promise<string[]> {
    const before = this.calls.length;
    await work();
    return this.calls.slice(before);
  }

  /** The visit of this cookie, in any state. */
  async visitOf(browser: Browser) {
    const [record] = await MemoryVisitStore.prototype.find.call(this, [browser.jar.get('visit')!.slice(0, 32)]);
    return record!;
  }
}

/** Starts an application on a free port of this machine; the caller closes it. */
export async function startWay(platform: PlatformName, maker: Maker, recipe: Recipe): Promise<WayApp> {
  const { earlier = [], options, configure, main, imports = [], ...parts } = recipe;
  const store = new WatchedStore();
  const clock = new ManualClock();
  const visits: DynamicModule = VisitModule.forRoot({
    store,
    clock,
    maxClockSkew: false,
    storeTimeout: PATIENCE,
    expunge: { schedule: false },
    wipe: { schedule: false },
    ...options,
  });

  @Module({ ...parts, imports: [...earlier, visits, ...imports] })
  class Application implements NestModule {
    configure(consumer: MiddlewareConsumer): void {
      configure?.(consumer);
    }
  }

  const adapter = (platform === 'express' ? new ExpressAdapter() : new FastifyAdapter()) as ExpressAdapter;
  let app: INestApplication;
  if (maker === 'NestFactory')
    app = await NestFactory.create(Application, adapter, { logger: false, abortOnError: false });
  else {
    const module = await Test.createTestingModule({ imports: [Application] })
      .setLogger(false as never)
      .compile();
    app = module.createNestApplication(adapter, { logger: false });
  }
  await main?.(app);
  await app.listen(0, '127.0.0.1');
  const address = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  return { app, address, store, clock, browser: () => new Browser(address) };
}

/**
 * Runs a suite on each platform, with applications created in each of these ways. With two ways, each platform has
 * another one each day.
 */
export function describeWays(
  title: string,
  suite: (way: Way) => void,
  makers: readonly Maker[] = ['NestFactory', 'createTestingModule'],
) {
  for (const [index, platform] of platforms.entries()) {
    for (const [turn, maker] of makers.entries()) {
      if (!isForToday(title.length + index + turn, makers.length)) continue;
      describe(`${title} under ${platform}, made by ${maker}`, () => {
        const [running, ending]: [WayApp[], WayApp[]] = [[], []];
        const closeAll = (some: WayApp[]): Promise<unknown> =>
          Promise.all(some.splice(0).map(({ app }) => app.close()));
        afterAll(() => closeAll(running));
        // One that a test has started ends with it.
        let isInTest = false;
        beforeEach(() => void (isInTest = true));
        afterEach(() => {
          isInTest = false;
          return closeAll(ending);
        });
        suite({
          platform,
          maker,
          start: async (recipe) => {
            const started = await startWay(platform, maker, recipe);
            (isInTest ? ending : running).push(started);
            return started;
          },
        });
      });
    }
  }
}

interface FastifyLike {
  addHook(name: string, hook: (request: object, reply: object, done: (error?: Error) => void) => void): void;
}

/** Adds middleware as `main.ts` does: `app.use()` under Express, a hook of the server under Fastify. */
export function addMiddleware(
  app: INestApplication,
  platform: PlatformName,
  middleware: (request: never, response: never, next: (error?: Error) => void) => void,
): void {
  if (platform === 'express') app.use(middleware);
  else (app.getHttpAdapter().getInstance() as FastifyLike).addHook('onRequest', middleware as never);
}

/** The value that a reader gets, or the code of its error. */
export async function seenBy(read: () => unknown): Promise<unknown> {
  try {
    return await read();
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}
