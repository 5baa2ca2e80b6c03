import { Controller, Get, Inject, Post, type INestApplication } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import { Test } from '@nestjs/testing';
import * as today from 'nest-visit';
import type { IdentityService, Session } from 'nest-visit';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import { describeDatabases } from '../support/databases.js';
import { buildNextVersion, type NextVersion } from '../support/next-version.js';
import { PATIENCE } from '../support/patience.js';

// Two processes of an application in the midst of a rolling deployment, as far as the database can tell: one has
// today's version of the library, the other one the next.

type Library = typeof today;

/** The same controller for either version. */
function controllerFor(library: Library) {
  @Controller()
  class CartController {
    constructor(
      @Inject(library.IdentityService) private readonly identity: IdentityService,
      @Inject(library.Session) private readonly session: Session,
    ) {}

    @Post('add')
    async add() {
      this.session.set('last', 'added');
      return { count: await this.session.update('count', (count = 0) => Number(count) + 1) };
    }

    @Post('sign-in')
    signIn() {
      return this.identity.login('ann');
    }

    @Post('sign-out')
    signOut() {
      return this.identity.logout();
    }

    @Get('who')
    who() {
      return { user: this.identity.userId, cart: Object.fromEntries(this.session.entries()) };
    }
  }
  return CartController;
}

describeDatabases(
  'A rolling deployment of an application',
  (db) => {
    let next: NextVersion;
    const apps: INestApplication[] = [];
    const addresses: string[] = [];

    const start = async (library: Library, dataSource: DataSource | DataSourceOptions): Promise<void> => {
      const options = {
        dataSource,
        storeTimeout: PATIENCE,
        expunge: { schedule: false },
        wipe: { schedule: false },
      } as const;
      const module = await Test.createTestingModule({
        imports: [library.VisitModule.forRoot(options)],
        controllers: [controllerFor(library)],
      })
        .setLogger(false as never)
        .compile();
      const app = module.createNestApplication(new ExpressAdapter(), { logger: false });
      await app.listen(0, '127.0.0.1');
      apps.push(app);
      addresses.push(await app.getUrl());
    };

    beforeAll(async () => {
      next = buildNextVersion();
      const { options } = await db.open();
      await start(today, { ...options, migrationsRun: true });
      await start(await next.load<Library>('../index.js'), { ...options, migrationsRun: true });
    });
    afterAll(async () => {
      for (const app of apps) await app.close();
      next?.remove();
    });

    test('keeps visits, sessions and users from one version to the other and back', async () => {
      const [old, young] = addresses.map((address) => ({ address }));
      const browser = new Browser(old!.address);
      const at = (which: { address: string } | undefined): Browser => browser.via(which!);
      const who = async (which: { address: string } | undefined): Promise<unknown> =>
        JSON.parse((await at(which).get('/who')).text);
      for (const [one, other] of [
        [old, young],
        [young, old],
      ]) {
        for (const which of [one, other, one]) expect((await at(which).post('/add')).status).toBe(201);
        expect(await who(other)).toMatchObject({ user: null, cart: { last: 'added' } });
        await at(one).post('/sign-in');
        expect(await who(other)).toMatchObject({ user: 'ann', cart: { last: 'added' } });
        await at(other).post('/add');
        expect(await who(one)).toMatchObject({ user: 'ann' });
        await at(other).post('/sign-out');
        expect(await who(one)).toMatchObject({ user: null });
      }
    });

    test('loses no write of either version', async () => {
      const browser = new Browser(addresses[0]!);
      await browser.post('/add');
      const each = addresses.map((address) => browser.via({ address }));
      await Promise.all(Array.from({ length: 10 }, (_, index) => each[index % 2]!.post('/add')));
      expect(JSON.parse((await browser.get('/who')).text)).toMatchObject({ cart: { count: 11 } });
    });
  },
  ['sqlite', 'postgres'],
);
