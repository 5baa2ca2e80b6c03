import { Body, Controller, Get, Inject, Module, Post, type DynamicModule } from '@nestjs/common';
import { CurrentUserId, IdentityService, RequireIdentity, Session, VisitModule } from 'nest-visit';
import { PrismaVisitStore } from 'nest-visit/prisma';
import { Test } from '@nestjs/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import type { TestPrisma } from '../support/prisma-client.mjs';
import { describePrisma } from '../support/prisma.js';

@Controller()
class CartController {
  constructor(@Inject(IdentityService) private readonly identity: IdentityService) {}

  @Post('login')
  login(@Body() { user }: { user: string }) {
    return this.identity.login(user);
  }

  @Post('logout')
  logout() {
    return this.identity.logout();
  }

  @Get('user')
  @RequireIdentity()
  user(@CurrentUserId() userId: string) {
    return { userId };
  }

  @Post('add')
  async add(@Session() session: Session, @Body() { name }: { name: string }) {
    session.set(name, true);
    return { count: await session.update('count', (count: number = 0) => count + 1) };
  }

  @Get('cart')
  cart(@Session() session: Session) {
    return Object.fromEntries(session.entries());
  }
}

const PRISMA = Symbol('PRISMA');

@Module({})
class PrismaModule {
  static of(prisma: TestPrisma): DynamicModule {
    return {
      module: PrismaModule,
      global: true,
      providers: [{ provide: PRISMA, useValue: prisma }],
      exports: [PRISMA],
    };
  }
}

describePrisma('R65: an application that stores visits with Prisma', (db) => {
  const closers: (() => Promise<unknown>)[] = [];
  const browsers: Browser[] = [];
  let prisma: TestPrisma;

  beforeAll(async () => {
    const database = await db.open();
    // Two processes, as far as the database can tell.
    for (const isFirst of [true, false]) {
      const client = await db.connect(database);
      closers.unshift(() => client.$disconnect());
      if (isFirst) {
        prisma = client;
        await db.createTables(client);
      }
      const module = await Test.createTestingModule({
        imports: [
          PrismaModule.of(client),
          VisitModule.forRootAsync({
            inject: [PRISMA],
            useFactory: (given: TestPrisma) => ({ store: new PrismaVisitStore(given) }),
          }),
        ],
        controllers: [CartController],
      })
        .setLogger(false as never)
        .compile();
      const app = module.createNestApplication({ logger: false });
      await app.listen(0, '127.0.0.1');
      closers.unshift(() => app.close());
      browsers.push(new Browser((await app.getUrl()).replace('[::1]', '127.0.0.1')));
    }
  });
  afterAll(async () => {
    for (const close of closers) await close();
  });

  /** The same visitor, at either application. */
  const visitor = (): [Browser, Browser] => {
    const [one, two] = browsers.map(({ address }) => new Browser(address)) as [Browser, Browser];
    Object.defineProperty(two, 'jar', { value: one.jar });
    return [one, two];
  };
  const json = async (answer: Promise<{ text: string }>): Promise<unknown> => JSON.parse((await answer).text);

  test('signs in at one application, is known at the other, and signs out there', async () => {
    const [one, two] = visitor();
    await one.post('/add', { json: { name: 'apple' } });
    const anonymous = one.clone();
    expect((await two.post('/login', { json: { user: 'alice' } })).status).toBe(201);
    expect(await json(one.get('/user'))).toEqual({ userId: 'alice' });
    expect(await json(two.get('/cart'))).toEqual({ apple: true, count: 1 });
    // The key from before the sign-in is worth nothing.
    expect((await anonymous.get('/user')).status).toBe(401);
    expect(await json(anonymous.get('/cart'))).toEqual({});
    const signedIn = one.clone();
    await two.post('/logout');
    expect((await one.get('/user')).status).toBe(401);
    expect((await signedIn.get('/user')).status).toBe(401);
    const ended = await prisma.$queryRawUnsafe<{ end_reason: string }[]>(
      'SELECT end_reason FROM visit WHERE ended_at IS NOT NULL',
    );
    expect(ended).toEqual([{ end_reason: 'logout' }]);
  });

  test('R51, B8: loses no change of two concurrent applications', async () => {
    const [one, two] = visitor();
    await one.post('/add', { json: { name: 'first' } });
    const names = Array.from({ length: 24 }, (_, index) => `item${index}`);
    const answers = await Promise.all(
      names.map((name, index) => (index % 2 ? one : two).post('/add', { json: { name } })),
    );
    expect(answers.map(({ status }) => status)).toEqual(names.map(() => 201));
    expect(await json(two.get('/cart'))).toEqual({
      ...Object.fromEntries(['first', ...names].map((name) => [name, true])),
      count: 25,
    });
  });
});
