import type { Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import {
  Controller,
  Get,
  Inject,
  Injectable,
  Post,
  Res,
  type BeforeApplicationShutdown,
  type OnModuleDestroy,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { MemoryVisitStore, Session, VisitModule, type VisitModuleOptions } from 'nest-visit';
import { RedisVisitStore } from 'nest-visit/redis';
import { createClient } from 'redis';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { describeDatabases } from '../support/databases.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { openMigrated } from '../support/open-migrated.js';
import { PATIENCE } from '../support/patience.js';
import { uniquePrefix } from '../support/redis.js';

/** A moment that others wait for. */
class Moment {
  reach!: () => void;
  readonly reached = new Promise<void>((resolve) => (this.reach = resolve));
}

let held: Moment;
let goOn: Moment;
let closed: Moment;
let end: Moment;
let closeStore: () => Promise<unknown>;

/** An application that closes what it has lent, as soon as it is told to end. */
@Injectable()
class Owner implements OnModuleDestroy, BeforeApplicationShutdown {
  async onModuleDestroy() {
    await closeStore();
    closed.reach();
  }

  /** Requests still come until then. */
  async beforeApplicationShutdown() {
    await end.reached;
  }
}

@Controller()
class Site {
  constructor(@Inject(Session) private readonly session: Session<{ n: number }>) {}

  @Get('read')
  read() {
    return { n: this.session.get('n', 0) };
  }

  @Post('add')
  add() {
    return this.session.update('n', (n = 0) => n + 1);
  }

  @Post('hold/update')
  async holdUpdate() {
    await this.wait();
    return this.session.update('n', (n = 0) => n + 1);
  }

  @Post('hold/set')
  async holdSet() {
    await this.wait();
    this.session.set('n', 5);
    return 'ok';
  }

  @Post('hold/res')
  async holdRes(@Res() response: { send(body: unknown): void }) {
    await this.wait();
    this.session.set('n', 5);
    response.send('ok');
  }

  private async wait() {
    held.reach();
    await goOn.reached;
  }
}

/** What an application has lent, and closes itself. */
interface Lent {
  readonly options: VisitModuleOptions;
  close(): Promise<unknown>;
}

function suite(open: () => Promise<Lent>): void {
  describe.each(platforms)('under %s', (platform) => {
    let app: RunningApp;
    afterEach(() => end.reach());

    async function closing(
      path?: string,
    ): Promise<{ browser: Browser; answer: ReturnType<Browser['post']> | undefined }> {
      [held, goOn, closed, end] = [new Moment(), new Moment(), new Moment(), new Moment()];
      const lent = await open();
      closeStore = () => lent.close();
      app = await startApp(platform, lent.options, { controllers: [Site], providers: [Owner] });
      const browser = app.browser();
      await browser.post('/add');
      const answer = path === undefined ? undefined : browser.post(path);
      if (answer) await held.reached;
      const ended = app.close();
      onTestFinished(() => {
        end.reach();
        return ended;
      });
      await closed.reached;
      return { browser, answer };
    }

    const expectToComeBack = ({ status, headers, text }: Awaited<ReturnType<Browser['get']>>): void => {
      expect(status, text).toBe(503);
      expect(Number(headers.get('retry-after')), text).toBeGreaterThan(0);
      expect(JSON.parse(text)).toEqual({
        statusCode: 503,
        message: expect.any(String) as string,
        code: 'VISIT_STORE_UNAVAILABLE',
      });
    };

    test.each(['/hold/update', '/hold/set', '/hold/res'])('B18: the response to %s is a 503', async (path) => {
      const { answer } = await closing(path);
      goOn.reach();
      expectToComeBack(await answer!);
    });

    test('B18: so are responses to later requests', async () => {
      const { browser } = await closing();
      expectToComeBack(await browser.get('/read'));
      expectToComeBack(await browser.post('/add'));
    });
  });
}

describe('An application that shuts down after closing', () => {
  describeDatabases(
    'a data source',
    (db) => {
      suite(async () => {
        const dataSource = await openMigrated((await db.open()).options);
        onTestFinished(async () => void (dataSource.isInitialized && (await dataSource.destroy())));
        return { options: { dataSource }, close: () => dataSource.destroy() };
      });
    },
    // The driver of SQLite ends the process when a closed file is used.
    ['mariadb', 'postgres'],
  );
  describeWith('redis', 'a client of redis', () => {
    suite(async () => {
      const client = createClient({ url: redisUrl! });
      await client.connect();
      return {
        options: { store: new RedisVisitStore({ client, prefix: uniquePrefix() }) },
        close: async () => client.destroy(),
      };
    });
  });
});

describe('A request on an open connection while Fastify closes', () => {
  test.each([
    [true, '503 Service Unavailable'],
    [false, '200 OK'],
  ])('with return503OnClosing %s has the response %s', async (option, expected) => {
    [held, goOn] = [new Moment(), new Moment()];
    const imports = [VisitModule.forRoot({ store: new MemoryVisitStore() })];
    class App {}
    const app = await NestFactory.create(
      { module: App, imports, controllers: [Site] },
      new FastifyAdapter({ return503OnClosing: option }),
      { logger: false },
    );
    await app.listen(0, '127.0.0.1');
    const server = app.getHttpServer() as Server;
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    let text = '';
    socket.on('data', (data) => (text += data.toString()));
    socket.write('POST /hold/update HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n');
    await held.reached;
    const ended = app.close();
    const asked = new Promise((resolve) => server.once('request', resolve));
    await vi.waitUntil(() => !server.listening, { timeout: PATIENCE });
    socket.write('GET /read HTTP/1.1\r\nHost: a\r\n\r\n');
    await asked;
    goOn.reach();
    await vi.waitUntil(() => text.includes(expected), { timeout: PATIENCE });
    const [, first, second] = text.split('HTTP/1.1 ');
    expect(first).toContain('201 Created');
    // The 503 is Fastify's own, which asks nobody: it does not say when to come again.
    expect(second).toContain(expected);
    expect(text).not.toMatch(/retry-after/i);
    await ended;
  });
});
