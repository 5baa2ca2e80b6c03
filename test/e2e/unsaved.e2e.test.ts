import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import compress from '@fastify/compress';
import {
  Catch,
  Controller,
  GatewayTimeoutException,
  Get,
  Injectable,
  Redirect,
  Req,
  Sse,
  StreamableFile,
  UseFilters,
  UseGuards,
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  type ExceptionFilter,
  type ExecutionContext,
  type INestApplication,
  type NestInterceptor,
} from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import compression from 'compression';
import helmet from 'helmet';
import { IdentityService, Session } from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { from, merge, of, retry, switchMap, tap, throwError } from 'rxjs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { isForToday, ofToday } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';

const FILE = fileURLToPath(import.meta.url);

/** What a request leaves unsaved when its response is sent; set by each test. */
let make: (session: Session, identity: IdentityService) => unknown;

/** That of the request, wherever code has no session of ours at hand. */
let injected: Session;

const kinds: Record<string, typeof make> = {
  'a change': (session) => void (session['note'] = 'kept'),
  'a nested change': (session) => void (session['list'] as string[]).push('kept'),
  'an update that is not awaited': () => void injected.update('note', () => 'kept'),
  'a sign-in that is not awaited': (session, identity) => {
    session['note'] = 'kept';
    void identity.login('ann');
  },
};

interface Exchanged {
  readonly session: Session;
  readonly url: string;
}

@Injectable()
class Denying implements CanActivate {
  constructor(private readonly identity: IdentityService) {}

  canActivate(execution: ExecutionContext): boolean {
    make(execution.switchToHttp().getRequest<Exchanged>().session, this.identity);
    return false;
  }
}

@Catch(RangeError)
@Injectable()
class Answering implements ExceptionFilter {
  constructor(private readonly identity: IdentityService) {}

  catch(_error: unknown, host: ArgumentsHost): void {
    make(host.switchToHttp().getRequest<Exchanged>().session, this.identity);
    host
      .switchToHttp()
      .getResponse<{ status(code: number): { send(body: unknown): void } }>()
      .status(422)
      .send({ meant: true });
  }
}

/** Around the library's: it was registered first. */
@Injectable()
class Around implements NestInterceptor {
  constructor(private readonly identity: IdentityService) {}

  intercept(execution: ExecutionContext, next: CallHandler) {
    const request = execution.switchToHttp().getRequest<Exchanged>();
    if (request.url === '/around') return next.handle().pipe(tap(() => void make(request.session, this.identity)));
    if (request.url === '/given-up')
      return merge(next.handle(), from(arrived).pipe(switchMap(() => throwError(() => new GatewayTimeoutException()))));
    if (request.url.startsWith('/retried')) return next.handle().pipe(retry(2));
    return next.handle();
  }
}

let tries = 0;

const deferred = (): [Promise<void>, () => void] => {
  let settle!: () => void;
  return [new Promise<void>((resolve) => (settle = resolve)), () => settle()];
};
const [arrived, arrive] = deferred();
const [goneOn, goOn] = deferred();
const [ended, end] = deferred();

@Injectable()
class Noting implements CanActivate {
  canActivate(execution: ExecutionContext): boolean {
    execution.switchToHttp().getRequest<Exchanged>().session['guarded'] = true;
    return true;
  }
}

@Controller()
class Senders {
  constructor(private readonly identity: IdentityService) {}

  @Get('redirected')
  @Redirect('/meant')
  redirected(@Req() { session }: Exchanged) {
    make(session, this.identity);
  }

  @Get('file')
  file(@Req() { session }: Exchanged) {
    make(session, this.identity);
    return new StreamableFile(createReadStream(FILE));
  }

  @Sse('events')
  events(@Req() { session }: Exchanged) {
    make(session, this.identity);
    return of({ data: 'meant' });
  }

  @Get('denied')
  @UseGuards(Denying)
  denied() {
    return 'meant';
  }

  @Get('filtered')
  @UseFilters(Answering)
  filtered(): never {
    throw new RangeError('meant');
  }

  @Get('around')
  around() {
    return 'meant';
  }

  @Get('given-up')
  @UseGuards(Noting)
  async givenUp(@Req() { session }: Exchanged) {
    session['b'] = 2;
    arrive();
    await goneOn;
    session['c'] = 3;
    end();
    return 'ok';
  }

  @Get('retried')
  @UseGuards(Noting)
  retried(@Req() { session }: Exchanged) {
    session['tries'] = ((session['tries'] as number | undefined) ?? 0) + 1;
    session[`try ${tries}`] = true;
    if (tries++ === 0) throw new Error('try again');
    return 'ok';
  }
}

type Send = (tools: Tools) => unknown;

/** Handlers that send their response themselves. */
const sending: Record<string, { readonly on?: 'express' | 'fastify'; readonly send: Send }> = {
  send: { send: ({ reply }) => void reply.send({ meant: true }) },
  redirect: { send: ({ reply }) => void reply.redirect('/meant') },
  'raw end': { send: ({ raw }) => void raw.end('meant') },
  'raw head, write and end': {
    send: ({ raw }) => {
      raw.writeHead(201, { 'x-meant': 'yes' });
      raw.write('meant');
      raw.end();
    },
  },
  pipeline: { send: ({ raw }) => pipeline(Readable.from([Buffer.from('meant')]), raw) },
  json: { on: 'express', send: ({ reply }) => reply.json({ meant: true }) },
  end: { on: 'express', send: ({ reply }) => reply.end('meant') },
  render: { on: 'express', send: ({ reply }) => reply.render('page', { word: 'meant' }) },
  sendFile: { on: 'express', send: ({ reply }) => reply.sendFile(FILE) },
  hijack: {
    on: 'fastify',
    send: ({ reply }) => {
      reply.hijack();
      reply.raw.end('meant');
    },
  },
  'a stream': { on: 'fastify', send: ({ reply }) => void reply.send(Readable.from([Buffer.from('meant')])) },
};

for (const platform of platforms) {
  const variants: Record<string, (app: INestApplication) => unknown> = {
    plain: () => undefined,
    'with compression and helmet()': (app) => {
      app.use(helmet());
      if (platform === 'express') return app.use(compression({ threshold: 0 }));
      return (app as NestFastifyApplication).register(compress, { threshold: 0 });
    },
  };

  // Each platform every day: without what wraps its responses on one, with it on the other.
  const today = ofToday(Object.keys(variants), platforms.indexOf(platform));

  describe.each(today)(`A response under ${platform}, %s`, (variant) => {
    let app: InlineApp;
    const watched = new WatchedStore();
    beforeAll(async () => {
      app = await InlineApp.start(
        platform,
        { store: watched.store },
        { controllers: [Senders], providers: [Denying, Answering, { provide: APP_INTERCEPTOR, useClass: Around }] },
        (nest: INestApplication) => {
          variants[variant]!(nest);
          const identity = (): IdentityService => nest.get(IdentityService);
          const instance = nest.getHttpAdapter().getInstance();
          if (platform === 'express') {
            const express = nest as NestExpressApplication;
            express.use((request: Exchanged, response: { send(text: string): void }, next: () => void) => {
              if (request.url !== '/middleware') return next();
              make(request.session, identity());
              response.send('meant');
            });
            instance.engine(
              'txt',
              (_path: string, { word }: { word: string }, done: (error: null, page: string) => void) =>
                done(null, word),
            );
            express.setViewEngine('txt');
            express.setBaseViewsDir(fileURLToPath(new URL('../support/fixtures', import.meta.url)));
          } else {
            instance.addHook('onRequest', (request: Exchanged, reply: any, done: () => void) => {
              if (request.url !== '/middleware') return done();
              make(request.session, identity());
              reply.send('meant');
            });
            instance.get('/middleware', () => 'unreached');
          }
        },
      );
      injected = app.running.app.get(Session);
    });
    afterAll(() => app.close());
    afterEach(() => watched.pass());

    const paths: [name: string, path: (work: Send) => string][] = [
      ['a returned value', () => app.path(({ session, identity }) => (make(session, identity), { meant: true }))],
      ['@Redirect()', () => '/redirected'],
      ['StreamableFile', () => '/file'],
      ['events', () => '/events'],
      ['a guard that denies', () => '/denied'],
      ['an exception filter', () => '/filtered'],
      ["an interceptor around the library's", () => '/around'],
      ['middleware or a hook', () => '/middleware'],
      ...Object.entries(sending)
        .filter(([, { on = platform }]) => on === platform)
        .map(([name, { send }]): [string, () => string] => [
          `@Res(), ${name}`,
          () => app.sendingPath((tools) => (make(tools.session, tools.identity), send(tools))),
        ]),
    ];

    /** A visitor with a session. */
    const begin = async () => {
      const browser = app.browser();
      await app.ask(browser, ({ session }) => void (session['list'] = []));
      return browser;
    };
    const open = (browser: Browser, path: string) => browser.open(path, { headers: { 'accept-encoding': 'gzip' } });

    describe.each(Object.entries(kinds))('with %s not yet saved', (kind, makeUnsaved) => {
      // Each way of sending with a change; with what else waits, in turn. Code that wraps the response sees what is sent,
      // not why it waited.
      const shift = Object.keys(kinds).indexOf(kind);
      const often = variant === 'plain' && kind === 'a change' ? 1 : 3;
      const some = paths.filter((_, index) => isForToday(index + shift, often));

      test.each(some)(
        'law 7: %s waits for the save, and a request sent at its first byte finds the data',
        async (_, path) => {
          make = makeUnsaved;
          const browser = await begin();
          const { held, release } = watched.hold('save', 'rekey');
          let hasAnswered = false;
          const answered = open(
            browser,
            path(() => undefined),
          ).then((response) => ((hasAnswered = true), response));
          await held;
          // Whoever asks meanwhile is answered, and this one is not yet.
          await app.ask(app.browser(), () => 'ok');
          expect(hasAnswered).toBe(false);
          release();
          const response = await answered;
          const after = await app.ask(browser, ({ session, identity }) => ({
            data: Object.fromEntries(session.entries()),
            user: identity.userId,
          }));
          expect(after.data).toMatchObject(kind === 'a nested change' ? { list: ['kept'] } : { note: 'kept' });
          expect(after.user).toBe(kind.startsWith('a sign-in') ? 'ann' : null);
          const text = await response.rest();
          expect(`${text} ${response.headers.get('location')} ${response.status}`).toMatch(/meant|403/);
        },
      );

      test.each(some)('law 7: nothing of %s is sent if the save fails', async (_, path) => {
        make = makeUnsaved;
        const browser = await begin();
        watched.away('save', 'rekey');
        const response = await open(
          browser,
          path(() => undefined),
        );
        const text = await response.rest();
        watched.pass();
        expect(JSON.parse(text)).toEqual({
          statusCode: 503,
          message: 'The session store is unavailable',
          code: 'VISIT_STORE_UNAVAILABLE',
        });
        expect(response.status).toBe(503);
        expect(response.headers.get('retry-after')).toBe('5');
        expect(JSON.stringify([...response.headers])).not.toMatch(/meant|set-cookie/);
        expect(
          await app.ask(browser, ({ session, identity }) => [Object.fromEntries(session.entries()), identity.userId]),
        ).toEqual([{ list: [] }, null]);
      });
    });

    describe('with an unsaved change', () => {
      const change = kinds['a change']!;

      test.each(paths)('law 7: nothing of %s is sent if the visit has ended', async (_, path) => {
        make = change;
        const browser = await begin();
        const { held, release } = watched.hold('save');
        const answered = open(
          browser,
          path(() => undefined),
        );
        await held;
        await watched.inner.end([browser.jar.get('visit')!.slice(0, 32)], { reason: 'test', at: Date.now() });
        release();
        const response = await answered;
        const text = await response.rest();
        expect(JSON.parse(text)).toMatchObject({ statusCode: 409, code: 'VISIT_ENDED' });
        expect(response.status).toBe(409);
        expect(`${text} ${JSON.stringify([...response.headers])}`).not.toContain('meant');
      });

      test.each(paths)('law 7: the change of %s is saved even if its client has disconnected', async (_, path) => {
        make = change;
        const browser = await begin();
        const { held, release } = watched.hold('save');
        const gone = new AbortController();
        const answered = fetch(`${app.running.address}${path(() => undefined)}`, {
          redirect: 'manual',
          signal: gone.signal,
          headers: { cookie: `visit=${browser.jar.get('visit')}` },
        });
        await held;
        gone.abort();
        await expect(answered).rejects.toThrow('aborted');
        release();
        await expect.poll(() => app.ask(browser, ({ session }) => session['note'])).toBe('kept');
      });
    });

    test.each(paths)(
      'law 7: %s contains the key of a new visit, even if the sign-in was not awaited',
      async (_, path) => {
        make = kinds['a sign-in that is not awaited']!;
        const browser = app.browser();
        const response = await open(
          browser,
          path(() => undefined),
        );
        await response.rest();
        expect(await app.ask(browser, ({ session, identity }) => [session['note'], identity.userId])).toEqual([
          'kept',
          'ann',
        ]);
      },
    );

    test('law 7: each of 100 redirects finds its state immediately', async () => {
      watched.around = async (_, call) => (await new Promise((resolve) => setImmediate(resolve)), call());
      let found = 0;
      for (let index = 0; index < 100; index++) {
        const browser = app.browser();
        const state = String(index);
        await app.send(browser, ({ session, reply }) => ((session['state'] = state), reply.redirect('/callback')));
        if ((await app.ask(browser, ({ session }) => session['state'])) === state) found++;
      }
      expect(found).toBe(100);
    });
  });

  describe(`A session after the headers have been sent, under ${platform}`, () => {
    let app: InlineApp;
    const watched = new WatchedStore();
    beforeAll(async () => {
      app = await InlineApp.start(platform, { store: watched.store });
    });
    afterAll(() => app.close());
    const data = (browser: ReturnType<InlineApp['browser']>) =>
      app.ask(browser, ({ session }) => Object.fromEntries(session.entries()));

    test.each(['set', 'delete', 'clear', 'property', 'within'])('law 7: %s throws', async (how) => {
      const browser = app.browser();
      await app.ask(browser, ({ session }) => void (session['list'] = []));
      let error: unknown;
      const changes: Record<string, (session: Session) => unknown> = {
        set: (session) => session.set('a', 1),
        delete: (session) => session.delete('list'),
        clear: (session) => session.clear(),
        property: (session) => (session['a'] = 1),
        within: (session) => (session['list'] as unknown[]).push(1),
      };
      await app.send(browser, async ({ session, raw, reply }) => {
        reply.hijack?.();
        raw.writeHead(200);
        raw.write('first');
        try {
          changes[how]!(session);
          if (how === 'within') await session.save();
        } catch (reason) {
          error = reason;
        }
        raw.end();
      });
      if (how !== 'within') expect(error).toMatchObject({ code: 'VISIT_HEADERS_SENT' });
      else expect(error).toBeUndefined();
      expect(await data(browser)).toEqual(how === 'within' ? { list: [1] } : { list: [] });
    });

    test.each(['login', 'renew', 'save', 'form token'])('law 7: a new key or visit throws: %s', async (how) => {
      const calls: Record<string, (tools: Tools) => Promise<unknown>> = {
        login: ({ identity }) => identity.login('ann'),
        renew: ({ visits }) => visits.renew(),
        save: ({ session }) => session.update('a', () => 1),
        'form token': ({ tokens }) => tokens.create(),
      };
      const browser = app.browser();
      if (how === 'renew') await app.ask(browser, ({ session }) => void (session['a'] = 1));
      let error: unknown;
      const before = watched.calls.filter((call) => call === 'create').length;
      await app.send(browser, async (tools) => {
        tools.reply.hijack?.();
        tools.raw.writeHead(200);
        tools.raw.write('first');
        error = await calls[how]!(tools).catch((reason: unknown) => reason);
        tools.raw.end();
      });
      expect(error).toMatchObject({ code: 'VISIT_HEADERS_SENT' });
      expect(watched.calls.filter((call) => call === 'create').length - before).toBe(0);
    });

    test('law 7: update() and take() on a stored visit still work', async () => {
      const browser = app.browser();
      await app.ask(browser, ({ session }) => void Object.assign(session, { a: 1, b: 2 }));
      await app.send(browser, async ({ session, raw, reply }) => {
        reply.hijack?.();
        raw.writeHead(200);
        raw.write('first');
        await Promise.all([session.update('a', (a: number) => a + 1), session.take('b')]);
        raw.end();
      });
      expect(await data(browser)).toEqual({ a: 2 });
    });
  });

  describe(`A handler that an outer interceptor calls, under ${platform}`, () => {
    let app: InlineApp;
    beforeAll(async () => {
      app = await InlineApp.start(
        platform,
        { store: new WatchedStore().store },
        // In the root module, whose interceptors come first.
        { controllers: [Senders], providers: [Noting, { provide: APP_INTERCEPTOR, useClass: Around }] },
      );
    });
    afterAll(() => app.close());
    const data = (browser: ReturnType<InlineApp['browser']>) =>
      app.ask(browser, ({ session }) => Object.fromEntries(session.entries()));

    test('law 7: starts afresh when it is retried; earlier changes of a guard are kept', async () => {
      tries = 0;
      const browser = app.browser();
      expect(await browser.get('/retried')).toMatchObject({ status: 200, text: 'ok' });
      expect(await data(browser)).toEqual({ guarded: true, tries: 1, 'try 1': true });
    });

    test('law 7: has no effect if it is aborted, even if it continues', async () => {
      const browser = app.browser();
      await app.ask(browser, ({ session }) => void (session['a'] = 1));
      expect((await browser.get('/given-up')).status).toBe(504);
      goOn();
      await ended;
      expect(await data(browser)).toEqual({ a: 1, guarded: true });
    });
  });

  test(`law 7: a sealed cookie is sent with any response of the handler, under ${platform}`, async () => {
    const app = await InlineApp.start(platform, { store: new SealedCookieVisitStore({ secrets: [randomBytes(32)] }) });
    try {
      for (const [name, { on = platform, send }] of Object.entries(sending)) {
        // Views need a setting that this application has not.
        if (on !== platform || name === 'render') continue;
        const browser = app.browser();
        for (const count of [1, 2]) {
          await app.send(browser, (tools) => ((tools.session['count'] = count), send(tools)));
          expect(await app.ask(browser, ({ session }) => session['count'] as number), name).toBe(count);
        }
      }
    } finally {
      await app.close();
    }
  });
}
