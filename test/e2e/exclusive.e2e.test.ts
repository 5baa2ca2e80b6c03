import { once } from 'node:events';
import type { Socket } from 'node:net';
import {
  Catch,
  ConflictException,
  Controller,
  Inject,
  Injectable,
  Post,
  Req,
  RequestTimeoutException,
  UseFilters,
} from '@nestjs/common';
import type { ArgumentsHost, CallHandler, ExceptionFilter, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { APP_INTERCEPTOR, HttpAdapterHost } from '@nestjs/core';
import { ExclusiveSession, MemoryVisitStore, Session, VisitPlugin, type VisitError } from 'nest-visit';
import { retry, Subject, takeUntil, throwIfEmpty } from 'rxjs';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { Gates } from '../support/gates.js';
import { ManualClock } from '../support/manual-clock.js';
import { PATIENCE } from '../support/patience.js';
import { ofToday } from '../support/today.js';

/** Tells when a request is about to wait for its access. */
@VisitPlugin()
class Arrivals {
  arrived: () => void = () => {};

  onRecordRequest() {
    this.arrived();
  }
}

/** Gives a request up, as a time limit does; `?given-up=2` tries it once more. */
const givenUp = new Subject<void>();

@Injectable()
class GivesUp implements NestInterceptor {
  intercept(execution: ExecutionContext, next: CallHandler) {
    const { query } = execution.switchToHttp().getRequest<{ query: Record<string, string> }>();
    const tries = Number(query['given-up'] ?? 0);
    if (tries === 0) return next.handle();
    return next.handle().pipe(
      takeUntil(givenUp),
      throwIfEmpty(() => new RequestTimeoutException()),
      retry(tries - 1),
    );
  }
}

@Catch(ConflictException)
class RemembersProblem implements ExceptionFilter {
  constructor(
    @Inject(Session) private readonly session: Session<{ problem: string }>,
    @Inject(HttpAdapterHost) private readonly host: HttpAdapterHost,
  ) {}

  catch(error: ConflictException, host: ArgumentsHost) {
    this.session.flash('problem', error.message);
    this.host.httpAdapter.reply(host.switchToHttp().getResponse(), error.message, 409);
  }
}

/** What the handler that was held last knows of its client, and what became of its write. */
const held: { clientIsGone?: Promise<unknown>; outcome?: Promise<unknown> } = {};

@Controller()
class Exclusive {
  constructor(
    @Inject(Session) private readonly session: Session<{ n: number; problem: string }>,
    @Inject(Gates) private readonly gates: Gates,
  ) {}

  @Post('begin')
  begin() {
    this.session.n = 0;
  }

  /** Counts up from what it has read when it began. */
  @Post('held')
  @ExclusiveSession()
  async held(@Req() request: { socket: Socket }) {
    const n = this.session.n ?? 0;
    held.clientIsGone = once(request.socket, 'close');
    await this.gates.pass('held');
    held.outcome = this.session
      .update('n', () => n + 1)
      .then(
        (value) => value,
        (error: VisitError) => error.code,
      );
    return { outcome: await held.outcome };
  }

  /** Tells whether the session is free. */
  @Post('try')
  @ExclusiveSession({ timeout: 20 })
  try() {}

  @Post('add')
  @ExclusiveSession({ timeout: PATIENCE })
  add() {
    this.session.n = (this.session.n ?? 0) + 1;
    return { n: this.session.n };
  }

  @Post('problem')
  @UseFilters(RemembersProblem)
  @ExclusiveSession()
  problem() {
    throw new ConflictException('sold out');
  }

  @Post('told')
  async told() {
    return { problem: await this.session.take('problem') };
  }
}

const cookieOf = ({ jar }: Browser): string => [...jar].map(([name, value]) => `${name}=${value}`).join('; ');

// Around ours, as it is of the root module.
const parts = {
  controllers: [Exclusive],
  providers: [Gates, Arrivals, RemembersProblem, { provide: APP_INTERCEPTOR, useClass: GivesUp }],
};

describe.each(ofToday(platforms, 0))('Exclusive access under %s', (platform) => {
  const store = new MemoryVisitStore();
  const clock = new ManualClock();
  let app: RunningApp;
  beforeAll(async () => {
    app = await startApp(platform, { store, clock, session: { maxExclusive: '1m' } }, parts);
  });
  afterAll(() => app?.close());
  let letGo: (() => void) | undefined;
  afterEach(() => {
    letGo?.();
    vi.useRealTimers();
  });

  /** A request in its handler, and how time goes on for it: leases are renewed every ten seconds. */
  async function hold(browser: Browser, query = '') {
    held.outcome = undefined;
    await browser.post('/begin');
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const gate = app.app.get(Gates).make('held');
    letGo = gate.open;
    const client = new AbortController();
    const answer = fetch(`${app.address}/held${query}`, {
      method: 'POST',
      headers: { cookie: cookieOf(browser) },
      signal: client.signal,
    });
    answer.catch(() => {});
    await gate.arrived;
    const seconds = async (count: number): Promise<void> => {
      clock.advance(count * 1000);
      vi.advanceTimersByTime(10_000);
      // The renewal is with the store.
      await new Promise((resolve) => setImmediate(resolve));
    };
    return { gate, client, answer, seconds };
  }

  const isFree = async (browser: Browser): Promise<boolean> => {
    const { status } = await browser.post('/try');
    expect([201, 423]).toContain(status);
    return status === 201;
  };

  test('R52: changes of an exception filter are saved, although the handler has released its access', async () => {
    const browser = app.browser();
    await browser.post('/begin');
    expect(await browser.post('/problem')).toMatchObject({ status: 409, text: 'sold out' });
    expect((await browser.post('/told')).text).toBe('{"problem":"sold out"}');
  });

  test('R52: is released by a handler that is aborted while it waits', async () => {
    const browser = app.browser();
    await browser.post('/begin');
    const gate = app.app.get(Gates).make('held');
    const holder = browser.post('/held');
    await gate.arrived;
    const waits = new Promise<void>((resolve) => (app.app.get(Arrivals).arrived = resolve));
    const impatient = browser.post('/add?given-up=2');
    await waits;
    await new Promise((resolve) => setImmediate(resolve));
    givenUp.next();
    gate.open();
    await holder;
    expect((await impatient).text).toBe('{"n":2}');
    expect((await browser.post('/add')).text).toBe('{"n":3}');
  });

  test('R52, B55: lasts as long as the handler, even if a timeout has already sent the response', async () => {
    const browser = app.browser();
    const { gate, answer, seconds } = await hold(browser, '?given-up=1');
    givenUp.next();
    expect((await answer).status).toBe(408);
    for (const _ of Array(3)) await seconds(15);
    expect(await isFree(browser)).toBe(false);
    gate.open();
    expect(await vi.waitFor(() => held.outcome ?? Promise.reject(new Error('it waits')))).toBe(1);
    expect((await browser.post('/add')).text).toBe('{"n":2}');
  });

  test('R52: is renewed while the handler runs, but not for longer than maxExclusive', async () => {
    const browser = app.browser();
    const { gate, answer, seconds } = await hold(browser);
    for (const _ of Array(3)) await seconds(25);
    // The last lease began after 50 seconds.
    clock.advance(4000);
    expect(await isFree(browser)).toBe(false);
    clock.advance(1000);
    expect(await isFree(browser)).toBe(true);
    expect((await browser.post('/add')).text).toBe('{"n":1}');
    gate.open();
    expect(await (await answer).json()).toEqual({ outcome: 'VISIT_LOCK_LOST' });
    expect((await browser.post('/add')).text).toBe('{"n":2}');
  });

  test('R52: is renewed only while its client waits', async () => {
    const browser = app.browser();
    const { gate, client, seconds } = await hold(browser);
    await seconds(25);
    client.abort();
    await held.clientIsGone;
    await seconds(25);
    clock.advance(4000);
    expect(await isFree(browser)).toBe(false);
    clock.advance(1000);
    expect(await isFree(browser)).toBe(true);
    expect((await browser.post('/add')).text).toBe('{"n":1}');
    gate.open();
    expect(await vi.waitFor(() => held.outcome ?? Promise.reject(new Error('it waits')))).toBe('VISIT_LOCK_LOST');
  });

  test.each([true, false])(
    'R52, B78: is lost by a process that was suspended beyond the lease; another one has had it since: %s',
    async (isTaken) => {
      const browser = app.browser();
      const { gate, answer, seconds } = await hold(browser);
      const awake = new ManualClock();
      awake.set(clock.now() + 30_000);
      const other = await startApp(platform, { store, clock: awake }, parts);
      try {
        const there = browser.via(other);
        if (isTaken) expect((await there.post('/add')).text).toBe('{"n":1}');
        await seconds(isTaken ? 20 : 30);
        gate.open();
        expect(await (await answer).json()).toEqual({ outcome: 'VISIT_LOCK_LOST' });
        expect((await there.post('/add')).text).toBe(isTaken ? '{"n":2}' : '{"n":1}');
      } finally {
        await other.close();
      }
    },
  );
});
