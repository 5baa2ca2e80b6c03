import { Controller, Get, Param, Post, Query } from '@nestjs/common';
import {
  CurrentUserId,
  IdentityService,
  MemoryVisitStore,
  RequireFresh,
  RequireIdentity,
  VisitPlugin,
  VisitService,
  type CurrentVisit,
  type EndedVisit,
  type IdentityChange,
  type VisitRecord,
} from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import { Gates } from '../support/gates.js';
import { ManualClock } from '../support/manual-clock.js';
import { ofToday } from '../support/today.js';

const HOUR = 3_600_000;

/** Holds inserts up. */
class SlowStore extends MemoryVisitStore {
  readonly gates = new Gates();

  override async create(visits: readonly VisitRecord[]): Promise<void> {
    await this.gates.pass('insert');
    await super.create(visits);
  }
}

const told: unknown[] = [];

@VisitPlugin({ onError: 'throw' })
class Witness {
  fails = false;

  onNewVisit(visit: CurrentVisit, request: unknown): void {
    told.push(['new', visit.id, visit.permanent, visit.age(), request === undefined ? 'no request' : 'a request']);
  }
  onIdentityLinked({ visitId, userId }: IdentityChange): void {
    told.push(['linked', visitId, userId]);
    if (this.fails) throw new Error('on purpose');
  }
  onVisitEnded({ id, reason }: EndedVisit): void {
    told.push(['ended', id, reason]);
  }
}

@Controller()
class HandOvers {
  constructor(
    private readonly visits: VisitService,
    private readonly identity: IdentityService,
  ) {}

  @Post('login/:user')
  login(@Param('user') user: string, @Query('at') at?: string) {
    return this.identity.login(user, at ? { authenticatedAt: new Date(Number(at)) } : {});
  }

  @Post('hand-over/:user')
  async handOver(@Param('user') user: string, @Query('at') at?: string) {
    return (await this.visits.create({ userId: user, ...(at && { authenticatedAt: new Date(Number(at)) }) })).key;
  }

  @Get('fresh')
  @RequireFresh({ maxAge: '5m' })
  fresh() {
    return 'fresh';
  }

  @Get('me')
  @RequireIdentity()
  me(@CurrentUserId() user: string) {
    return user;
  }
}

describe.each(ofToday(platforms, 1))('A sign-in that is handed over, under %s', (platform) => {
  const store = new SlowStore();
  const clock = new ManualClock();
  let app: RunningApp;
  let visits: VisitService;
  beforeAll(async () => {
    app = await startApp(
      platform,
      { store, clock, timeout: '2d', absoluteTimeout: '1d' },
      { controllers: [HandOvers], providers: [Witness] },
    );
    visits = app.app.get(VisitService);
  });
  afterAll(() => app?.close());
  beforeEach(() => {
    clock.advance(1000);
    told.length = 0;
  });
  let people = 0;
  const someone = (): string => `${platform} ${++people}`;
  const isIn = async (key: string): Promise<boolean> =>
    (await app.browser().get('/me', { cookie: `visit=${key}` })).status === 200;

  describe.each<[string, (user: string) => Promise<number>]>([
    ['endAllForUser()', (user) => visits.endAllForUser(user)],
    ['endAll()', () => visits.endAll()],
  ])('and %s', (_, endAll) => {
    test('it does not survive an end of visits while it is being created', async () => {
      const user = someone();
      const gate = store.gates.make('insert');
      const creating = visits.create({ userId: user }).then(
        () => 'made',
        (error: { code: string }) => error.code,
      );
      await gate.arrived;
      await endAll(user);
      gate.open();
      expect(await creating).toBe('VISIT_ENDED');
      expect(await visits.listForUser(user)).toEqual([]);
      expect(told.at(-1)).toEqual(['ended', expect.any(String), 'revoked']);
    });

    test('one created right after the end is a new sign-in', async () => {
      const user = someone();
      await endAll(user);
      expect(await isIn((await visits.create({ userId: user })).key)).toBe(true);
    });

    test('a request that began before the end cannot hand over a sign-in', async () => {
      const user = someone();
      const browser = app.browser();
      await browser.post(`/login/${user}`);
      const gate = store.gates.make('insert');
      const handingOver = browser.post(`/hand-over/${user}`);
      await gate.arrived;
      await endAll(user);
      gate.open();
      expect((await handingOver).status).toBe(409);
      expect(await visits.listForUser(user)).toEqual([]);
    });
  });

  test('in a request of its user, it is as old as their sign-in', async () => {
    const [user, other] = [someone(), someone()];
    const browser = app.browser();
    await browser.post(`/login/${user}`);
    expect((await browser.get('/fresh')).status).toBe(200);
    clock.advance(8 * HOUR);
    const handOver = async (path: string) =>
      app.browser().get('/fresh', { cookie: `visit=${(await browser.post(path)).text}` });
    expect((await browser.get('/fresh')).status).toBe(401);
    expect((await handOver(`/hand-over/${user}`)).status).toBe(401);
    // For somebody else, and where it is said, it is not.
    expect((await handOver(`/hand-over/${other}`)).status).toBe(200);
    expect((await handOver(`/hand-over/${user}?at=${clock.now()}`)).status).toBe(200);
    expect((await handOver(`/hand-over/${other}?at=${clock.now() - HOUR}`)).status).toBe(401);
    // The absolute limit counts from the same instant.
    const { text: key } = await browser.post(`/hand-over/${user}`);
    clock.advance(16 * HOUR - 1);
    expect(await isIn(key)).toBe(true);
    clock.advance(1);
    expect(await isIn(key)).toBe(false);
  });

  test('a sign-in that happened elsewhere keeps its age', async () => {
    const user = someone();
    const browser = app.browser();
    await browser.post(`/login/${user}?at=${clock.now() - HOUR}`);
    expect((await browser.get('/fresh')).status).toBe(401);
    expect((await visits.listForUser(user))[0]!.authenticatedAt).toEqual(new Date(clock.now() - HOUR));
    // The clock of whoever says it may be ahead.
    await browser.post(`/login/${user}?at=${clock.now() + HOUR}`);
    expect((await visits.listForUser(user))[0]!.authenticatedAt).toEqual(new Date(clock.now()));
    clock.advance(6 * 60_000);
    expect((await browser.get('/fresh')).status).toBe(401);
    clock.advance(24 * HOUR - 6 * 60_000);
    expect((await browser.get('/me')).status).toBe(401);
  });

  test('a time that is too old or invalid is refused before anything is done', async () => {
    const user = someone();
    const browser = app.browser();
    const tooOld = await browser.post(`/login/${user}?at=${clock.now() - 24 * HOUR}`);
    expect([tooOld.status, JSON.parse(tooOld.text).code, tooOld.cookies]).toEqual([
      401,
      'VISIT_FRESH_IDENTITY_REQUIRED',
      [],
    ]);
    await expect(
      visits.create({ userId: user, authenticatedAt: new Date(clock.now() - 24 * HOUR) }),
    ).rejects.toMatchObject({
      code: 'VISIT_FRESH_IDENTITY_REQUIRED',
    });
    await expect(visits.create({ userId: user, authenticatedAt: new Date(Number.NaN) })).rejects.toMatchObject({
      code: 'VISIT_OPTION',
    });
    await expect(visits.create({ userId: user, authenticatedAt: 5 as never })).rejects.toMatchObject({
      code: 'VISIT_OPTION',
    });
    expect(told).toEqual([]);
    expect(await visits.listForUser(user)).toEqual([]);
  });

  test('R72, ASVS 16.3.1: plugins are called once for it, and also for a visit without a user', async () => {
    const user = someone();
    const { visit } = await visits.create({ userId: user, permanent: true });
    const { visit: nobodys } = await visits.create();
    await visits.end(visit.id, 'done', { userId: user });
    expect(told).toEqual([
      ['new', visit.id, true, 0, 'no request'],
      ['linked', visit.id, user],
      ['new', nobodys.id, false, 0, 'no request'],
      ['ended', visit.id, 'done'],
    ]);
  });

  test('a plugin that throws undoes it', async () => {
    const user = someone();
    const witness = app.app.get(Witness);
    witness.fails = true;
    try {
      await expect(visits.create({ userId: user })).rejects.toThrow('on purpose');
    } finally {
      witness.fails = false;
    }
    expect(await visits.listForUser(user)).toEqual([]);
    expect(told.at(-1)).toEqual(['ended', expect.any(String), 'failed']);
  });
});
