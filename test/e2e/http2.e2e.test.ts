import { once } from 'node:events';
import { connect, type ClientHttp2Session, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import { Readable } from 'node:stream';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { VisitModule, type Session } from 'nest-visit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { InlineApp, type Handler, type Tools } from '../support/inline-handlers.js';
import { PATIENCE } from '../support/patience.js';
import { WatchedStore } from '../support/watched-store.js';

type Send = (tools: Tools) => unknown;

/** Express knows no HTTP/2. */
describe('Fastify with HTTP/2', () => {
  const watched = new WatchedStore();
  let app: InlineApp;
  let client: ClientHttp2Session;
  beforeAll(async () => {
    const module = await Test.createTestingModule(
      InlineApp.parts({ imports: [VisitModule.forRoot({ store: watched.store, storeTimeout: PATIENCE })] }),
    )
      // Nest takes false for no logger; the type of this method only knows objects.
      .setLogger(false as never)
      .compile();
    const nest = module.createNestApplication(new FastifyAdapter({ http2: true }) as never, { logger: false });
    await nest.listen(0, '127.0.0.1');
    const address = await nest.getUrl();
    app = InlineApp.of({ app: nest, address, browser: () => never(), close: () => nest.close() });
    client = connect(address);
  });
  afterAll(async () => {
    client.close();
    await app.close();
  });

  async function ask(path: string, cookie?: string) {
    const stream = client.request({ ':path': path, ...(cookie && { cookie }) });
    let text = '';
    stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders & IncomingHttpStatusHeader];
    if (!stream.readableEnded) await once(stream, 'end');
    const key = /^visit=[^;]+/.exec(headers['set-cookie']?.[0] ?? '')?.[0];
    return { status: headers[':status'], headers, text, key };
  }
  const change = ({ session }: { session: Session }): void => void (session['note'] = 'kept');
  const note = async (key: string): Promise<string> =>
    (
      await ask(
        app.path(({ session }) => ({ note: session['note'] })),
        key,
      )
    ).text;

  const sending: Record<string, Send> = {
    send: ({ reply }) => void reply.send({ meant: true }),
    redirect: ({ reply }) => void reply.redirect('/meant'),
    'a stream': ({ reply }) => void reply.send(Readable.from([Buffer.from('meant')])),
    'raw head, write and end': ({ reply, raw }) => {
      reply.hijack();
      raw.writeHead(201, { 'x-meant': 'yes' });
      raw.write('meant');
      raw.end();
    },
    'raw end': ({ reply, raw }) => {
      reply.hijack();
      raw.end('meant');
    },
  };
  const paths: [string, (work: Send) => string][] = [
    ['a returned value', (work) => app.path((tools) => (work(tools), { meant: true }))],
    ...Object.entries(sending).map(([name, send]): [string, (work: Send) => string] => [
      `@Res(), ${name}`,
      (work) => app.sendingPath(((tools) => (work(tools), send(tools))) satisfies Handler),
    ]),
  ];

  test.each(paths)('law 7: %s waits until the change is stored, and contains the key', async (_, path) => {
    const { held, release } = watched.hold('create');
    let hasAnswered = false;
    const answered = ask(path(change)).then((answer) => ((hasAnswered = true), answer));
    await held;
    // Whoever asks meanwhile, on the same connection, is answered.
    expect((await ask(app.path(() => 'ok'))).text).toBe('ok');
    expect(hasAnswered).toBe(false);
    release();
    const answer = await answered;
    expect(`${answer.text} ${answer.headers.location}`).toContain('meant');
    expect(await note(answer.key!)).toBe('{"note":"kept"}');
  });

  test.each(paths)('law 7: nothing of %s is sent if the change cannot be stored', async (_, path) => {
    watched.away('create');
    const answer = await ask(path(change));
    watched.pass();
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    expect(JSON.stringify(answer)).not.toMatch(/meant|visit=/);
  });
});

function never(): never {
  throw new Error('fetch knows no HTTP/2');
}
