import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { INestApplication, ModuleMetadata } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { VisitModule, type VisitModuleOptions, type VisitSettings } from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, describe } from 'vitest';
import { openMigrated } from './open-migrated.js';
import { Browser } from './browser.js';
import { describeDatabases, type TestDatabase } from './databases.js';
import { ManualClock } from './manual-clock.js';
import { has, isWithoutServers } from './needs.js';
import { PATIENCE } from './patience.js';
import { isSoak } from './soak.js';
import { TODAY } from './today.js';

export type PlatformName = 'express' | 'fastify';

const adapters = { express: () => new ExpressAdapter(), fastify: () => new FastifyAdapter() };

export const platforms = Object.keys(adapters) as PlatformName[];

export interface RunningApp {
  readonly app: INestApplication;
  readonly address: string;
  /** A new client without cookies. */
  browser(): Browser;
  close(): Promise<void>;
}

/**
 * Deadlines do not depend on the speed of the machine, clocks belong to the tests, and no scheduled clean-up runs
 * between the calls of the store that a test compares.
 */
const UNDISTURBED = {
  storeTimeout: PATIENCE,
  expunge: { schedule: false },
  wipe: { schedule: false },
  maxClockSkew: false,
} as const;

/** Starts an application on a free port of this machine. */
export function startApp(
  platform: PlatformName,
  options: VisitModuleOptions,
  parts: ModuleMetadata,
  configure?: (app: INestApplication) => void,
): Promise<RunningApp> {
  return startOn(adapters[platform](), options, parts, configure);
}

/** Like `startApp`, with a framework that trusts what a proxy reports about the origin of requests. */
export function startBehindProxy(
  platform: PlatformName,
  options: VisitModuleOptions,
  parts: ModuleMetadata,
): Promise<RunningApp> {
  const adapter = platform === 'express' ? new ExpressAdapter() : new FastifyAdapter({ trustProxy: true });
  if (adapter instanceof ExpressAdapter) adapter.set('trust proxy', true);
  return startOn(adapter, options, parts);
}

async function startOn(
  adapter: ExpressAdapter | FastifyAdapter,
  options: VisitModuleOptions,
  parts: ModuleMetadata,
  configure?: (app: INestApplication) => void,
): Promise<RunningApp> {
  const module = await Test.createTestingModule({
    ...parts,
    imports: [VisitModule.forRoot({ ...UNDISTURBED, ...options }), ...(parts.imports ?? [])],
  })
    .setLogger(false as never)
    .compile();
  const app = module.createNestApplication(adapter as ExpressAdapter, { logger: false });
  configure?.(app);
  await app.listen(0, '127.0.0.1');
  const address = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  const closeUnused = unusedConnectionsOf(app.getHttpServer() as Server);
  const close = (): Promise<void> => {
    closeUnused();
    return app.close();
  };
  return { app, address, browser: () => new Browser(address), close };
}

/**
 * Closes the connections that nothing came over. `fetch` opens one after another has been aborted, and a server that
 * closes would wait four seconds for its first request.
 */
function unusedConnectionsOf(server: Server): () => void {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  return () => open.forEach((socket) => socket.bytesRead === 0 && socket.destroy());
}

/** One database and one platform, for a suite that must pass on each. */
export interface Stack {
  readonly platform: PlatformName;
  readonly database: TestDatabase['name'];
  readonly clock: ManualClock;
  /** An open data source with the tables. */
  dataSource(): DataSource;
  /** The SQL statements that `work` causes. */
  statements(work: () => Promise<unknown>): Promise<string[]>;
  /** The rows of the visit table. */
  rows(): Promise<Visit[]>;
  /**
   * An application that is used by only one part of this test at a time. It may have served earlier tests with the same
   * parts and options, because starting one costs more than most tests. With `configure`, or options that are not plain
   * text, it is always a new one.
   */
  start(
    parts: ModuleMetadata,
    options?: VisitSettings,
    configure?: (app: INestApplication) => void,
  ): Promise<RunningApp>;
}

/**
 * Runs a suite on MariaDB, PostgreSQL and SQLite: with Express on one of the servers, with Fastify on the other, and on
 * SQLite with one of them each day. If a server is missing on this machine, SQLite has both platforms. Applications that
 * the suite starts are closed after it.
 *
 * @param names of the databases, if not all of them matter
 */
export function describeStacks(
  title: string,
  suite: (stack: Stack) => void,
  names?: readonly TestDatabase['name'][],
): void {
  describeDatabases(
    title,
    (db) => {
      let dataSource: DataSource;
      // One clock for both platforms, so that nothing that one has written lies in the future of the other.
      const clock = new ManualClock();
      beforeAll(async () => {
        const { options } = await db.open();
        dataSource = await openMigrated(options);
      });
      afterAll(() => dataSource?.destroy());
      for (const platform of platformsFor(db.name, title, names)) {
        describe(`under ${platform}`, () => {
          const [running, ending]: [RunningApp[], RunningApp[]] = [[], []];
          const closeAll = (some: RunningApp[]): Promise<unknown> =>
            Promise.all(some.splice(0).map((one) => one.close()));
          const [free, lent] = [new Pool(), new Pool()];
          afterAll(() => closeAll(running));
          // Applications that a suite starts for all of its tests stay open, and so do some that later tests may use. All
          // others end with their test: as long as they are open, they make every promise of the process slower.
          let isInTest = false;
          afterEach(async () => {
            isInTest = false;
            free.takeOver(lent);
            await closeAll(ending);
          });
          beforeEach(() => {
            isInTest = true;
            clock.advance(1000);
          });
          suite({
            platform,
            database: db.name,
            clock,
            dataSource: () => dataSource,
            statements: async (work) => {
              const seen: string[] = [];
              const logQuery = dataSource.logger.logQuery.bind(dataSource.logger);
              dataSource.logger.logQuery = (query: string) => void seen.push(query);
              try {
                await work();
              } finally {
                dataSource.logger.logQuery = logQuery;
              }
              return seen;
            },
            rows: () => dataSource.getRepository(Visit).find(),
            start: async (parts, options = {}, configure) => {
              const description = isInTest && !configure ? textOf(options) : undefined;
              const known = free.take(parts, description);
              const app =
                known ??
                (await startApp(
                  platform,
                  { dataSource, clock, expunge: { schedule: false }, wipe: { schedule: false }, ...options },
                  parts,
                  configure,
                ));
              if (!known) (isInTest && description === undefined ? ending : running).push(app);
              if (description !== undefined) lent.add(parts, description, app);
              return app;
            },
          });
        });
      }
    },
    names,
  );
}

/** One platform: the next suite has the other one on the same database. */
function platformsFor(
  database: TestDatabase['name'],
  title: string,
  names: readonly TestDatabase['name'][] = ['mariadb', 'postgres', 'sqlite'],
): readonly PlatformName[] {
  const areBothServed = has('mysql') && has('postgres') && names.includes('mariadb') && names.includes('postgres');
  if (database === 'sqlite' && (isSoak || !(areBothServed || isWithoutServers))) return platforms;
  const turn = title.length + { mariadb: 0, postgres: 1, sqlite: TODAY }[database];
  return [platforms[turn % platforms.length]!];
}

/** Options as text; undefined if they contain functions, or objects with a class. */
function textOf(options: object): string | undefined {
  let isPlain = true;
  const text = JSON.stringify(options, (_key, value: unknown) => {
    const prototype: unknown =
      typeof value === 'object' && value !== null ? Object.getPrototypeOf(value) : Object.prototype;
    if (typeof value === 'function' || ![Object.prototype, Array.prototype].includes(prototype as object))
      isPlain = false;
    return value;
  });
  return isPlain ? text : undefined;
}

/** Applications by their parts and options. */
class Pool {
  private members: { parts: ModuleMetadata; description: string; app: RunningApp }[] = [];

  add(parts: ModuleMetadata, description: string, app: RunningApp): void {
    this.members.push({ parts, description, app });
  }

  take(parts: ModuleMetadata, description: string | undefined): RunningApp | undefined {
    const found = this.members.findIndex((one) => one.parts === parts && one.description === description);
    return found < 0 ? undefined : this.members.splice(found, 1)[0]!.app;
  }

  /** Moves all applications of another pool to this one, except those that were closed. */
  takeOver(other: Pool): void {
    const isOpen = ({ app: { app } }: (typeof this.members)[number]): boolean =>
      (app.getHttpServer() as { listening: boolean }).listening;
    this.members.push(...other.members.splice(0).filter(isOpen));
  }
}
