import { Readable } from 'node:stream';
import {
  BadRequestException,
  Body,
  Controller,
  Get,
  Header,
  HttpException,
  Injectable,
  Param,
  Post,
  Query,
  Redirect,
  Req,
  Res,
  ServiceUnavailableException,
  Sse,
  StreamableFile,
  UseGuards,
  type CanActivate,
  type ExecutionContext,
} from '@nestjs/common';
import { ExclusiveSession, Session, VisitService } from 'nest-visit';
import { Visit } from 'nest-visit/typeorm';
import { from, Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { describeStacks, type RunningApp, type Stack } from '../support/app.js';
import { Gates } from '../support/gates.js';
import { PATIENCE } from '../support/patience.js';

interface Data {
  name: string;
  count: number;
  cart: { items: string[] };
  [key: string]: unknown;
}

@Injectable()
class WritingGuard implements CanActivate {
  constructor(private readonly visits: VisitService) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    await this.visits.resolve(context);
    const request = context.switchToHttp().getRequest<{ session: Session; query: Record<string, string> }>();
    request.session['guarded'] = true;
    return request.query['pass'] === '1';
  }
}

@Controller()
class SessionController {
  constructor(
    private readonly gates: Gates,
    private readonly visits: VisitService,
  ) {}

  @Get('data')
  data(@Session() session: Session<Data>) {
    return session;
  }

  @Post('set')
  async set(
    @Body() body: Record<string, unknown>,
    @Query('gate') gate: string | undefined,
    @Session() session: Session<Data>,
  ) {
    for (const [key, value] of Object.entries(body)) session[key] = value;
    await this.gates.pass(gate);
    return 'ok';
  }

  @Post('flash')
  flash(@Body() { name }: { name: string }, @Session() session: Session<Data>) {
    session.flash('name', name);
  }

  @Post('read')
  async read(@Query('gate') gate: string | undefined, @Session() session: Session<Data>) {
    const before = session.get('cart');
    await this.gates.pass(gate);
    return { before, name: session.get('name') };
  }

  @Post('nested')
  nested(@Session() session: Session<Data>) {
    session.setDefault('cart', { items: [] }).items.push('apple');
    return session.get('cart')!.items.length;
  }

  @Post('push')
  push(@Session() session: Session<Data>) {
    session.get('cart')!.items.push('pear');
    return 'ok';
  }

  @Post('dictionary')
  dictionary(@Session() session: Session<Data>) {
    session.set('name', 'Ada').set('count', 1);
    const seen = [
      session.get('name'),
      session.get('missing'),
      session.get('missing', 'x'),
      session.has('name'),
      session.has('missing'),
    ];
    session.other = 'property';
    const shape = [
      session.keys(),
      session.values(),
      session.entries(),
      session.size,
      Object.keys(session),
      JSON.stringify(session),
      'other' in session,
    ];
    const gone = [
      session.pop('count'),
      session.pop('count', 5),
      session.delete('name'),
      session.delete('name'),
      delete session.other,
      session.size,
    ];
    session.set('name', 'Bob');
    session.revert();
    const reverted = session.size;
    session.set('name', 'Cy');
    session.clear();
    return { seen, shape, gone, reverted, cleared: session.size };
  }

  @Post('clear')
  clear(@Session() session: Session<Data>) {
    session.clear();
  }

  @Post('increment')
  async increment(@Query('gate') gate: string | undefined, @Session() session: Session<Data>) {
    await this.gates.pass(gate);
    return session.update('count', (count) => (count ?? 0) + 1);
  }

  @Post('exclusive')
  @ExclusiveSession({ timeout: PATIENCE })
  async exclusive(
    @Query('gate') gate: string | undefined,
    @Query('fail') fail: string | undefined,
    @Session() session: Session<Data>,
  ) {
    const count = session.get('count', 0);
    await this.gates.pass(gate);
    session.set('count', count + 1);
    if (fail) throw new Error('unexpected');
    return count + 1;
  }

  @Post('impatient')
  @ExclusiveSession({ timeout: 20 })
  impatient(@Session() session: Session<Data>) {
    return session.get('count', 0);
  }

  @Post('exclusive-end')
  @ExclusiveSession()
  async exclusiveEnd(@Session() session: Session<Data>) {
    await this.visits.end();
    session.set('name', 'next');
    await session.save();
    await session.update('count', () => 1);
  }

  @Post('take')
  async take(@Query('gate') gate: string | undefined, @Session() session: Session<Data>) {
    await this.gates.pass(gate);
    return { taken: (await session.take('name')) ?? null };
  }

  @Post('assign')
  assign(@Req() request: { session: unknown }, @Query('value') value: string) {
    request.session = JSON.parse(value) as unknown;
  }

  @Post('save-reload')
  async saveReload(@Session() session: Session<Data>) {
    session.set('name', 'saved');
    await session.save();
    session.set('name', 'forgotten');
    await session.reload();
    return session.get('name');
  }

  @Post('redirect')
  @Redirect('/data', 303)
  redirect(@Session() session: Session<Data>) {
    session.set('name', 'redirected');
  }

  @Get('stream')
  stream(@Session() session: Session<Data>) {
    session.set('name', 'streamed');
    return new StreamableFile(Readable.from(['a', 'b']));
  }

  @Sse('events')
  events(@Session() session: Session<Data>): Observable<{ data: string }> {
    session.set('name', 'evented');
    return from([{ data: 'one' }, { data: 'two' }]);
  }

  @Post('res')
  async res(
    @Res() response: { status(code: number): { send(body: string): unknown } },
    @Query('save') save: string,
    @Session() session: Session<Data>,
  ) {
    session.set('name', 'by hand');
    if (save === '1') await session.save();
    response.status(200).send('sent');
  }

  @Post('fail')
  fail(@Query('with') status: string, @Session() session: Session<Data>) {
    session.set('name', `failed ${status}`);
    if (status === '400') throw new BadRequestException();
    if (status === '503') throw new ServiceUnavailableException();
    if (status === '418') throw new HttpException('teapot', 418);
    throw new Error('unexpected');
  }

  @Post('guarded')
  @UseGuards(WritingGuard)
  guarded() {
    return 'passed';
  }

  @Post('keep/:what')
  keep(@Param('what') what: string, @Session() session: Session<Data>) {
    const values: Record<string, unknown> = {
      function: { a: [() => 1] },
      error: { when: new Error('x') },
      class: {
        when: new (class Money {
          cents = 5;
        })(),
      },
      method: 'x',
      big: 'x'.repeat(200 * 1024),
      emoji: '👩‍🚀 ünï ☃',
      date: new Date(0),
      proto: JSON.parse('{"__proto__":{"polluted":true}}') as unknown,
    };
    if (what === 'method') (session as Record<string, unknown>)['get'] = 1;
    session['kept'] = values[what];
  }

  @Get('kept')
  kept(@Session() session: Session<Data>) {
    const kept = session['kept'];
    return {
      kept: kept instanceof Date ? kept.toISOString() : kept,
      length: String(kept).length,
      polluted: ({} as Record<string, unknown>)['polluted'] ?? false,
    };
  }

  @Post('end')
  async end(@Query('then') then: string | undefined, @Session() session: Session<Data>) {
    await this.visits.end();
    if (then) session.set('name', then);
    return 'ended';
  }

  @Post('late-set')
  async lateSet(@Query('gate') gate: string, @Session() session: Session<Data>) {
    session.get('name');
    await this.gates.pass(gate);
    session.set('name', 'late');
    return 'ok';
  }

  @Get('plain')
  @Header('content-type', 'text/plain')
  plain() {
    return 'plain';
  }
}

const parts = { controllers: [SessionController], providers: [Gates, WritingGuard] };

describeStacks('The session', (stack: Stack) => {
  const start = async (options = {}): Promise<RunningApp> => stack.start(parts, options);

  async function begin(app: RunningApp, data: Record<string, unknown> = { name: 'Ada' }) {
    const browser = app.browser();
    const answer = await browser.post('/set', { json: data });
    expect(answer.status, answer.text).toBe(201);
    const read = async () => JSON.parse((await browser.get('/data')).text) as Record<string, unknown>;
    return { browser, read };
  }

  const storedData = async (key: string | undefined): Promise<unknown> =>
    (
      await stack
        .dataSource()
        .getRepository(Visit)
        .findOneByOrFail({ id: key!.slice(0, 32) })
    ).sessionData;

  test('R45: is a dictionary and a plain object', async () => {
    const app = await start();
    expect(JSON.parse((await app.browser().post('/dictionary')).text)).toEqual({
      seen: ['Ada', null, 'x', true, false],
      shape: [
        ['name', 'count', 'other'],
        ['Ada', 1, 'property'],
        [
          ['name', 'Ada'],
          ['count', 1],
          ['other', 'property'],
        ],
        3,
        ['name', 'count', 'other'],
        '{"name":"Ada","count":1,"other":"property"}',
        true,
      ],
      gone: [1, 5, true, false, true, 0],
      reverted: 0,
      cleared: 0,
    });
  });

  test('R44, R46: stores data in the row of the visit, with one statement to read and one to write', async () => {
    const app = await start();
    const { browser, read } = await begin(app);
    expect(await read()).toEqual({ name: 'Ada' });
    expect(await stack.statements(() => browser.post('/set', { json: { name: 'Bob' } }))).toHaveLength(2);
    expect(await stack.statements(() => browser.get('/data'))).toHaveLength(1);
  });

  test('R49: empty data is NULL', async () => {
    const app = await start();
    const { browser, read } = await begin(app);
    expect(await storedData(browser.jar.get('visit'))).not.toBeNull();
    await browser.post('/clear');
    expect(await storedData(browser.jar.get('visit'))).toBeNull();
    expect(await read()).toEqual({});
  });

  test('R50, B9: a request that only reads writes nothing, not even what it read', async () => {
    const app = await start();
    const { browser, read } = await begin(app, { name: 'Ada', cart: { items: [] } });
    const gate = app.app.get(Gates).make('r');
    const reading = browser.clone().post('/read?gate=r');
    await gate.arrived;
    await browser.post('/set', { json: { name: 'Bob' } });
    const statements = await stack.statements(async () => {
      gate.open();
      await reading;
    });
    expect(statements).toEqual([]);
    expect(await read()).toEqual({ name: 'Bob', cart: { items: [] } });
  });

  test('R50: writing the same value again writes nothing', async () => {
    const app = await start();
    const { browser } = await begin(app, { name: 'Ada', cart: { items: ['x'] } });
    expect(
      await stack.statements(() => browser.post('/set', { json: { name: 'Ada', cart: { items: ['x'] } } })),
    ).toHaveLength(1);
  });

  test('R46, B11: a nested change is detected', async () => {
    const app = await start();
    const { browser, read } = await begin(app);
    expect((await browser.post('/nested')).text).toBe('1');
    expect((await browser.post('/nested')).text).toBe('2');
    expect(await read()).toEqual({ name: 'Ada', cart: { items: ['apple', 'apple'] } });
  });

  describe('written by two concurrent requests', () => {
    test('R51, B8: changes to different keys both survive, even nested ones', async () => {
      const app = await start();
      const { browser, read } = await begin(app, { name: 'Ada', cart: { items: [] } });
      const gate = app.app.get(Gates).make('w');
      const slow = browser.clone().post('/set?gate=w', { json: { slow: 1, name: 'Slow' } });
      await gate.arrived;
      await browser.post('/push');
      await browser.post('/set', { json: { fast: 1 } });
      gate.open();
      expect((await slow).status).toBe(201);
      expect(await read()).toEqual({ name: 'Slow', cart: { items: ['pear'] }, slow: 1, fast: 1 });
    });

    test('R51, B14: update() is atomic', async () => {
      const app = await start();
      const other = await start();
      const { browser, read } = await begin(app, { count: 1 });
      const cookie = `visit=${browser.jar.get('visit')}`;
      await Promise.all(
        Array.from({ length: 5 }, async (_, i) => {
          const client = (i % 2 ? app : other).browser();
          for (let n = 0; n < 10; n++) expect((await client.post('/increment', { cookie })).status).toBe(201);
        }),
      );
      expect(await read()).toEqual({ count: 51 });
    });

    test('R51: many concurrent requests of one session are all served, and each is counted once', async () => {
      const app = await start();
      const { browser, read } = await begin(app, { count: 0 });
      const answers = await Promise.all(Array.from({ length: 150 }, () => browser.clone().post('/increment')));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
      expect(await read()).toEqual({ count: 150 });
    });

    test('R58, B12: a flash value is kept until it is taken, whatever other requests do', async () => {
      const app = await start();
      const { browser } = await begin(app, { count: 1 });
      await browser.post('/flash', { json: { name: 'Saved' } });
      // Background requests of the same page: they read, they write other things, they fail.
      const others = ['/set', '/read', '/exclusive', '/exclusive?fail=1'].map((path) =>
        browser.clone().post(path, { json: { other: path } }),
      );
      await Promise.all(others);
      expect(JSON.parse((await browser.post('/take')).text)).toEqual({ taken: 'Saved' });
      expect(JSON.parse((await browser.post('/take')).text)).toEqual({ taken: null });
    });

    test('R51: take() gives a value to one request', async () => {
      const app = await start();
      const { browser, read } = await begin(app);
      const gates = [1, 2, 3].map((i) => app.app.get(Gates).make(`t${i}`));
      const takers = [1, 2, 3].map((i) => browser.clone().post(`/take?gate=t${i}`));
      await Promise.all(gates.map((gate) => gate.arrived));
      for (const gate of gates) gate.open();
      const taken = (await Promise.all(takers)).map((answer) => (JSON.parse(answer.text) as { taken: unknown }).taken);
      expect(taken.filter((value) => value !== null)).toEqual(['Ada']);
      expect(await read()).toEqual({});
    });
  });

  describe('for one request at a time', () => {
    const lockOf = async (browser: { jar: Map<string, string> }): Promise<string | null> =>
      (
        await stack
          .dataSource()
          .getRepository(Visit)
          .findOneByOrFail({ id: browser.jar.get('visit')!.slice(0, 32) })
      ).lockOwner;

    test('R52, B14: get and set count correctly on several machines', async () => {
      const apps = [await start(), await start()];
      const { browser, read } = await begin(apps[0]!, { count: 1 });
      const cookie = `visit=${browser.jar.get('visit')}`;
      await Promise.all(
        Array.from({ length: 5 }, async (_, i) => {
          const client = apps[i % 2]!.browser();
          for (let n = 0; n < 6; n++) expect((await client.post('/exclusive', { cookie })).status).toBe(201);
        }),
      );
      expect(await read()).toEqual({ count: 31 });
      await expect.poll(() => lockOf(browser)).toBeNull();
    });

    test('R52: a request that waits too long gets a 423 with Retry-After; other visits do not wait', async () => {
      const apps = [await start(), await start()];
      const { browser } = await begin(apps[0]!, { count: 1 });
      const cookie = `visit=${browser.jar.get('visit')}`;
      const gate = apps[0]!.app.get(Gates).make('x');
      const holder = browser.clone().post('/exclusive?gate=x');
      await gate.arrived;
      for (const app of apps) {
        const answer = await app.browser().post('/impatient', { cookie });
        expect(answer.status).toBe(423);
        expect(answer.headers.get('retry-after')).toBe('5');
      }
      expect((await browser.post('/set', { json: { name: 'free' } })).status).toBe(201);
      gate.open();
      expect((await holder).text).toBe('2');
      await expect.poll(async () => (await apps[1]!.browser().post('/impatient', { cookie })).text).toBe('2');
    });

    test('R52: is released when the handler throws, and when it ends the visit', async () => {
      const app = await start();
      const { browser, read } = await begin(app, { count: 1 });
      expect((await browser.post('/exclusive?fail=1')).status).toBe(500);
      expect((await browser.post('/exclusive')).text).toBe('2');
      expect((await browser.post('/exclusive-end')).status).toBe(201);
      expect(await read()).toEqual({ name: 'next', count: 1 });
    });

    test('R52: is released when the client disconnects; the work of its request is completed', async () => {
      const app = await start();
      const { browser } = await begin(app, { count: 1 });
      const gate = app.app.get(Gates).make('gone');
      const client = new AbortController();
      const headers = { cookie: `visit=${browser.jar.get('visit')}` };
      const gone = fetch(`${app.address}/exclusive?gate=gone`, { method: 'POST', headers, signal: client.signal });
      await gate.arrived;
      client.abort();
      await expect(gone).rejects.toThrow('aborted');
      gate.open();
      expect((await browser.post('/exclusive')).text).toBe('3');
    });

    test('R52: is free half a minute after its process has stopped, which cannot write afterwards', async () => {
      const app = await start();
      const other = await start();
      const { browser, read } = await begin(app, { count: 1 });
      const gate = app.app.get(Gates).make('dead');
      const dead = browser.clone().post('/exclusive?gate=dead');
      await gate.arrived;
      stack.clock.advance(30_000);
      expect((await other.browser().post('/exclusive', { cookie: `visit=${browser.jar.get('visit')}` })).text).toBe(
        '2',
      );
      gate.open();
      expect((await dead).status).toBe(409);
      expect(await read()).toEqual({ count: 2 });
    });
  });

  describe('is saved before the response is sent', () => {
    const expectSaved = async (
      app: RunningApp,
      ask: (
        browser: ReturnType<RunningApp['browser']>,
      ) => Promise<{ status: number; text: string; cookies: readonly string[] }>,
      name: string,
    ) => {
      // A new visit, whose cookie has to come with this very response; and one that is there already.
      for (const { browser } of [{ browser: app.browser() }, await begin(app)]) {
        const answer = await ask(browser);
        expect(answer.status, answer.text).toBeLessThan(400);
        expect(JSON.parse((await browser.get('/data')).text)).toMatchObject({ name });
      }
    };

    test('R47: a returned value', async () => {
      await expectSaved(await start(), (browser) => browser.post('/set', { json: { name: 'returned' } }), 'returned');
    });

    test('R47, B10: a redirect', async () => {
      await expectSaved(await start(), (browser) => browser.post('/redirect'), 'redirected');
    });

    test('R47: a stream', async () => {
      await expectSaved(await start(), (browser) => browser.get('/stream'), 'streamed');
    });

    test('R47: server-sent events', async () => {
      const app = await start();
      await expectSaved(app, (browser) => browser.get('/events'), 'evented');
      expect((await app.browser().get('/events')).text).toMatch(/data: one[^]*data: two/);
    });

    test('R47: @Res() with `await session.save()`', async () => {
      await expectSaved(await start(), (browser) => browser.post('/res?save=1'), 'by hand');
    });

    test('R47: @Res() without it', async () => {
      const app = await start();
      const browser = app.browser();
      await browser.post('/res');
      await expect
        .poll(async () => JSON.parse((await browser.get('/data')).text) as unknown)
        .toEqual({ name: 'by hand' });
    });

    test('can be saved and reloaded at any time', async () => {
      const app = await start();
      const { browser, read } = await begin(app);
      expect((await browser.post('/save-reload')).text).toBe('saved');
      expect(await read()).toEqual({ name: 'saved' });
    });
  });

  describe('of a handler that fails', () => {
    test.each([
      ['400', 400, true],
      ['418', 418, true],
      ['503', 503, false],
      ['error', 500, false],
    ])('R48: with %s', async (how, status, kept) => {
      const app = await start();
      const { browser, read } = await begin(app);
      expect((await browser.post(`/fail?with=${how}`)).status).toBe(status);
      expect(await read()).toEqual({ name: kept ? `failed ${how}` : 'Ada' });
      const anonymous = app.browser();
      expect((await anonymous.post(`/fail?with=${how}`)).cookies).toHaveLength(kept ? 1 : 0);
    });

    test('R48: changes of a denying guard are saved, as those of a 4xx', async () => {
      const app = await start();
      const { browser, read } = await begin(app);
      expect((await browser.post('/guarded')).status).toBe(403);
      await expect.poll(read).toEqual({ name: 'Ada', guarded: true });
      expect((await browser.post('/guarded?pass=1')).status).toBe(201);
      const anonymous = app.browser();
      expect((await anonymous.post('/guarded')).cookies).toHaveLength(1);
      await expect
        .poll(async () => JSON.parse((await anonymous.get('/data')).text) as unknown)
        .toEqual({ guarded: true });
    });
  });

  describe('and its values', () => {
    test.each(['function', 'error'])('R53: a %s is refused, with its path', async (what) => {
      const app = await start();
      const { browser, read } = await begin(app);
      expect((await browser.post(`/keep/${what}`)).status).toBe(500);
      expect(await read()).toEqual({ name: 'Ada' });
    });

    test('R53: an instance of a class becomes plain data, and setting the same one is no change', async () => {
      const app = await start();
      const { browser } = await begin(app);
      await browser.post('/keep/class');
      expect(JSON.parse((await browser.get('/kept')).text)).toMatchObject({ kept: { when: { cents: 5 } } });
      expect(await stack.statements(() => browser.post('/keep/class'))).toHaveLength(1);
      const strict = await start({ session: { instances: 'refuse' } });
      expect((await strict.browser().post('/keep/class')).status).toBe(500);
    });

    test('R45: replacing a method is refused', async () => {
      const app = await start();
      expect((await app.browser().post('/keep/method')).status).toBe(500);
    });

    test('R53, B15: emoji, 200 KB, dates and `__proto__` survive a round trip', async () => {
      const app = await start();
      const { browser } = await begin(app);
      const kept = async () => JSON.parse((await browser.get('/kept')).text) as Record<string, unknown>;
      await browser.post('/keep/emoji');
      expect(await kept()).toMatchObject({ kept: '👩‍🚀 ünï ☃' });
      await browser.post('/keep/big');
      expect(await kept()).toMatchObject({ length: 200 * 1024 });
      await browser.post('/keep/date');
      expect(await kept()).toMatchObject({ kept: '1970-01-01T00:00:00.000Z' });
      await browser.post('/keep/proto');
      expect(await kept()).toMatchObject({ polluted: false });
    });

    test('R56, B15: more than maxBytes is refused before any SQL', async () => {
      const app = await start({ session: { maxBytes: 1000 } });
      const { browser, read } = await begin(app);
      const statements = await stack.statements(async () => expect((await browser.post('/keep/big')).status).toBe(500));
      expect(statements).toHaveLength(1);
      expect(await read()).toEqual({ name: 'Ada' });
    });

    test('R54, B16: unreadable data is an empty session or an error, by option', async () => {
      const app = await start();
      const strict = await start({ session: { onUnreadable: 'throw' } });
      const { browser, read } = await begin(app);
      const id = browser.jar.get('visit')!.slice(0, 32);
      await stack
        .dataSource()
        .getRepository(Visit)
        .update({ id }, { sessionData: Buffer.from('broken') });
      expect(await read()).toEqual({});
      const cookie = `visit=${browser.jar.get('visit')}`;
      expect((await strict.browser().get('/data', { cookie })).status).toBe(500);
      expect((await strict.browser().get('/plain', { cookie })).status).toBe(200);
      await browser.post('/set', { json: { name: 'again' } });
      expect(await read()).toEqual({ name: 'again' });
    });

    test('can be assigned as request.session = …: an object or null', async () => {
      const app = await start();
      const { browser, read } = await begin(app, { name: 'Ada', count: 1 });
      await browser.post(`/assign?value=${encodeURIComponent('{"count":2}')}`);
      expect(await read()).toEqual({ count: 2 });
      await browser.post('/assign?value=null');
      expect(await read()).toEqual({});
      expect((await browser.post('/assign?value=5')).status).toBe(500);
    });
  });

  describe('of a visit that ends', () => {
    test('R32, B32: the cookie is cleared with its name and path, the data is wiped, the key is invalid', async () => {
      const app = await start();
      const { browser } = await begin(app);
      const key = browser.jar.get('visit')!;
      const answer = await browser.post('/end');
      expect(answer.cookies).toEqual([
        expect.stringMatching(
          /^visit=; Max-Age=0; Path=\/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax$/,
        ),
      ]);
      expect(browser.jar.size).toBe(0);
      expect(await storedData(key)).toBeNull();
      const replay = await app.browser().get('/data', { cookie: `visit=${key}` });
      expect(JSON.parse(replay.text)).toEqual({});
    });

    test('R31, B1: a request that began before the end writes nothing, and gets no cookie', async () => {
      const app = await start();
      const other = await start();
      const { browser } = await begin(app);
      const key = browser.jar.get('visit')!;
      const gate = app.app.get(Gates).make('l');
      const late = browser.clone().post('/late-set?gate=l');
      await gate.arrived;
      await other.browser().post('/end', { cookie: `visit=${key}` });
      gate.open();
      const answer = await late;
      expect(answer.status).toBe(409);
      expect(answer.cookies).toEqual([]);
      expect(await storedData(key)).toBeNull();
    });

    test('R57: after the end, the same handler can begin a new visit', async () => {
      const app = await start();
      const { browser } = await begin(app);
      const key = browser.jar.get('visit')!;
      const answer = await browser.post('/end?then=goodbye');
      expect(answer.cookies).toHaveLength(1);
      expect(browser.jar.get('visit')!.slice(0, 32)).not.toBe(key.slice(0, 32));
      expect(JSON.parse((await browser.get('/data')).text)).toEqual({ name: 'goodbye' });
    });
  });
});
