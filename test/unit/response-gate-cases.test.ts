import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import compression from 'compression';
import fastify from 'fastify';
import { describe, expect, onTestFinished, test } from 'vitest';
import { installGate } from '../../lib/request/response.gate.js';
import { http1Client, Keeper, turns, type Listener, type Outcome } from '../support/gated-server.js';

/** A response that is under way, and its keeper. */
interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly keeper: Keeper;
}

/** Serves each request by the next of these handlers, behind a gate. */
async function serve(...handlers: ((exchange: Exchange) => void)[]) {
  const exchanges: Exchange[] = [];
  const served: ((exchange: Exchange) => void)[] = [];
  const requests = handlers.map((_, i) => new Promise<Exchange>((resolve) => (served[i] = resolve)));
  // Its streams take more at once than a socket does.
  const compress = compression({ highWaterMark: 1_000_000 });
  const listener: Listener = (req, res) => {
    if (req.headers['x-compress']) compress(req as never, res as never, () => undefined);
    const exchange = { req, res, keeper: new Keeper(res, 'saved') };
    installGate(res, exchange.keeper);
    const i = exchanges.push(exchange) - 1;
    handlers[i]!(exchange);
    served[i]!(exchange);
  };
  const server = http.createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = http1Client(port);
  onTestFinished(() => {
    void client.close();
    server.close();
    server.closeAllConnections();
  });
  return { server, port, requests, ask: client.ask };
}

/** A connection on which bytes are counted by hand. */
async function connect(port: number) {
  const socket = net.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  onTestFinished(() => void socket.destroy());
  let text = '';
  socket.setEncoding('latin1').on('data', (part: string) => (text += part));
  return {
    socket,
    text: () => text,
    async until(part: string): Promise<string> {
      while (!text.includes(part)) await once(socket, 'data');
      return text;
    },
  };
}

const caught = (run: () => unknown): string | undefined => {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? (error as Error).message;
  }
};

describe('While a response waits', () => {
  test('calls that Node refuses after the headers are refused, and nothing of them is sent', async () => {
    const refused: (string | undefined)[] = [];
    const { ask, requests } = await serve(({ res }) => {
      res.setHeader('a', '1');
      res.write('text');
      refused.push(
        caught(() => res.setHeader('a', '2')),
        caught(() => res.appendHeader('a', '2')),
        caught(() => res.removeHeader('a')),
        caught(() => res.writeHead(500)),
        caught(() => res.setHeaders(new Map([['a', '2']]))),
      );
      res.statusCode = 500;
      res.statusMessage = 'Late';
      res.end();
    });
    const answer = ask('GET');
    const { keeper } = await requests[0]!;
    keeper.resolve();
    expect(await answer).toMatchObject({ status: 200, headers: { a: '1' }, body: 'text' });
    expect(refused).toEqual(Array.from({ length: 5 }, () => 'ERR_HTTP_HEADERS_SENT'));
  });

  test('errors of Node are thrown to the caller, and the response can be used as before', async () => {
    const { ask, requests } = await serve(({ res }) => {
      expect(caught(() => res.writeHead(42))).toBe('ERR_HTTP_INVALID_STATUS_CODE');
      expect(caught(() => res.writeHead(200, { 'bad name': 'a' }))).toBe('ERR_INVALID_HTTP_TOKEN');
      expect(caught(() => res.writeHead(200, ['odd'] as never))).toBe('ERR_INVALID_ARG_VALUE');
      expect(caught(() => res.write(null))).toBe('ERR_STREAM_NULL_VALUES');
      expect(caught(() => res.end({}))).toBe('ERR_INVALID_ARG_TYPE');
      expect(res.headersSent).toBe(false);
      res.end('good');
      expect(caught(() => res.write(42))).toBe('ERR_INVALID_ARG_TYPE');
    });
    const answer = ask('GET');
    const { keeper } = await requests[0]!;
    keeper.resolve();
    expect(await answer).toMatchObject({ status: 200, body: 'good' });
  });

  test('a writer that throws fails the save', async () => {
    const { ask, requests } = await serve(({ res, keeper }) => {
      keeper.beforeLeaving = () => {
        throw new Error('not stored');
      };
      res.end('meant');
    });
    const answer = ask('GET');
    await requests[0];
    expect(await answer).toMatchObject({ status: 503, body: '{"message":"not stored"}' });
  });

  test('all cookies of a list are sent, together with that of the visit', async () => {
    const { ask, requests } = await serve(({ res }) => {
      res.setHeader('set-cookie', 'old=0');
      res.writeHead(200, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Twice', '1', 'X-Twice', '2']);
      res.end();
    });
    const answer = ask('GET');
    (await requests[0]!).keeper.resolve();
    expect((await answer).headers).toMatchObject({ 'set-cookie': ['a=1', 'b=2', 'visit=key'], 'x-twice': '1, 2' });
  });

  test('a source is paused at the high-water mark', async () => {
    let produced = 0;
    const { ask, requests } = await serve(({ res }) => {
      const source = new Readable({
        read() {
          produced += 1;
          this.push(produced > 500 ? null : Buffer.alloc(10_000));
        },
      });
      source.pipe(res);
    });
    const answer = ask('GET');
    const { keeper, res } = await requests[0]!;
    await keeper.wasAsked;
    await turns();
    // What the response and the source hold, by their high-water marks.
    expect(produced).toBeLessThan(30);
    expect(res.writableNeedDrain).toBe(true);
    expect(res.writableLength).toBeGreaterThanOrEqual(res.writableHighWaterMark);
    keeper.resolve();
    await answer;
    expect(produced).toBe(501);
  });

  test('callbacks run in the asynchronous context of their calls', async () => {
    const storage = new AsyncLocalStorage<string>();
    onTestFinished(() => storage.disable());
    const seen: (string | undefined)[] = [];
    const { ask, requests } = await serve(({ res }) => {
      storage.run('written', () => res.write('a', () => seen.push(storage.getStore())));
      storage.run('ended', () => res.end(() => seen.push(storage.getStore())));
    });
    const answer = ask('GET');
    const { keeper, res } = await requests[0]!;
    keeper.resolve();
    await Promise.all([answer, once(res, 'close')]);
    expect(seen).toEqual(['written', 'ended']);
  });

  test('informational responses are sent immediately', async () => {
    const { port, requests } = await serve(({ res }) => {
      res.writeContinue();
      res.writeProcessing();
      res.writeEarlyHints({ link: '</style.css>; rel=preload' });
      res.end('final');
    });
    const client = await connect(port);
    client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    const { keeper } = await requests[0]!;
    const before = await client.until('103 Early Hints');
    expect(before).toContain('100 Continue');
    expect(before).not.toContain('final');
    keeper.resolve();
    await client.until('final');
  });

  test('a server that closes waits until it has been sent', async () => {
    const { ask, requests, server } = await serve(({ res }) => void res.end('last'));
    const answer = ask('GET');
    const { keeper } = await requests[0]!;
    server.close();
    await turns();
    keeper.resolve();
    expect(await answer).toMatchObject({ status: 200, body: 'last' });
  });

  test.each(['saved', 'failed'] as const)('a client that disconnects ends it: %s', async (outcome) => {
    const errors: unknown[] = [];
    const { port, requests } = await serve(({ res }) => {
      res.write('a', (error) => errors.push((error as NodeJS.ErrnoException).code));
      res.end((error?: Error) => errors.push((error as NodeJS.ErrnoException).code));
    });
    const client = await connect(port);
    client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    const { keeper, res } = await requests[0]!;
    client.socket.destroy();
    await once(res, 'close');
    await turns();
    expect(errors).toEqual(['ERR_STREAM_DESTROYED', 'ERR_STREAM_DESTROYED']);
    if (outcome === 'saved') keeper.resolve();
    else keeper.reject(new Error('not stored'));
    await turns();
    expect(keeper.log).toEqual(['asked']);
    expect(res.write('more')).toBe(false);
    res.end();
  });

  test('a response that cannot be sent closes the connection and does not end the process', async () => {
    const { port, requests } = await serve(({ res }) => {
      // Node refuses trailers of a response that is not chunked, when its headers leave.
      res.setHeader('Trailer', 'checksum');
      res.setHeader('Content-Length', '4');
      res.end('text');
    });
    const client = await connect(port);
    client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    (await requests[0]!).keeper.resolve();
    await once(client.socket, 'close');
    expect(client.text()).toBe('');
  });
});

describe('With compression() mounted before the gate', () => {
  test('data that was flushed while the response waited is flushed when it is sent', async () => {
    const { port, requests } = await serve(({ res }) => {
      res.setHeader('content-type', 'text/plain');
      res.write('first');
      (res as ServerResponse & { flush(): void }).flush();
    });
    const client = http.get({
      port,
      host: '127.0.0.1',
      agent: false,
      headers: { 'accept-encoding': 'gzip', 'x-compress': 'yes' },
    });
    const { keeper, res } = await requests[0]!;
    keeper.resolve();
    const [response] = (await once(client, 'response')) as [IncomingMessage];
    const unzipped = response.pipe(createGunzip()).setEncoding('utf8');
    expect(await once(unzipped, 'data')).toEqual(['first']);
    res.end();
    await once(unzipped.resume(), 'end');
  });

  test('a paused writer continues, although compression() hides its listeners', async () => {
    const { port, requests } = await serve(({ res }) => {
      res.setHeader('content-type', 'text/plain');
      res.on('drain', () => res.end());
      expect(res.write('a'.repeat(100_000))).toBe(false);
    });
    const client = http.get({
      port,
      host: '127.0.0.1',
      agent: false,
      headers: { 'accept-encoding': 'gzip', 'x-compress': 'yes' },
    });
    (await requests[0]!).keeper.resolve();
    const [response] = (await once(client, 'response')) as [IncomingMessage];
    await once(response.resume(), 'end');
  });

  test('a replacement is compressed, too, without the trailers of the replaced response', async () => {
    const { port, requests } = await serve(({ res, keeper }) => {
      keeper.replacementFor = () => ({
        status: 503,
        headers: { 'content-type': 'text/plain' },
        body: 'a'.repeat(5000),
      });
      res.writeHead(200, 'Meant', { 'content-type': 'text/plain', Trailer: 'checksum' });
      res.addTrailers({ checksum: 'meant' });
      res.end('meant');
    });
    const client = await connect(port);
    client.socket.write(
      'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\nX-Compress: yes\r\n\r\n',
    );
    (await requests[0]!).keeper.reject(new Error('not stored'));
    await once(client.socket, 'close');
    expect(client.text()).toMatch(/^HTTP\/1.1 503 Service Unavailable\r\n/);
    expect(client.text()).toContain('Content-Encoding: gzip');
    expect(client.text()).not.toMatch(/meant|checksum/i);
  });
});

describe('Responses of one connection', () => {
  test.each(['saved', 'failed'] as const)('do not overtake a waiting one: %s', async (outcome) => {
    const { port, requests } = await serve(
      ({ res }) => void res.end('first'),
      ({ res }) => void res.end('second'),
    );
    const client = await connect(port);
    client.socket.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    const [first, second] = await Promise.all(requests);
    second!.keeper.resolve();
    await turns();
    expect(client.text()).toBe('');
    if (outcome === 'saved') first!.keeper.resolve();
    else first!.keeper.reject(new Error('not stored'));
    await once(client.socket, 'close');
    expect(client.text().match(/HTTP\/1.1 \d+|first$|not stored|second/gm)).toEqual(
      outcome === 'saved'
        ? ['HTTP/1.1 200', 'HTTP/1.1 200', 'second']
        : ['HTTP/1.1 503', 'not stored', 'HTTP/1.1 200', 'second'],
    );
    expect(client.text().indexOf('first') >= 0).toBe(outcome === 'saved');
  });

  test.each(['saved', 'failed'] as const)('wait for their turn if the gate held them earlier: %s', async (outcome) => {
    const { port, requests } = await serve(
      ({ res }) => void res.end('first'),
      ({ res }) => {
        res.writeHead(201);
        res.write('sec');
        res.end('ond');
      },
    );
    const client = await connect(port);
    client.socket.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    const [first, second] = await Promise.all(requests);
    // The second has no socket yet when it is held, and gets one while it waits.
    first!.keeper.resolve();
    await client.until('first');
    await turns();
    if (outcome === 'saved') second!.keeper.resolve();
    else second!.keeper.reject(new Error('not stored'));
    await once(client.socket, 'close');
    expect(client.text()).toContain(outcome === 'saved' ? 'HTTP/1.1 201' : 'HTTP/1.1 503');
    expect(client.text()).toContain(outcome === 'saved' ? 'sec\r\n3\r\nond' : '{"message":"not stored"}');
  });
});

describe('Trailers', () => {
  test.each(['saved', 'failed'] as const)('of HTTP/1 are sent only with their own response: %s', async (outcome) => {
    const { port, requests } = await serve(({ res }) => {
      res.writeHead(200, { Trailer: 'checksum' });
      res.write('text');
      res.addTrailers({ checksum: 'abc' });
      res.end();
    });
    const client = await connect(port);
    client.socket.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    const { keeper } = await requests[0]!;
    if (outcome === 'saved') keeper.resolve();
    else keeper.reject(new Error('not stored'));
    await once(client.socket, 'close');
    expect(client.text().includes('checksum: abc')).toBe(outcome === 'saved');
    expect(client.text().includes('hecksum')).toBe(outcome === 'saved');
  });

  test.each(['saved', 'failed'] as const)('of HTTP/2 are sent only with their own response: %s', async (outcome) => {
    const server = http2.createServer((_req, response) => {
      const res = response as unknown as ServerResponse;
      const keeper = new Keeper(res, 'saved');
      installGate(res, keeper);
      // An application that aborts what it meant does not abort the replacement.
      if (outcome === 'failed') keeper.headersLeave = () => queueMicrotask(() => res.destroy(new Error('meant')));
      res.write('text');
      res.addTrailers({ checksum: 'abc' });
      res.end();
      expect([res.headersSent, res.writableEnded, res.finished]).toEqual([true, true, true]);
      expect(caught(() => res.setHeader('a', 'b'))).toBe('ERR_HTTP2_HEADERS_SENT');
      if (outcome === 'saved') keeper.resolve();
      else keeper.reject(new Error('not stored'));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    onTestFinished(() => {
      client.close();
      server.close();
    });
    const request = client.request({ ':path': '/' });
    const trailers: unknown[] = [];
    request.on('trailers', (headers) => trailers.push(headers.checksum));
    let body = '';
    request.setEncoding('utf8').on('data', (part: string) => (body += part));
    await once(request, 'close');
    expect(body).toBe(outcome === 'saved' ? 'text' : '{"message":"not stored"}');
    expect(trailers).toEqual(outcome === 'saved' ? ['abc'] : []);
  });
});

describe('A replaced response', () => {
  test('keeps the headers of the site and of the connection, and no others', async () => {
    const kept = {
      'access-control-allow-origin': '*',
      'access-control-expose-headers': 'x',
      vary: 'Origin',
      'strict-transport-security': 'max-age=1',
      'content-security-policy': "default-src 'self'",
      'x-frame-options': 'DENY',
    };
    const { ask, requests } = await serve(({ res }) => {
      for (const [name, value] of Object.entries(kept)) res.setHeader(name, value);
      res.writeHead(201, 'Meant', {
        etag: '"meant"',
        'content-encoding': 'meant',
        'set-cookie': 'meant=1',
        'cache-control': 'public',
      });
      res.end('meant');
    });
    const answer = ask('GET');
    (await requests[0]!).keeper.reject(new Error('not stored'));
    const { headers } = await answer;
    expect(headers).toMatchObject(kept);
    expect(JSON.stringify(headers)).not.toMatch(/meant|public/);
  });

  test('has no body if its status forbids one', async () => {
    const { ask, requests } = await serve(({ res, keeper }) => {
      keeper.replacementFor = () => ({
        status: 204,
        headers: { 'Content-Type': 'text/plain', 'x-why': 'lost' },
        body: '',
      });
      res.end('meant');
    });
    const answer = ask('GET');
    (await requests[0]!).keeper.reject(new Error('not stored'));
    const { status, headers, body } = await answer;
    expect({ status, body, why: headers['x-why'] }).toEqual({ status: 204, body: '', why: 'lost' });
    expect(Object.keys(headers).filter((name) => name.startsWith('content-'))).toEqual([]);
  });

  test('discards what the application still sends, and calls its callbacks', async () => {
    const { ask, requests } = await serve(({ res }) => void res.write('meant'));
    const answer = ask('GET');
    const { keeper, res } = await requests[0]!;
    res.on('error', () => undefined);
    keeper.reject(new Error('not stored'));
    await new Promise(setImmediate);
    expect([res.headersSent, res.writableEnded]).toEqual([true, true]);
    const called: string[] = [];
    const drained = once(res, 'drain');
    res.write('meant', () => called.push('write'));
    res.write('meant', 'utf8', () => called.push('write with encoding'));
    res.flushHeaders();
    expect(res.end('meant', () => called.push('end'))).toBe(res);
    expect(res.destroy()).toBe(res);
    await drained;
    expect(called).toEqual(['write', 'write with encoding', 'end']);
    expect(await answer).toMatchObject({ status: 503, body: '{"message":"not stored"}' });
  });

  test.each(['without', 'within'] as const)(
    'fails a pipeline into it, with the reason: %s compression()',
    async (where) => {
      let outcome: Promise<unknown> | undefined;
      const source = Readable.from(
        (async function* () {
          for (;;) yield await Promise.resolve(Buffer.alloc(10_000));
        })(),
      );
      const { ask, requests } = await serve(({ req, res }) => {
        if (where === 'within') compression()(req as never, res as never, () => undefined);
        res.setHeader('content-type', 'text/plain');
        outcome = pipeline(source, res).catch((error: unknown) => error);
      });
      const answer = ask('GET', '/', { 'accept-encoding': 'gzip' });
      const { keeper } = await requests[0]!;
      await keeper.wasAsked;
      keeper.reject(new Error('not stored'));
      expect(await answer).toMatchObject({ status: 503, body: '{"message":"not stored"}' });
      expect(await outcome).toMatchObject({ message: 'not stored' });
      expect(source.destroyed).toBe(true);
    },
  );

  test('ends a generator that is written to it', async () => {
    let returned = false;
    let outcome: Promise<unknown> | undefined;
    async function* endless() {
      try {
        for (;;) yield await Promise.resolve('meant'.repeat(10_000));
      } finally {
        returned = true;
      }
    }
    const { ask, requests } = await serve(({ res }) => {
      outcome = pipeline(endless, res).catch((error: unknown) => error);
    });
    const answer = ask('GET');
    const { keeper } = await requests[0]!;
    await keeper.wasAsked;
    keeper.reject(new Error('not stored'));
    expect(await answer).toMatchObject({ status: 503 });
    expect(await outcome).toMatchObject({ message: 'not stored' });
    expect(returned).toBe(true);
  });

  test.each(['before', 'after'] as const)('destroys a source that was piped into it %s', async (when) => {
    const source = new Readable({
      read() {
        this.push(Buffer.alloc(10_000));
      },
    });
    const { ask, requests } = await serve(({ res }) => {
      if (when === 'before') source.pipe(res);
      else res.write('meant');
    });
    const answer = ask('GET');
    const { keeper, res } = await requests[0]!;
    await keeper.wasAsked;
    keeper.reject(new Error('not stored'));
    expect(await answer).toMatchObject({ status: 503 });
    if (when === 'after') source.pipe(res);
    if (!source.closed) await once(source, 'close');
    expect(source.destroyed).toBe(true);
  });

  test('lets a request that was piped into it be read completely, so that the connection can be reused', async () => {
    const { port, requests } = await serve(
      ({ req, res }) => void req.pipe(res),
      ({ res, keeper }) => {
        res.end('next');
        keeper.resolve();
      },
    );
    const client = await connect(port);
    const half = 'a'.repeat(50_000);
    client.socket.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n${half}`);
    const { keeper } = await requests[0]!;
    await keeper.wasAsked;
    keeper.reject(new Error('not stored'));
    await client.until('not stored');
    client.socket.write(`${half}GET / HTTP/1.1\r\nHost: a\r\n\r\n`);
    expect(await client.until('next')).toMatch(/^HTTP\/1.1 503 [^]*HTTP\/1.1 200 /);
  });

  test('does not let a writer that ignores back-pressure block the process', async () => {
    let written = 0;
    const { ask, requests } = await serve(({ res }) => {
      const pump = (): void => {
        while (written < 100_000 && res.write('meant'.repeat(100))) written += 1;
        written += 1;
      };
      res.on('drain', pump);
      pump();
    });
    const answer = ask('GET');
    const { keeper } = await requests[0]!;
    keeper.reject(new Error('not stored'));
    expect(await answer).toMatchObject({ status: 503 });
    const before = written;
    await turns();
    expect(written).toBeGreaterThan(before);
    expect(written).toBeLessThan(100_000);
    written = 100_000;
  });
});

describe('The gate', () => {
  test.each(['nothing unsaved', 'saved'] as Outcome[])(
    'removes itself and leaves the response as it was: %s',
    async (outcome) => {
      const { ask, requests } = await serve(({ res, keeper }) => {
        Object.assign(keeper, { outcome });
        res.flushHeaders();
      });
      const answer = ask('GET');
      const { keeper, res } = await requests[0]!;
      if (outcome === 'saved') keeper.resolve();
      await turns();
      for (const name of ['writeHead', 'write', 'end', 'flushHeaders'] as const) {
        expect(res[name]).toBe(http.ServerResponse.prototype[name]);
      }
      const state = () => [res.headersSent, res.writableEnded, res.writableNeedDrain, res.writableLength > 0];
      expect(state()).toEqual([true, false, false, false]);
      res.write('do');
      expect(state()).toEqual([true, false, false, true]);
      res.end('ne');
      expect(state().slice(0, 3)).toEqual([true, true, false]);
      expect(await answer).toMatchObject({ status: 200, body: 'done' });
    },
  );

  test('does nothing to a response whose headers have been sent', async () => {
    const { ask, requests } = await serve(({ res, keeper }) => {
      keeper.resolve = () => undefined;
      Object.assign(keeper, { outcome: 'nothing unsaved' });
      res.flushHeaders();
      installGate(res, new Keeper(res, 'saved'));
      res.end('done');
    });
    const answer = ask('GET');
    await requests[0];
    expect(await answer).toMatchObject({ status: 200, body: 'done' });
  });
});

describe('Requests injected into Fastify', () => {
  test.each(['nothing unsaved', 'saved', 'failed'] as Outcome[])('are answered: %s', async (outcome) => {
    const app = fastify();
    onTestFinished(() => app.close());
    app.addHook('onRequest', (_request, reply, done) => {
      const keeper = new Keeper(reply.raw, outcome);
      installGate(reply.raw, keeper);
      void keeper.wasAsked.then(() =>
        outcome === 'saved' ? keeper.resolve() : keeper.reject(new Error('not stored')),
      );
      done();
    });
    app.get('/', () => ({ good: true }));
    const answer = await app.inject('/');
    expect(answer.headers['set-cookie']).toEqual(['visit=key']);
    if (outcome === 'failed') expect([answer.statusCode, answer.body]).toEqual([503, '{"message":"not stored"}']);
    else expect([answer.statusCode, answer.body]).toEqual([200, '{"good":true}']);
  });
});
