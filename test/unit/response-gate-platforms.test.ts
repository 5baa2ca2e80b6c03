import 'reflect-metadata';
import { createReadStream } from 'node:fs';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import compress from '@fastify/compress';
import {
  type CanActivate,
  Controller,
  Get,
  HttpCode,
  type MessageEvent,
  Module,
  NotFoundException,
  Redirect,
  Res,
  Sse,
  StreamableFile,
  UseGuards,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type NestExpressApplication, ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import compression from 'compression';
import helmet from 'helmet';
import { concat, Observable, of, throwError, type Subscriber } from 'rxjs';
import { afterAll, describe, expect, test } from 'vitest';
import { installGate } from '../../lib/request/response.gate.js';
import { exchange, http1Client, Keeper, turns, type Host } from '../support/gated-server.js';

const FILE = fileURLToPath(import.meta.url);
const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const LARGE = 'meant '.repeat(80_000);
const chunks = function* (): Generator<Buffer> {
  const bytes = Buffer.from(LARGE);
  for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
};

/** Those who listen to the events that stay open. */
const events: Subscriber<MessageEvent>[] = [];

class Denied implements CanActivate {
  canActivate(): boolean {
    return false;
  }
}

/** Routes of both platforms. */
@Controller()
class Common {
  @Get('value')
  value() {
    return { meant: true };
  }

  @Get('large')
  large() {
    return { meant: LARGE };
  }

  @Get('nothing')
  @HttpCode(204)
  nothing(): void {
    // Says nothing.
  }

  @Get('redirected')
  @Redirect('/meant')
  redirected(): void {
    // The decorator says all.
  }

  @Get('denied')
  @UseGuards(Denied)
  denied(): string {
    return 'meant';
  }

  @Get('missing')
  missing(): never {
    throw new NotFoundException('meant');
  }

  @Get('file')
  file() {
    return new StreamableFile(createReadStream(FILE), { disposition: 'attachment; filename=meant' });
  }

  @Get('streamed')
  streamed() {
    return new StreamableFile(Readable.from(chunks(), { objectMode: false }), { type: 'text/plain' });
  }

  @Get('large-html')
  html(): string {
    return `<p>${LARGE}</p>`;
  }

  @Sse('events')
  events() {
    return of({ data: 'meant' }, { data: 'meant, too' });
  }

  @Sse('failing-events')
  failingEvents() {
    return concat(
      of({ data: 'meant' }),
      throwError(() => new Error('meant')),
    );
  }

  @Sse('open-events')
  openEvents() {
    return new Observable<MessageEvent>((subscriber) => {
      events.push(subscriber);
      subscriber.next({ data: 'meant 1' });
      return () => void events.splice(events.indexOf(subscriber), 1);
    });
  }

  @Get('injected')
  injected(@Res({ passthrough: true }) res: any) {
    res.header('x-meant', 'yes');
    return { meant: true };
  }
}

const raw = (res: any) => res.raw ?? res;

@Controller()
class Raw {
  @Get('raw')
  raw(@Res() res: any) {
    raw(res).writeHead(201, { 'content-type': 'text/plain', 'x-meant': 'yes' });
    raw(res).write('meant');
    raw(res).end('meant');
  }

  @Get('piped')
  piped(@Res() res: any) {
    raw(res).setHeader('content-type', 'text/plain');
    Readable.from(chunks(), { objectMode: false }).pipe(raw(res));
  }

  @Get('pipelined')
  async pipelined(@Res() res: any) {
    raw(res).setHeader('content-type', 'text/plain');
    await pipeline(createReadStream(FILE), raw(res));
  }

  @Get('raw-redirect')
  redirect(@Res() res: any) {
    raw(res).writeHead(302, 'Meant', ['Location', '/meant', 'Set-Cookie', 'a=meant']);
    raw(res).end();
  }
}

@Controller()
class OnExpress {
  @Get('json')
  json(@Res() res: any) {
    res.json({ meant: true });
    if (!res.headersSent) throw new Error('res.headersSent is false after res.json()');
  }

  @Get('send')
  send(@Res() res: any) {
    res.status(202).cookie('meant', 'a').send('meant');
  }

  @Get('redirect')
  redirect(@Res() res: any) {
    res.redirect('/meant');
  }

  @Get('send-status')
  sendStatus(@Res() res: any) {
    res.sendStatus(404);
  }

  @Get('send-file')
  sendFile(@Res() res: any) {
    res.sendFile(FILE);
  }

  @Get('download')
  download(@Res() res: any) {
    res.download(FILE, 'meant.txt');
  }

  @Get('render')
  render(@Res() res: any) {
    res.render('page', { word: 'meant' });
  }
}

@Controller()
class OnFastify {
  @Get('send')
  send(@Res() reply: any) {
    reply.code(202).header('x-meant', 'yes').send({ meant: true });
  }

  @Get('redirect')
  redirect(@Res() reply: any) {
    reply.redirect('/meant');
  }

  @Get('send-stream')
  sendStream(@Res() reply: any) {
    reply.type('text/plain').send(Readable.from(chunks(), { objectMode: false }));
  }

  @Get('hijack')
  hijack(@Res() reply: any) {
    reply.hijack();
    reply.raw.setHeader('x-meant', 'yes');
    reply.raw.end('meant');
  }
}

@Module({ controllers: [Common, Raw, OnExpress] })
class ExpressModule {}

@Module({ controllers: [Common, Raw, OnFastify] })
class FastifyModule {}

async function listen(name: string, app: NestExpressApplication | NestFastifyApplication, host: Host): Promise<Host> {
  await app.listen(0, '127.0.0.1');
  const { port } = app.getHttpServer().address() as AddressInfo;
  const client = http1Client(port);
  return Object.assign(host, {
    name,
    port,
    ask: client.ask,
    close: async () => {
      await client.close();
      await app.close();
    },
  });
}

async function express(name: string, ...order: ('gate' | 'compression' | 'helmet')[]): Promise<Host> {
  const host = { install: () => undefined } as unknown as Host;
  const app = await NestFactory.create<NestExpressApplication>(ExpressModule, new ExpressAdapter(), { logger: false });
  const middleware = {
    gate: (req: any, res: any, next: () => void) => (host.install(req, res), next()),
    compression: compression(),
    helmet: helmet(),
  };
  for (const each of order) app.use(middleware[each]);
  app.engine('txt', (_path: string, options: { word: string }, done: (error: null, page: string) => void) =>
    done(null, options.word),
  );
  app.setViewEngine('txt');
  app.setBaseViewsDir(`${FOLDER}../support/fixtures`);
  return listen(name, app, host);
}

async function fastify(name: string, compressed: boolean): Promise<Host> {
  const host = { install: () => undefined } as unknown as Host;
  const app = await NestFactory.create<NestFastifyApplication>(FastifyModule, new FastifyAdapter(), { logger: false });
  const instance = app.getHttpAdapter().getInstance();
  instance.addHook('onRequest', (request, reply, done) => (host.install(request.raw, reply.raw), done()));
  if (compressed) await app.register(compress as never);
  return listen(name, app, host);
}

const hosts = await Promise.all([
  express('Express', 'gate', 'helmet'),
  express('Express, after compression()', 'compression', 'gate'),
  express('Express, before compression()', 'gate', 'compression'),
  fastify('Fastify', false),
  fastify('Fastify with @fastify/compress', true),
]);
afterAll(() => Promise.all(hosts.map((host) => host.close())));

const COMMON =
  'value large nothing redirected denied missing file streamed large-html events failing-events injected raw piped ' +
  'pipelined raw-redirect unknown';
const PATHS = {
  Express: `${COMMON} json send redirect send-status send-file download render`.split(' '),
  Fastify: `${COMMON} send redirect send-stream hijack`.split(' '),
};

/** Opens the events that stay open, on a connection of its own; their first one has waited for the save. */
async function open(host: Host, outcome: 'saved' | 'failed'): Promise<IncomingMessage> {
  const installed = new Promise<Keeper>((resolve) => {
    host.install = (_req, res) => {
      const keeper = new Keeper(res, outcome);
      installGate(res, keeper);
      resolve(keeper);
    };
  });
  const request = get({
    port: host.port,
    host: '127.0.0.1',
    path: '/open-events',
    agent: false,
    headers: { 'accept-encoding': 'identity' },
  });
  const answered = once(request, 'response') as Promise<[IncomingMessage]>;
  const keeper = await installed;
  await keeper.wasAsked;
  await turns();
  if (outcome === 'saved') keeper.resolve();
  else keeper.reject(new Error('not stored'));
  const [response] = await answered;
  return response.setEncoding('utf8');
}

for (const host of hosts) {
  describe(`The gate of a response: Nest on ${host.name}`, () => {
    for (const path of PATHS[host.name.startsWith('Express') ? 'Express' : 'Fastify']) {
      const request = { path: `/${path}`, headers: { 'accept-encoding': 'gzip' } };

      test.each(['nothing unsaved', 'saved'] as const)(
        `GET /${path}: %s: the response is the same as without a gate`,
        async (outcome) => {
          const bare = await exchange(host, 'bare', request);
          const gated = await exchange(host, outcome, request);
          const { 'set-cookie': cookies, ...others } = gated.answer.headers;
          const { 'set-cookie': meant = [], ...expected } = bare.answer.headers;
          expect(cookies).toEqual([...(meant as string[]), 'visit=key']);
          expect({ ...gated.answer, headers: { ...others, date: '' } }).toEqual({
            ...bare.answer,
            headers: { ...expected, date: '' },
          });
        },
      );

      test(`GET /${path}: if the save fails, nothing of it is sent`, async () => {
        const { answer, notes } = await exchange(host, 'failed', request);
        expect(answer).toMatchObject({ status: 503, body: '{"message":"not stored"}' });
        expect(answer.headers).toMatchObject({
          'content-type': 'application/json',
          'content-length': '24',
          'retry-after': '5',
        });
        expect(answer.headers['set-cookie']).toEqual(['visit=key']);
        expect(JSON.stringify(answer)).not.toContain('meant');
        expect(notes).toContain('finish');
      });
    }

    test('events are sent one by one', async () => {
      const response = await open(host, 'saved');
      const received = response[Symbol.asyncIterator]() as AsyncIterator<string>;
      const until = async (part: string): Promise<void> => {
        for (let text = ''; !text.includes(part);) text += (await received.next()).value;
      };
      await until('data: meant 1');
      events[0]!.next({ data: 'meant 2' });
      await until('data: meant 2');
      events[0]!.complete();
      expect(await received.return!()).toEqual({ value: undefined, done: true });
    });

    test('open event streams end when the save fails, and later events are ignored', async () => {
      const response = await open(host, 'failed');
      let text = '';
      for await (const part of response) text += part as string;
      expect([response.statusCode, text]).toEqual([503, '{"message":"not stored"}']);
      for (const subscriber of events) subscriber.next({ data: 'meant 2' });
      await turns();
      while (events.length > 0) events[0]!.complete();
      await turns();
      expect(events).toEqual([]);
      expect((await exchange(host, 'saved', { path: '/value' })).answer.status).toBe(200);
    });
  });
}
