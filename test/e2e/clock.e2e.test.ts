import { Controller, Inject, Post, Query } from '@nestjs/common';
import { ExpungeService, IdentityService, Session, VisitService } from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { describeStacks } from '../support/app.js';
import { ManualClock } from '../support/manual-clock.js';

const MINUTE = 60_000;

@Controller()
class Site {
  constructor(
    @Inject(Session) private readonly session: Session<{ n: number }>,
    @Inject(IdentityService) private readonly identity: IdentityService,
  ) {}

  @Post('add')
  async add() {
    return this.session.update('n', (n = 0) => n + 1);
  }

  @Post('login')
  async login(@Query('user') user: string) {
    await this.identity.login(user);
  }
}

const parts = { controllers: [Site] };

describe('The clock of a process', () => {
  describeStacks('that is compared with the database', (stack) => {
    /** An application whose clock is so far from that of the database. */
    async function start(skew: number, maxClockSkew: '1m' | false = '1m') {
      const clock = new ManualClock();
      clock.set(Date.now() + skew);
      const running = await stack.start(parts, { clock, maxClockSkew });
      const { app } = running;
      return { browser: () => running.browser(), visits: app.get(VisitService), cleanUp: app.get(ExpungeService) };
    }

    test.each([60 * MINUTE, -60 * MINUTE])(
      'B75, B77: if it is wrong by %d ms, it does not wipe, delete or end anything',
      async (skew) => {
        const right = await start(0);
        const browser = right.browser();
        await browser.post('/add');
        const { cleanUp, visits } = await start(skew);
        for (const act of [() => cleanUp.run({ keepDays: 0 }), () => cleanUp.wipeExpired(), () => visits.endAll()])
          await expect(act()).rejects.toMatchObject({
            code: 'VISIT_CLOCK',
            message: expect.stringMatching(/3[56]\d\d s (ahead of|behind)/),
          });
        expect(await cleanUp.run({ dryRun: true })).toBeDefined();
        expect((await browser.post('/add')).text).toBe('2');
        // What a clock of the application's own may do, it does by option.
        const own = await start(Math.abs(skew), false);
        expect(await own.cleanUp.wipeExpired()).toBeGreaterThan(0);
      },
    );

    test('B75: if it is right, all of this is done', async () => {
      const { browser, cleanUp, visits } = await start(0);
      await browser().post('/add');
      expect(await cleanUp.run()).toMatchObject({ visits: 0 });
      expect(await cleanUp.wipeExpired()).toBe(0);
      expect(await visits.endAll()).toBeGreaterThan(0);
    });

    test('B77: an end of all visits in the future locks nobody out beyond the allowed difference', async () => {
      const user = stack.platform;
      const right = await start(0);
      const [soon, late] = [await start(30_000, false), await start(60 * MINUTE, false)];
      await soon.visits.endAllForUser(user);
      expect((await right.browser().post(`/login?user=${user}`)).status).toBe(409);
      await late.visits.endAllForUser(user);
      expect((await right.browser().post(`/login?user=${user}`)).status).toBe(201);
    });
  });
});
