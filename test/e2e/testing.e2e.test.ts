import { Controller, Get, Post, UseGuards, type INestApplication } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import {
  CsrfGuard,
  CurrentUserId,
  FormTokenGuard,
  IdentityGuard,
  RequireFormToken,
  RequireFresh,
  RequireIdentity,
  Session,
} from 'nest-visit';
import { signIn, TestClock, VisitTestingModule } from 'nest-visit/testing';
import type { BrowserContext } from 'playwright-core';
import request from 'supertest';
import { afterEach, describe, expect, test } from 'vitest';

@Controller()
class OrdersController {
  constructor(private readonly session: Session) {}

  @Get('orders')
  @RequireIdentity()
  list(@CurrentUserId() userId: string) {
    return `orders of ${userId}`;
  }

  @Get('count')
  count() {
    const count = Number(this.session.get('count') ?? 0) + 1;
    this.session.set('count', count);
    return String(count);
  }

  @Post('pay')
  @RequireFresh({ maxAge: '15m' })
  @UseGuards(CsrfGuard)
  pay() {
    return 'paid';
  }

  @Post('transfer')
  @UseGuards(CsrfGuard)
  transfer() {
    return 'transferred';
  }

  @Post('free')
  free() {
    return 'free';
  }

  @Post('order')
  @RequireFormToken()
  order() {
    return 'ordered';
  }
}

let app: INestApplication | undefined;
afterEach(async () => {
  await app?.close();
  app = undefined;
});

const clock = new TestClock(new Date('2030-01-01T00:00:00Z'));

describe('nest-visit/testing offers for tests of applications', () => {
  const compile = () =>
    Test.createTestingModule({
      imports: [VisitTestingModule.forRoot({ clock, timeout: '20m', cookie: { name: 'sid' } })],
      controllers: [OrdersController],
    }).compile();

  test('a browser that is signed in, for supertest', async () => {
    app = (await compile()).createNestApplication();
    await app.init();
    const server = app.getHttpServer() as Parameters<typeof request>[0];
    const ada = await signIn(app, 'ada');
    expect(ada.visit).toMatchObject({ userId: 'ada', created: new Date(clock.now()) });
    await request(server).get('/orders').set(ada.headers).expect(200, 'orders of ada');
    await request(server).get('/orders').expect(401);
    await request(server).post('/pay').set(ada.headers).expect(201, 'paid');
    await request(server).get('/count').set(ada.headers).expect(200, '1');
    await request(server).get('/count').set(ada.headers).expect(200, '2');
  });

  test('the same for light-my-request, under Fastify', async () => {
    const fastify = (await compile()).createNestApplication<NestFastifyApplication>(new FastifyAdapter());
    app = fastify;
    await app.init();
    const bob = await signIn(app, 7);
    expect((await fastify.inject({ url: '/orders', headers: bob.headers })).body).toBe('orders of 7');
    expect((await fastify.inject({ url: '/orders' })).statusCode).toBe(401);
  });

  test('the same for Playwright, which takes a cookie by itself', async () => {
    const module = await compile();
    app = module.createNestApplication();
    await app.init();
    const ada = await signIn(module, 'ada');
    const cookies: Parameters<BrowserContext['addCookies']>[0] = [ada.cookieFor('http://127.0.0.1:3000')];
    expect(cookies).toEqual([{ name: 'sid', value: ada.key, url: 'http://127.0.0.1:3000', httpOnly: true }]);
    expect(ada.headers.cookie).toBe(`sid=${ada.key}`);
  });

  test('a clock that can be moved: a visit expires, a sign-in becomes old', async () => {
    app = (await compile()).createNestApplication();
    await app.init();
    const server = app.getHttpServer() as Parameters<typeof request>[0];
    const ada = await signIn(app, 'ada');
    clock.advance('16m');
    await request(server).post('/pay').set(ada.headers).expect(401);
    await request(server).get('/orders').set(ada.headers).expect(200);
    clock.advance(20 * 60_000 + 1);
    await request(server).get('/orders').set(ada.headers).expect(401);
    const stale = await signIn(app, 'ada', { authenticatedAt: new Date(clock.now() - 3_600_000) });
    await request(server).post('/pay').set(stale.headers).expect(401);
    expect(() => clock.advance('soon' as '1m')).toThrow('a duration such as "21m" was expected, got "soon"');
  });

  test('guards that can be replaced: a controller is tested alone', async () => {
    const yes = { canActivate: () => true };
    const module = await Test.createTestingModule({
      controllers: [OrdersController],
      providers: [{ provide: Session, useValue: new Map() }],
    })
      .overrideGuard(IdentityGuard)
      .useValue(yes)
      .overrideGuard(FormTokenGuard)
      .useValue(yes)
      .overrideGuard(CsrfGuard)
      .useValue(yes)
      .compile();
    const controller = module.get(OrdersController);
    expect(controller.list('ada')).toBe('orders of ada');
    expect([controller.count(), controller.count()]).toEqual(['1', '2']);
  });

  test.each(['express', 'fastify'] as const)(
    'the same over HTTP under %s: each guard alone, and the global one',
    async (platform) => {
      const replaced = { canActivate: () => true };
      const start = async (...guards: (typeof CsrfGuard | typeof FormTokenGuard | typeof IdentityGuard)[]) => {
        const builder = Test.createTestingModule({
          imports: [VisitTestingModule.forRoot()],
          controllers: [OrdersController],
        });
        for (const guard of guards) builder.overrideGuard(guard).useValue(replaced);
        app = (await builder.compile()).createNestApplication(
          (platform === 'fastify' ? new FastifyAdapter() : new ExpressAdapter()) as FastifyAdapter,
        );
        await app.init();
        await (app as Partial<NestFastifyApplication>).getHttpAdapter?.().getInstance().ready?.();
        const server = app.getHttpServer() as Parameters<typeof request>[0];
        const { status: orders, text } = await request(server).get('/orders');
        const { status: order } = await request(server).post('/order');
        const { status: transfer } = await request(server).post('/transfer').set('sec-fetch-site', 'cross-site');
        await app.close();
        return { orders: `${orders} ${text.slice(0, 9)}`, order, transfer };
      };
      expect(await start()).toEqual({ orders: expect.stringMatching(/^401 /), order: 403, transfer: 403 });
      expect(await start(IdentityGuard)).toEqual({ orders: '200 orders of', order: 403, transfer: 403 });
      expect(await start(FormTokenGuard)).toMatchObject({ order: 201, transfer: 403 });
      expect(await start(CsrfGuard)).toMatchObject({ order: 403, transfer: 201 });
      expect(await start(IdentityGuard, FormTokenGuard, CsrfGuard)).toEqual({
        orders: '200 orders of',
        order: 201,
        transfer: 201,
      });
    },
  );

  test('a global guard that is replaced as a provider', async () => {
    const module = await Test.createTestingModule({
      imports: [VisitTestingModule.forRoot()],
      controllers: [OrdersController],
      providers: [{ provide: APP_GUARD, useExisting: CsrfGuard }],
    })
      .overrideProvider(CsrfGuard)
      .useValue({ canActivate: () => true })
      .compile();
    app = module.createNestApplication();
    await app.init();
    const server = app.getHttpServer() as Parameters<typeof request>[0];
    const { status, text } = await request(server).post('/free').set('sec-fetch-site', 'cross-site');
    expect([status, text]).toEqual([201, 'free']);
  });
});
