import { Controller, Get, Logger, NotFoundException, Query, Req } from '@nestjs/common';
import { IdentityService, MemoryVisitStore, VisitPlugin, VisitService, type LogoutOptions } from 'nest-visit';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { ManualClock } from '../support/manual-clock.js';

/** What has been told of, by plugins behind one that fails. */
const told: string[] = [];
/** The hooks in which the first plugin fails. */
const failing = new Set<string>();

const fail = (hook: string): void => {
  if (failing.has(hook)) throw new Error(`${hook} failed`);
};

@VisitPlugin({ order: 1, onError: 'throw' })
class Failing {
  onNewVisit = (): void => fail('onNewVisit');
  onRecordRequest = (): void => fail('onRecordRequest');
  onVisitEnded = (): void => fail('onVisitEnded');
  onAllVisitsEnded = (): void => fail('onAllVisitsEnded');
  onIdentityLinked = (): void => fail('onIdentityLinked');
  onIdentityUnlinked = (): void => fail('onIdentityUnlinked');
}

@VisitPlugin({ order: 2 })
class Audit {
  onNewVisit = (): unknown => told.push('new');
  onVisitEnded = ({ reason }: { reason: string }): unknown => told.push(`ended ${reason}`);
  onAllVisitsEnded = ({ visits }: { visits: number }): unknown => told.push(`everything ${visits}`);
  onIdentityLinked = ({ userId }: { userId: string }): unknown => told.push(`linked ${userId}`);
  onIdentityUnlinked = ({ userId }: { userId: string }): unknown => told.push(`unlinked ${userId}`);
}

/** What the plugin throws that is only logged. */
const careless: { throws: unknown }[] = [];

@VisitPlugin()
class Careless {
  onNewVisit = (): void => {
    for (const { throws } of careless) throw throws;
  };
}

@Controller()
class Acts {
  constructor(
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
  ) {}

  @Get('who') who() {
    return String(this.identity.userId);
  }
  @Get('login') login(@Query('user') user: string) {
    return this.identity.login(user);
  }
  @Get('logout') logout(@Query() { keepVisit }: LogoutOptions) {
    return this.identity.logout({ keepVisit: Boolean(keepVisit) });
  }
  @Get('end') end() {
    return this.visits.end();
  }
  @Get('others') others() {
    return this.visits.endOthers();
  }
  @Get('all') all(@Query('user') user: string) {
    return this.visits.endAllForUser(user);
  }
  @Get('everything') everything() {
    return this.visits.endAll();
  }
  @Get('user') user(@Req() request: { user?: { id: string } }) {
    return `user ${request.user?.id}`;
  }
  @Get('print') print(@Req() request: object) {
    return `user of ${Object.keys(request).includes('user')}`;
  }
  @Get('leave') async leave(@Req() request: { user?: unknown }, @Query() options: LogoutOptions) {
    await this.logout(options);
    return `user ${String(request.user)}`;
  }
}

const parts = { controllers: [Acts], providers: [Failing, Audit, Careless] };

describe.each(platforms)('Failures beside a request under %s', (platform) => {
  let app: RunningApp;
  const broken = { users: false };
  const clock = new ManualClock();
  let withUsers: RunningApp;
  beforeAll(async () => {
    app = await startApp(platform, { store: new MemoryVisitStore(), clock }, parts);
    const loadUser = (id: string): unknown => {
      if (broken.users) throw new NotFoundException(`no user ${id}`);
      return { id };
    };
    withUsers = await startApp(
      platform,
      { store: new MemoryVisitStore(), clock, identity: { requestUser: true, loadUser } },
      parts,
    );
  });
  afterAll(() => Promise.all([app, withUsers].map((one) => one?.close())));
  beforeEach(async () => {
    failing.clear();
    careless.length = 0;
    broken.users = false;
    await app.app.get(VisitService).endAllForUser('ann');
    clock.advance(1000);
  });

  const signIn = async (user = 'ann', at = app): Promise<Browser> => {
    const browser = at.browser();
    expect((await browser.get(`/login?user=${user}`)).status).toBe(200);
    told.length = 0;
    return browser;
  };
  const who = async (browser: Browser): Promise<string> => {
    failing.clear();
    return (await browser.get('/who')).text;
  };

  test.each([
    ['/end', ['ended ended'], 'null'],
    ['/logout', ['ended logout'], 'null'],
    ['/logout?keepVisit=1', ['unlinked ann'], 'null'],
    ['/all?user=ann', ['ended revoked', 'ended revoked', 'ended revoked'], 'null'],
    ['/others', ['ended revoked', 'ended revoked'], 'ann'],
    ['/everything', ['ended revoked', 'everything'], 'null'],
  ])(
    'R72, ASVS 16.3.1: a plugin that throws keeps no visit alive, and all others are called: %s',
    async (path, expected, left) => {
      const [first, second, current] = [await signIn(), await signIn(), await signIn()];
      for (const hook of ['onVisitEnded', 'onAllVisitsEnded', 'onIdentityUnlinked']) failing.add(hook);
      expect((await current.clone().get(path)).status).toBe(500);
      expect(told.map((one) => one.replace(/^everything \d+/, 'everything'))).toEqual(expected);
      expect(await who(current)).toBe(left);
      const othersLeft = ['/others', '/all?user=ann', '/everything'].includes(path) ? 'null' : 'ann';
      expect([await who(first), await who(second)]).toEqual([othersLeft, othersLeft]);
    },
  );

  test('R72: a user who signs out and keeps the visit gets its new key, even if a plugin throws', async () => {
    const ann = await signIn();
    const before = ann.jar.get('visit')!;
    failing.add('onIdentityUnlinked');
    expect((await ann.get('/logout?keepVisit=1')).status).toBe(500);
    const after = ann.jar.get('visit')!;
    expect([after.slice(0, 32), after === before, await who(ann)]).toEqual([before.slice(0, 32), false, 'null']);
    // It is the visit's own, or a renewal of it would be refused.
    expect((await ann.get('/login?user=ann')).status).toBe(200);
    expect(ann.jar.get('visit')!.slice(0, 32)).toBe(before.slice(0, 32));
  });

  test.each<[string, unknown, string]>([
    ['an error', new Error('nothing to write to'), 'nothing to write to'],
    ['a text', 'ann', 'a value of type string was thrown'],
    ['undefined', undefined, 'a value of type undefined was thrown'],
    ['null', null, 'a value of type object was thrown'],
  ])('R72: a plugin that throws %s is logged, and nothing else fails', async (_, throws, text) => {
    const lines = vi.spyOn(Logger.prototype, 'error').mockImplementation(() => {});
    onTestFinished(() => lines.mockRestore());
    careless.push({ throws });
    const browser = app.browser();
    expect((await browser.get('/login?user=ann')).status).toBe(200);
    expect(await who(browser)).toBe('ann');
    expect(lines.mock.calls.map(([line]) => String(line))).toEqual([`Careless.onNewVisit() failed: ${text}`]);
  });

  test.each(['onNewVisit', 'onIdentityLinked'])(
    'R72: a sign-in that %s refuses is reported completely, and undone completely',
    async (hook) => {
      const browser = app.browser();
      told.length = 0;
      failing.add(hook);
      const answer = await browser.get('/login?user=bob');
      expect([answer.status, answer.cookies.some((cookie) => !/max-age=0/i.test(cookie))]).toEqual([500, false]);
      expect(told).toEqual(['new', 'linked bob', 'ended failed']);
      expect(await who(browser)).toBe('null');
    },
  );

  test('R72: a refused sign-in as another user leaves no user signed in', async () => {
    const browser = await signIn();
    failing.add('onVisitEnded');
    expect((await browser.clone().get('/login?user=bob')).status).toBe(500);
    expect(told).toEqual(['new', 'linked bob', 'ended replaced', 'ended failed']);
    expect(await who(browser)).toBe('null');
  });

  test('R72: a request that onRecordRequest refuses has no effect', async () => {
    const browser = await signIn();
    failing.add('onRecordRequest');
    expect((await browser.get('/end')).status).toBe(500);
    expect(told).toEqual([]);
    expect(await who(browser)).toBe('ann');
  });

  test('B65: a user who cannot be loaded can still sign out', async () => {
    for (const path of ['/leave', '/leave?keepVisit=1', '/logout']) {
      const browser = await signIn('ann', withUsers);
      expect((await browser.get('/user')).text).toBe('user ann');
      broken.users = true;
      const looked = await browser.get('/user');
      expect([looked.status, looked.text.includes('no user ann')]).toEqual([404, true]);
      expect((await browser.get('/print')).status).toBe(200);
      const left = await browser.get(path);
      expect([left.status, left.text]).toEqual([200, path === '/logout' ? '' : 'user undefined']);
      expect((await browser.get('/user')).text).toBe('user undefined');
      expect((await browser.get('/login?user=ann')).status).toBe(404);
      broken.users = false;
    }
  });
});
