import { Controller, Get, Inject } from '@nestjs/common';
import { HealthCheck, HealthCheckService, TerminusModule } from '@nestjs/terminus';
import { SkipVisit, VisitHealth } from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import { WatchedStore } from '../support/watched-store.js';

@Controller()
class Health {
  constructor(
    @Inject(HealthCheckService) private readonly health: HealthCheckService,
    @Inject(VisitHealth) private readonly visits: VisitHealth,
  ) {}

  @Get('health')
  @SkipVisit()
  @HealthCheck()
  check() {
    return this.health.check([() => this.visits.check()]);
  }

  @Get('sessions')
  @SkipVisit()
  named() {
    return this.visits.check('sessions');
  }
}

describe.each(platforms)('Health under %s', (platform) => {
  const watched = new WatchedStore();
  let running: RunningApp;
  beforeAll(async () => {
    running = await startApp(platform, { store: watched.store }, { imports: [TerminusModule], controllers: [Health] });
  });
  afterAll(() => running.close());
  beforeEach(() => {
    watched.pass();
    watched.calls.length = 0;
  });

  test('is up while visits can be read, which it checks by one look-up, without writing', async () => {
    const answer = await running.browser().get('/health');
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.text)).toMatchObject({ status: 'ok', info: { visits: { status: 'up' } }, error: {} });
    expect(watched.calls).toEqual(['find']);
    expect(answer.cookies).toEqual([]);
  });

  test('is down while they cannot, without the message of the store, and recovers by itself', async () => {
    watched.away('find');
    const answer = await running.browser().get('/health');
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.text)).toMatchObject({
      status: 'error',
      error: { visits: { status: 'down', message: 'The session store is unavailable.' } },
    });
    watched.pass();
    expect((await running.browser().get('/health')).status).toBe(200);
  });

  test('has the given name', async () => {
    expect(JSON.parse((await running.browser().get('/sessions')).text)).toEqual({ sessions: { status: 'up' } });
  });
});
