import type { INestApplication, ModuleMetadata } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { Visit, VisitModule, type VisitModuleOptions } from 'nest-visit';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe } from 'vitest';
import { openMigrated } from './open-migrated.js';
import { Browser } from './browser.js';
import { describeDatabases, type TestDatabase } from './databases.js';
import { ManualClock } from './manual-clock.js';
import { PATIENCE } from './patience.js';

export type PlatformName = 'express' | 'fastify';

const adapters = { express: () => new ExpressAdapter(), fastify: () => new FastifyAdapter() };

export const platforms = Object.keys(adapters) as PlatformName[];

export interface RunningApp {
  readonly app: INestApplication;
  readonly address: string;
  /** A client without cookies yet. */
  browser(): Browser;
  close(): Promise<void>;
}

/** Starts an application on a free port of this machine. */
export async function startApp(
  platform: PlatformName,
  options: VisitModuleOptions,
  parts: ModuleMetadata,
  configure?: (app: INestApplication) => void,
): Promise<RunningApp> {
  const module = await Test.createTestingModule({
    ...parts,
    imports: [VisitModule.forRoot({ storeTimeout: PATIENCE, ...options }), ...(parts.imports ?? [])],
  })
    .setLogger(false as never)
    .compile();
  const app = module.createNestApplication(adapters[platform]() as ExpressAdapter, { logger: false });
  configure?.(app);
  await app.listen(0, '127.0.0.1');
  const address = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  return { app, address, browser: () => new Browser(address), close: () => app.close() };
}

/** One database and one platform, for a suite that has to hold on each. */
export interface Stack {
  readonly platform: PlatformName;
  readonly database: TestDatabase['name'];
  readonly clock: ManualClock;
  /** Open, with the tables. */
  dataSource(): DataSource;
  /** The SQL statements that `work` causes. */
  statements(work: () => Promise<unknown>): Promise<string[]>;
  /** The rows of the visit table. */
  rows(): Promise<Visit[]>;
  start(parts: ModuleMetadata, options?: Partial<VisitModuleOptions>, configure?: (app: INestApplication) => void): Promise<RunningApp>;
}

/**
 * Runs a suite on MariaDB, PostgreSQL and SQLite, each under Express and Fastify. Applications it starts are closed after it.
 *
 * @param names of the databases, where not all of them matter
 */
export function describeStacks(title: string, suite: (stack: Stack) => void, names?: readonly TestDatabase['name'][]): void {
  describeDatabases(
    title,
    (db) => {
      let dataSource: DataSource;
      // One for both platforms: what one has written must not lie in the future of the other.
      const clock = new ManualClock();
      beforeAll(async () => {
        const { options } = await db.open();
        dataSource = await openMigrated(options);
      });
      afterAll(() => dataSource?.destroy());
      for (const platform of platforms) {
        describe(`under ${platform}`, () => {
          const running: RunningApp[] = [];
          afterAll(() => Promise.all(running.map((one) => one.close())));
          beforeEach(() => clock.advance(1000));
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
              const app = await startApp(
                platform,
                { dataSource, clock, expunge: { schedule: false }, wipe: { schedule: false }, ...options },
                parts,
                configure,
              );
              running.push(app);
              return app;
            },
          });
        });
      }
    },
    names,
  );
}
