import { Controller, Get, Inject, Param, Post, UseGuards, type INestApplication } from '@nestjs/common';
import { context, ROOT_CONTEXT, SpanStatusCode, trace, type Attributes } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
  type Histogram,
} from '@opentelemetry/sdk-metrics';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
  type ReadableSpan,
} from '@opentelemetry/sdk-trace-base';
import {
  CsrfGuard,
  ExpungeService,
  IdentityService,
  RequireFormToken,
  RequireIdentity,
  Session,
  VisitService,
} from 'nest-visit';
import { openTelemetry, type OpenTelemetryOptions } from 'nest-visit/opentelemetry';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { platforms, startApp, type PlatformName, type RunningApp } from '../support/app.js';
import type { Answer } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';
import { ofToday } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';

@Controller()
class Shop {
  constructor(
    @Inject(Session) private readonly session: Session<{ cart: number }>,
    @Inject(IdentityService) private readonly identity: IdentityService,
    @Inject(VisitService) private readonly visits: VisitService,
    @Inject(ExpungeService) private readonly expunger: ExpungeService,
  ) {}

  @Get('cart')
  cart() {
    return { cart: this.session.get('cart') ?? 0 };
  }

  @Post('cart')
  async add() {
    return { cart: await this.session.update('cart', (cart = 0) => cart + 1) };
  }

  @Post('login/:user')
  async login(@Param('user') user: string) {
    await this.identity.login(user);
    return {};
  }

  @Post('logout')
  async logout() {
    await this.identity.logout({ keepVisit: true });
    return {};
  }

  @Post('end')
  async end() {
    await this.visits.end(undefined, 'bought');
    return {};
  }

  @Post('end-all')
  async endAll() {
    return { ended: await this.visits.endAll() };
  }

  @Post('expunge')
  expunge() {
    return this.expunger.run();
  }

  @Get('account')
  @RequireIdentity()
  account() {
    return {};
  }

  @Post('form')
  @RequireFormToken()
  form() {
    return {};
  }

  @Post('transfer')
  @UseGuards(CsrfGuard)
  transfer() {
    return {};
  }
}

/** An application, what it tells, and a span around each of its requests, as an instrumentation of HTTP makes one. */
class Observed {
  readonly watched = new WatchedStore();
  readonly clock = new ManualClock();
  readonly spans = new InMemorySpanExporter();
  private readonly metricExporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  private readonly reader = new PeriodicExportingMetricReader({
    exporter: this.metricExporter,
    exportIntervalMillis: 3_600_000,
  });
  private readonly meterProvider = new MeterProvider({ readers: [this.reader] });
  private readonly tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(this.spans)] });
  /** Requests that the server has been given, and that have gone as far as they go at once. */
  entered = 0;
  running!: RunningApp;

  async start(platform: PlatformName, options: OpenTelemetryOptions = {}): Promise<void> {
    const { meterProvider, tracerProvider, clock, watched } = this;
    const telemetry = openTelemetry({ meterProvider, tracerProvider, ...options });
    this.running = await startApp(
      platform,
      { store: watched.store, clock, telemetry, onRetiredKey: 'refuse', identity: { maxVisitsPerUser: 2 } },
      { controllers: [Shop] },
      (app) => this.trace(app),
    );
  }

  private trace(app: INestApplication): void {
    const server = app.getHttpServer() as { emit: (event: string, ...args: unknown[]) => boolean };
    const emit = server.emit.bind(server);
    const tracer = this.tracerProvider.getTracer('server');
    server.emit = (event, ...args) => {
      if (event !== 'request') return emit(event, ...args);
      const [request, response] = args as [{ url: string }, NodeJS.EventEmitter];
      const span = tracer.startSpan(request.url, {}, ROOT_CONTEXT);
      response.once('close', () => span.end());
      const result = context.with(trace.setSpan(ROOT_CONTEXT, span), () => emit(event, ...args));
      this.entered++;
      return result;
    };
  }

  /** The spans of finished requests and look-ups. */
  named(name: string): ReadableSpan[] {
    return this.spans.getFinishedSpans().filter((span) => span.name === name);
  }

  /** The value of each series of a metric, by its attributes. */
  async values(name: string): Promise<Record<string, number>> {
    return Object.fromEntries(
      (await this.points(name)).map(({ attributes, value }) => [
        Object.values(attributes).join(' '),
        typeof value === 'number' ? value : (value as Histogram).count,
      ]),
    );
  }

  async points(name: string): Promise<{ attributes: Attributes; value: unknown }[]> {
    return (await this.metrics()).find(({ descriptor }) => descriptor.name === name)?.dataPoints ?? [];
  }

  async metrics() {
    await this.reader.forceFlush();
    return (
      this.metricExporter
        .getMetrics()
        .at(-1)
        ?.scopeMetrics.flatMap(({ metrics }) => metrics) ?? []
    );
  }

  async close(): Promise<void> {
    await this.running.close();
    await this.meterProvider.shutdown();
    await this.tracerProvider.shutdown();
  }
}

beforeAll(() => void context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable()));
afterAll(() => context.disable());

describe.each(ofToday(platforms, 0))('OpenTelemetry under %s', (platform) => {
  let observed: Observed;
  const start = async (options?: OpenTelemetryOptions): Promise<Observed> => {
    observed = new Observed();
    await observed.start(platform, options);
    return observed;
  };
  afterEach(() => observed.close());

  test('counts the events of visits, each once', async () => {
    const { running, clock } = await start();
    const [one, two, three] = [running.browser(), running.browser(), running.browser()];
    await one.post('/cart');
    await one.post('/cart');
    await one.post('/login/ann');
    const before = one.clone();
    await one.post('/login/ann');
    clock.advance(10 * 60_000);
    await before.get('/cart'); // The key of before the sign-in.
    await one.get('/cart', { cookie: `visit=${'0'.repeat(32)}.${'A'.repeat(43)}` });
    await one.post('/logout');
    await two.post('/login/bob');
    await two.post('/end');
    for (const browser of [two, three, running.browser()]) await browser.post('/login/cid');
    expect(JSON.parse((await one.post('/end-all')).text)).toEqual({ ended: 3 });
    clock.advance(40 * 24 * 60 * 60 * 1000);
    await one.post('/expunge');

    expect(await observed.values('nest_visit.visits.created')).toEqual({ '': 5 });
    expect(await observed.values('nest_visit.visits.ended')).toEqual({ bought: 1, limit: 1, revoked: 3 });
    expect(await observed.values('nest_visit.visits.expunged')).toEqual({ '': 5 });
    expect(await observed.values('nest_visit.sign_ins')).toEqual({ '': 5 });
    expect(await observed.values('nest_visit.sign_outs')).toEqual({ '': 1 });
    expect(await observed.values('nest_visit.limits.reached')).toEqual({ 'end-oldest': 1 });
    expect(await observed.values('nest_visit.keys.refused')).toEqual({ retired: 1, forged: 1 });
  });

  test('counts refused requests, by error code', async () => {
    const { running, watched } = await start();
    const browser = running.browser();
    await browser.post('/cart');
    expect((await browser.get('/account')).status).toBe(401);
    expect((await browser.post('/form')).status).toBe(403);
    expect((await browser.post('/transfer', { headers: { 'sec-fetch-site': 'cross-site' } })).status).toBe(403);
    watched.away('find');
    expect((await browser.get('/cart')).status).toBe(503);
    expect((await browser.get('/account')).status).toBe(503);
    expect(await observed.values('nest_visit.requests.refused')).toEqual({
      VISIT_IDENTITY_REQUIRED: 1,
      VISIT_FORM_TOKEN_MISSING: 1,
      VISIT_CROSS_SITE: 1,
      VISIT_STORE_UNAVAILABLE: 2,
    });
  });

  test('measures calls of the store, by operation and kind of error, and counts conflicts of saves', async () => {
    const { running, watched } = await start();
    const browser = running.browser();
    await browser.post('/cart');
    // Another process is in between.
    watched.around = async ({ method, args }, go) => {
      if (method !== 'save') return go();
      watched.pass();
      await watched.inner.save(args[0] as never);
      return go();
    };
    expect(JSON.parse((await browser.post('/cart')).text)).toEqual({ cart: 3 });
    expect(await observed.values('nest_visit.saves.conflicts')).toEqual({ '': 1 });
    await browser.post('/login/ann');
    watched.around = async ({ method }, go) => {
      if (method === 'find') throw Object.assign(new Error('secret words'), { code: 'ECONNRESET' });
      return go();
    };
    await browser.get('/cart');
    const calls = await observed.values('nest_visit.store.call.duration');
    expect(calls).toMatchObject({ create: 1, save: 2, rekey: 1, find: expect.any(Number) });
    expect(calls['find ECONNRESET']).toBeGreaterThan(0);
    const [duration] = (await observed.metrics()).filter(
      ({ descriptor }) => descriptor.name === 'nest_visit.store.call.duration',
    );
    expect(duration!.descriptor.unit).toBe('s');
    const failed = observed.named('nest_visit.lookup').filter(({ status }) => status.code === SpanStatusCode.ERROR);
    expect(failed.length).toBe(calls['find ECONNRESET']);
    expect(JSON.stringify(failed.map(({ status, attributes, events }) => [status, attributes, events]))).not.toContain(
      'secret',
    );
  });

  /**
   * Two look-ups of the first visit are under way, each by itself, and those of all others wait for the next one.
   * `around` is for the calls of the store; what is linked by each look-up, when all have been answered.
   */
  const lookUpTogether = async (
    count: number,
    around: WatchedStore['around'] = (_, go) => go(),
  ): Promise<{ linked: string[][]; lookups: ReadableSpan[]; spansOf: (path: string) => string[] }> => {
    const { running, watched } = await start();
    const browsers = Array.from({ length: count }, () => running.browser());
    for (const browser of browsers) await browser.post('/cart');
    observed.spans.reset();
    observed.entered = 0;
    watched.calls.length = 0;
    let release!: () => void;
    const released = new Promise<void>((resolve) => (release = resolve));
    watched.around = (call, go) => around(call, () => released.then(go));
    const answers: Promise<Answer>[] = [];
    for (const [index, browser] of [browsers[0]!, browsers[0]!.clone()].entries()) {
      answers.push(browser.get(`/cart?${index}`));
      await expect.poll(() => watched.calls.length).toBe(index + 1);
    }
    // The last visit twice.
    for (const [index, browser] of [...browsers.slice(1), browsers.at(-1)!.clone()].entries())
      answers.push(browser.get(`/cart?${index + 2}`));
    await expect.poll(() => observed.entered).toBe(count + 2);
    release();
    for (const answer of answers) expect((await answer).status).toBe(200);
    const spansOf = (path: string): string[] => observed.named(path).map((span) => span.spanContext().spanId);
    await expect
      .poll(() => Array.from(answers, (_, index) => spansOf(`/cart?${index}`).length))
      .toEqual(answers.map(() => 1));
    const lookups = observed.named('nest_visit.lookup');
    const linked = lookups.map(({ links }) => links.map((link) => link.context.spanId).toSorted());
    return { linked, lookups, spansOf };
  };

  test('creates one span per batch of look-ups, linked to the spans of all waiting requests', async () => {
    const within: unknown[] = [];
    const { linked, lookups, spansOf } = await lookUpTogether(3, (_, go) => {
      within.push(trace.getActiveSpan()?.spanContext().spanId);
      return go();
    });
    const [first, second, ...others] = [0, 1, 2, 3, 4].map((index) => spansOf(`/cart?${index}`));
    expect(linked).toEqual([first, second, others.flat().toSorted()]);
    expect(lookups.map(({ attributes }) => attributes)).toEqual(
      [1, 1, 2].map((size) => ({ 'nest_visit.lookup.batch_size': size })),
    );
    expect(lookups.map(({ parentSpanContext }) => parentSpanContext)).toEqual([undefined, undefined, undefined]);
    // So what instrumentations of drivers make within is its child.
    expect(within).toEqual(lookups.map((span) => span.spanContext().spanId));
  });

  test('links a repeated look-up only to requests that still wait for it', async () => {
    let fails = true;
    const { linked, spansOf } = await lookUpTogether(3, ({ args }, go) => {
      if (!fails || (args[0] as string[]).length < 2) return go();
      fails = false;
      return Promise.reject(new Error('one of them cannot be read'));
    });
    const [third, ...fourth] = [2, 3, 4].flatMap((index) => spansOf(`/cart?${index}`));
    // Both together, a probe, and each by itself.
    const each = [[third!], fourth];
    expect(linked.slice(2)).toEqual(
      expect.arrayContaining([each.flat(), [], ...each].map((spans: string[]) => spans.toSorted())),
    );
    const browser = observed.running.browser();
    await browser.post('/cart');
    observed.spans.reset();
    await browser.get('/cart?next');
    await expect.poll(() => spansOf('/cart?next').length).toBe(1);
    const [lookup] = observed.named('nest_visit.lookup');
    expect(lookup!.links.map((link) => link.context.spanId)).toEqual(spansOf('/cart?next'));
  });

  test('contains no ids, keys or user names, unless ids are enabled', async () => {
    const everything = async (): Promise<string> =>
      JSON.stringify([
        await observed.metrics(),
        observed.spans.getFinishedSpans().map(({ name, attributes, links, events, status }) => {
          return { name, attributes, links, events, status };
        }),
      ]);
    const visit = async (): Promise<string> => {
      const browser = observed.running.browser();
      await browser.post('/cart');
      await browser.post('/login/ann');
      await browser.get('/cart');
      await expect.poll(() => observed.named('/cart').length).toBe(2);
      return browser.jar.get('visit')!;
    };
    await start();
    const key = await visit();
    const [id, secret] = key.split('.') as [string, string];
    const told = (await everything()).replaceAll('/login/ann', '');
    for (const word of [id, secret, 'ann']) expect(told).not.toContain(word);
    await observed.close();

    await start({ visitIds: true });
    const other = (await visit()).split('.')[0];
    const [last] = observed.named('/cart').slice(-1);
    expect(last!.attributes).toEqual({ 'session.id': other });
    const links = observed.named('nest_visit.lookup').flatMap((span) => span.links);
    expect(links.map(({ attributes }) => attributes)).toContainEqual({ 'session.id': other });
    for (const word of [secret, 'ann']) expect((await everything()).replaceAll('/login/ann', '')).not.toContain(word);
  });
});

describe('Without an SDK', () => {
  test('all requests are served, and nothing is recorded', async () => {
    const watched = new WatchedStore();
    const running = await startApp(
      'express',
      { store: watched.store, telemetry: openTelemetry() },
      { controllers: [Shop] },
    );
    const browser = running.browser();
    await browser.post('/cart');
    expect((await browser.get('/account')).status).toBe(401);
    expect(JSON.parse((await browser.get('/cart')).text)).toEqual({ cart: 1 });
    await running.close();
  });

  test('an invalid telemetry option is refused at startup', async () => {
    await expect(
      startApp('express', { store: new WatchedStore().store, telemetry: {} as never }, { controllers: [Shop] }),
    ).rejects.toThrow(/option "telemetry" must be what openTelemetry\(\)/);
  });
});
