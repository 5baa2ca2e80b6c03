import { Body, Controller, Get, Inject, Post } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { CurrentUserId, IdentityService, RequireIdentity, Session, VisitModule, VisitService } from 'nest-visit';
import { createVisitTables, KyselyVisitStore } from 'nest-visit/kysely';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import { describeDatabases } from '../support/databases.js';
import { openKysely } from '../support/kysely.js';

@Controller()
class CountController {
  constructor(
    @Inject(IdentityService) private readonly identity: IdentityService,
    @Inject(VisitService) private readonly visits: VisitService,
  ) {}

  @Post('login')
  login(@Body() { user }: { user: string }) {
    return this.identity.login(user);
  }

  @Post('count')
  async count(@Session() session: Session) {
    return { count: await session.update('count', (count: number = 0) => count + 1) };
  }

  @Get('user')
  @RequireIdentity()
  async user(@CurrentUserId() userId: string) {
    return { userId, visits: (await this.visits.listForUser(userId)).length };
  }

  @Post('end')
  @RequireIdentity()
  async end(@CurrentUserId() userId: string) {
    await this.visits.endAllForUser(userId);
  }
}

describeDatabases('R65: an application that stores visits with Kysely', (db) => {
  const closers: (() => Promise<unknown>)[] = [];
  let address: string;
  beforeAll(async () => {
    const kysely = openKysely(db.name, await db.open());
    closers.unshift(() => kysely.destroy());
    await createVisitTables(kysely);
    const module = await Test.createTestingModule({
      imports: [VisitModule.forRoot({ store: new KyselyVisitStore({ db: kysely }) })],
      controllers: [CountController],
    })
      .setLogger(false as never)
      .compile();
    const app = module.createNestApplication({ logger: false });
    await app.listen(0, '127.0.0.1');
    closers.unshift(() => app.close());
    address = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  });
  afterAll(async () => {
    for (const close of closers) await close();
  });

  test('signs in, counts concurrent requests, lists and ends visits', async () => {
    const [one, two] = [new Browser(address), new Browser(address)];
    await one.post('/count');
    const answers = await Promise.all(Array.from({ length: 12 }, () => one.post('/count')));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
    for (const browser of [one, two])
      expect((await browser.post('/login', { json: { user: 'alice' } })).status).toBe(201);
    expect(JSON.parse((await one.post('/count')).text)).toEqual({ count: 14 });
    expect(JSON.parse((await two.get('/user')).text)).toEqual({ userId: 'alice', visits: 2 });
    expect((await two.post('/end')).status).toBe(201);
    for (const browser of [one, two]) expect((await browser.get('/user')).status).toBe(401);
  });
});
