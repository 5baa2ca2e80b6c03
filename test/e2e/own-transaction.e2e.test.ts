import { Controller, Get, Inject, Post } from '@nestjs/common';
import { IdentityService, Session, VisitService } from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Browser } from '../support/browser.js';
import { describeDatabases } from '../support/databases.js';
import { openMigrated } from '../support/open-migrated.js';
import { startApp, type PlatformName, type RunningApp } from '../support/app.js';

// What an application does with visits within a transaction of its own.

/** What the work failed with, if it did. */
async function codeOf(work: Promise<unknown>): Promise<{ code: string | null }> {
  return work.then(
    () => ({ code: null }),
    (error: unknown) => ({ code: (error as { code: string }).code }),
  );
}

@Controller()
class SignUpController {
  constructor(
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(IdentityService) private readonly identity: IdentityService,
    @Inject(VisitService) private readonly visits: VisitService,
    @Inject(Session) private readonly session: Session,
  ) {}

  @Post('within')
  within() {
    return codeOf(
      this.dataSource.transaction(async (manager) => {
        await manager.query('SELECT 1');
        await this.identity.login('ann');
      }),
    );
  }

  @Post('within-runner')
  async withinRunner() {
    const runner = this.dataSource.createQueryRunner();
    await runner.connect();
    await runner.startTransaction();
    try {
      await this.session.update('count', (count = 0) => Number(count) + 1);
      await runner.commitTransaction();
    } catch (error) {
      await runner.rollbackTransaction();
      return await codeOf(Promise.reject(error));
    } finally {
      await runner.release();
    }
    return { code: null };
  }

  @Post('within-nested')
  withinNested() {
    return codeOf(this.dataSource.transaction((manager) => manager.transaction(() => this.visits.listForUser('ann'))));
  }

  @Post('before-and-after')
  async beforeAndAfter() {
    this.session.set('step', 'before');
    await this.session.save();
    await this.dataSource.transaction((manager) => manager.query('SELECT 1'));
    await this.identity.login('bob');
    await this.dataSource.transaction((manager) => manager.query('SELECT 1'));
    this.session.set('step', 'after');
  }

  @Post('after-failed')
  async afterFailed() {
    await this.dataSource.transaction(() => Promise.reject(new Error('full'))).catch(() => undefined);
    await this.identity.login('cy');
  }

  @Get('who')
  who() {
    return { user: this.identity.userId ?? null, session: Object.fromEntries(this.session.entries()) };
  }
}

async function whoIs(browser: Browser): Promise<unknown> {
  return JSON.parse((await browser.get('/who')).text) as unknown;
}

describeDatabases(
  'A transaction of the application',
  (db) => {
    const opened: { app: RunningApp; dataSource: DataSource }[] = [];
    afterAll(async () => {
      for (const { app, dataSource } of opened) {
        await app.close();
        await dataSource.destroy();
      }
    });
    const start = async (
      platform: PlatformName,
      poolSize: number,
    ): Promise<{ app: RunningApp; dataSource: DataSource }> => {
      const { options } = await db.open();
      const dataSource = await openMigrated({ ...options, poolSize } as DataSourceOptions);
      const providers = [{ provide: DataSource, useValue: dataSource }];
      const app = await startApp(platform, { dataSource }, { controllers: [SignUpController], providers });
      opened.push({ app, dataSource });
      return { app, dataSource };
    };

    let one: { app: RunningApp; dataSource: DataSource };
    let two: { app: RunningApp; dataSource: DataSource };
    beforeAll(async () => {
      one = await start(db.name === 'mariadb' ? 'express' : 'fastify', 1);
      two = await start(db.name === 'mariadb' ? 'fastify' : 'express', 2);
    });

    test.each(['within', 'within-runner', 'within-nested'])(
      'on a pool of one connection, %s is refused immediately, with a code',
      async (path) => {
        const browser = one.app.browser();
        // Its deadline is long: whoever waited for it would not see the end of this test.
        const answer = await browser.post(`/${path}`);
        expect(JSON.parse(answer.text)).toEqual({ code: 'VISIT_OPEN_TRANSACTION' });
        expect(answer.cookies).toEqual([]);
        expect(await one.dataSource.getRepository(Visit).count()).toBe(0);
        // And nobody else is the worse for it.
        expect(await whoIs(one.app.browser())).toMatchObject({ user: null });
      },
    );

    test('on a pool of one connection, calls before and after it succeed', async () => {
      for (const [path, user] of [
        ['before-and-after', 'bob'],
        ['after-failed', 'cy'],
      ] as const) {
        const browser = one.app.browser();
        expect(await browser.post(`/${path}`)).toMatchObject({ status: 201 });
        expect(await whoIs(browser)).toMatchObject({ user });
      }
    });

    test('with a second connection, calls succeed, and are committed separately', async () => {
      const browser = two.app.browser();
      expect(await browser.post('/within')).toMatchObject({ status: 201 });
      expect(await whoIs(browser)).toMatchObject({ user: 'ann' });
      expect(await browser.post('/within-runner')).toMatchObject({ status: 201 });
      expect(await whoIs(browser)).toMatchObject({ session: { count: 1 } });
    });
  },
  ['mariadb', 'postgres'],
);
