import { Catch, ConflictException, Controller, Inject, Injectable, Post, RequestTimeoutException, UseFilters } from '@nestjs/common';
import type { ArgumentsHost, CallHandler, ExceptionFilter, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { APP_INTERCEPTOR, HttpAdapterHost } from '@nestjs/core';
import { ExclusiveSession, MemoryVisitStore, Session, VisitPlugin } from 'nest-visit';
import { retry, Subject, takeUntil, throwIfEmpty } from 'rxjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import { Gates } from '../support/gates.js';
import { PATIENCE } from '../support/patience.js';

/** Tells when a request is about to wait for its access. */
@VisitPlugin()
class Arrivals {
  arrived: () => void = () => {};

  onRecordRequest() {
    this.arrived();
  }
}

/** Gives the first try of a request up, as a time limit does that is followed by another try. */
const givenUp = new Subject<void>();

@Injectable()
class GivesUp implements NestInterceptor {
  intercept(execution: ExecutionContext, next: CallHandler) {
    const { query } = execution.switchToHttp().getRequest<{ query: Record<string, string> }>();
    if (query['given-up'] !== '1') return next.handle();
    return next.handle().pipe(
      takeUntil(givenUp),
      throwIfEmpty(() => new RequestTimeoutException()),
      retry(1),
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

  @Post('held')
  @ExclusiveSession()
  async held() {
    await this.gates.pass('held');
  }

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

describe.each(platforms)('Exclusive access under %s', (platform) => {
  let app: RunningApp;
  beforeAll(async () => {
    app = await startApp(
      platform,
      { store: new MemoryVisitStore() },
      // Around ours, as it is of the root module.
      { controllers: [Exclusive], providers: [Gates, Arrivals, RemembersProblem, { provide: APP_INTERCEPTOR, useClass: GivesUp }] },
    );
  });
  afterAll(() => app?.close());

  test('R52: what an exception filter changes is saved, though the handler has given its access back', async () => {
    const browser = app.browser();
    await browser.post('/begin');
    expect(await browser.post('/problem')).toMatchObject({ status: 409, text: 'sold out' });
    expect((await browser.post('/told')).text).toBe('{"problem":"sold out"}');
  });

  test('R52: is given back by a handler that is given up while it waits', async () => {
    const browser = app.browser();
    await browser.post('/begin');
    const gate = app.app.get(Gates).make('held');
    const holder = browser.post('/held');
    await gate.arrived;
    const waits = new Promise<void>((resolve) => (app.app.get(Arrivals).arrived = resolve));
    const impatient = browser.post('/add?given-up=1');
    await waits;
    await new Promise((resolve) => setImmediate(resolve));
    givenUp.next();
    gate.open();
    await holder;
    expect((await impatient).text).toBe('{"n":1}');
    expect((await browser.post('/add')).text).toBe('{"n":2}');
  });
});
