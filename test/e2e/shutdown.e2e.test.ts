import { AsyncResource } from 'node:async_hooks';
import { setImmediate as otherEvents } from 'node:timers/promises';
import { Controller, Inject, Post, type INestApplication } from '@nestjs/common';
import { ScheduleModule, SchedulerRegistry } from '@nestjs/schedule';
import { ExpungeService, MemoryVisitStore, Session, type CleanUpBatch, type Touch } from 'nest-visit';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { newVisit } from '../../lib/testing/samples.js';
import { platforms, startApp } from '../support/app.js';
import { ManualClock } from '../support/manual-clock.js';

const DAY = 86_400_000;

/** What requests have left to be called later. */
const leftBehind: (() => unknown)[] = [];

@Controller()
class Site {
  constructor(@Inject(Session) private readonly session: Session<{ n: number }>) {}

  @Post('add')
  add() {
    return this.session.update('n', (n = 0) => n + 1);
  }

  @Post('leave')
  leave() {
    leftBehind.push(AsyncResource.bind(() => this.session.get('n')));
  }
}

/** Tells of its clean-up, which may hang. */
class WatchedStore extends MemoryVisitStore {
  batches = 0;
  touched: readonly Touch[] = [];
  hangs = false;
  began = (): void => {};

  override async expunge(batch: CleanUpBatch) {
    this.batches++;
    this.began();
    if (this.hangs) await new Promise(() => {});
    return super.expunge(batch);
  }

  override async touch(touches: readonly Touch[]) {
    this.touched = touches;
    return super.touch(touches);
  }
}

/** Whether an application closes, on a clock of its own: what it waits for in vain takes none of the test's time. */
async function closesInHaste(app: INestApplication): Promise<boolean> {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const closing = app.close().then(() => true);
  for (let waited = 0; waited < 60_000; waited += 10) {
    if (await Promise.race([closing, otherEvents(false)])) return true;
    vi.advanceTimersByTime(10);
  }
  return false;
}

afterEach(() => {
  vi.useRealTimers();
});

describe.each(platforms)('Shutdown of an application under %s', (platform) => {
  async function start(options: object = {}) {
    const store = new WatchedStore();
    const clock = new ManualClock();
    const old = clock.now() - 30 * DAY;
    await store.create(Array.from({ length: 1000 }, () => newVisit({ created: old, accessed: old, expiry: old })));
    const parts = { controllers: [Site], imports: [ScheduleModule.forRoot()] };
    const running = await startApp(platform, { store, clock, timeout: '1h', ...options }, parts);
    const began = new Promise<void>((resolve) => (store.began = resolve));
    return { store, clock, app: running.app, browser: () => running.browser(), began };
  }

  test('B51: a clean-up stops after its batch, and pending updates are written', async () => {
    const { store, clock, app, browser, began } = await start();
    const visitor = browser();
    await visitor.post('/add');
    clock.advance(120_000);
    await visitor.post('/add');
    expect(store.touched).toEqual([]);
    const run = app.get(ExpungeService).run({ batchSize: 1 });
    await began;
    await app.close();
    expect(store.touched).toHaveLength(1);
    const { visits } = await run;
    expect(visits).toBeGreaterThan(0);
    expect(visits).toBeLessThan(1000);
    // Nothing begins after the end either.
    expect(await app.get(ExpungeService).run()).toEqual({ visits: 0, identities: 0 });
  });

  test('B51: does not wait for a clean-up that hangs', async () => {
    const { store, clock, app, browser, began } = await start({ expunge: { schedule: '0 3 * * *' } });
    store.hangs = true;
    const visitor = browser();
    await visitor.post('/add');
    clock.advance(120_000);
    await visitor.post('/add');
    void app.get(SchedulerRegistry).getCronJob('nest-visit:expunge').fireOnTick();
    await began;
    expect(await closesInHaste(app)).toBe(true);
    expect(store.touched).toHaveLength(1);
    expect(store.batches).toBe(1);
  });

  test('leaves nothing in the context of a request, and no cost for later code', async () => {
    const { app, browser } = await start();
    await browser().post('/leave');
    const [left] = leftBehind.splice(0);
    expect(left).toThrow('the request has ended');
    await app.close();
    expect(left).toThrow('there is no request here');
  });

  test('B51: does not wait for a store that does not close', async () => {
    const { store, app } = await start();
    store.close = () => new Promise(() => {});
    expect(await closesInHaste(app)).toBe(true);
  });
});
