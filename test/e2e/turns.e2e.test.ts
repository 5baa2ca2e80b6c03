import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { VisitPlugin, VisitService, type VisitModuleOptions, type VisitPluginHooks } from 'nest-visit';
import { describeStacks, platforms, type RunningApp } from '../support/app.js';
import { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import type { TestDatabase } from '../support/databases.js';
import { ManualClock } from '../support/manual-clock.js';
import { isSoak } from '../support/soak.js';
import { isForToday, ofToday, TODAY } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';
import { endAllOf, listAll } from '../../lib/testing/many.js';

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error);

/** What became of a call: its value, or the code of its error. */
const outcomeOf = (call: Promise<unknown>): Promise<unknown> => call.then((value) => value ?? null, codeOf);

/** Whoever is called back while a turn runs. */
const callbacks: { hook?: ((name: string) => unknown) | undefined } = {};

@VisitPlugin({ onError: 'throw' })
class Listener implements VisitPluginHooks {
  onNewVisit = () => callbacks.hook?.('onNewVisit');
  onVisitEnded = () => callbacks.hook?.('onVisitEnded');
  onAllVisitsEnded = () => callbacks.hook?.('onAllVisitsEnded');
  onIdentityLinked = () => callbacks.hook?.('onIdentityLinked');
  onIdentityUnlinked = () => callbacks.hook?.('onIdentityUnlinked');
  onLimitReached = () => callbacks.hook?.('onLimitReached');
  onNewDevice = () => callbacks.hook?.('onNewDevice');
}

interface Shared extends Tools {
  /** A form token that an earlier request has got. */
  readonly token: string | undefined;
  /** Tells this scene's users from those of others. */
  readonly family: string;
}

/** Everything that a request can write, each once. */
const writes = {
  save: ({ session }) => session.save(),
  update: ({ session }) => session.update('count', (count: number | undefined) => (count ?? 0) + 1),
  take: ({ session }) => session.take('flash'),
  reload: ({ session }) => session.reload(),
  login: ({ identity, family }) => identity.login(`ann ${family}`),
  'login as somebody else': ({ identity, family }) => identity.login(`bob ${family}`),
  logout: ({ identity }) => identity.logout(),
  'logout, keeping the visit': ({ identity }) => identity.logout({ keepVisit: true }),
  reauthenticate: ({ identity }) => identity.reauthenticate(),
  renew: ({ visits }) => visits.renew(),
  end: ({ visits }) => visits.end(),
  endOthers: ({ visits }) => visits.endOthers(),
  'make a form token': ({ tokens }) => tokens.create(),
  'use a form token': ({ tokens, token }) => tokens.consume(token),
} satisfies Record<string, (tools: Shared) => Promise<unknown>>;
type Write = keyof typeof writes;
const names = Object.keys(writes) as Write[];

/** How a request finds its visitor. */
const states = ['new', 'stored', 'signed in'] as const;
type State = (typeof states)[number];

let families = 0;

/** Brings a visitor into that state, and gives what is to be looked after later. */
async function prepare(app: InlineApp, state: State) {
  const browser = app.browser();
  const family = String(families++);
  const user = `ann ${family}`;
  if (state === 'new') return { browser, token: undefined, family, elsewhere: undefined };
  const elsewhere = state === 'signed in' ? app.browser() : undefined;
  if (elsewhere) await app.ask(elsewhere, ({ identity }) => identity.login(user));
  const token = await app.ask(browser, async ({ session, identity, tokens }) => {
    if (state === 'signed in') await identity.login(user);
    session['count'] = 1;
    session.flash('flash', 'once');
    return tokens.create();
  });
  return { browser, token, family, elsewhere };
}

/** What a visitor sees. Users go by their first names. */
const seen = ({ session, identity }: Tools) => ({
  user: identity.userId?.split(' ')[0] ?? null,
  data: Object.fromEntries(session.entries()),
});
const look = (app: InlineApp, browser: Browser) => app.ask(browser, seen);

/** Makes the calls in one request, and tells all that can be told of it afterwards. */
async function scene(
  app: InlineApp,
  state: State,
  calls: readonly Write[],
  how: 'at once' | 'one after the other',
  beside: (go: () => void) => Promise<void> = async (go) => go(),
) {
  const { browser, token, family, elsewhere } = await prepare(app, state);
  const before = browser.clone();
  const idBefore = state === 'new' ? undefined : await app.ask(browser, ({ visits }) => visits.current().id);
  let made: string | undefined;
  const answer = await app.call(browser, async (tools) => {
    const { session, visits } = tools;
    session['note'] = 'plain';
    const all = { ...tools, token, family };
    await new Promise<void>((go) => void beside(go));
    const results: unknown[] = [];
    if (how === 'at once') results.push(...(await Promise.all(calls.map((name) => outcomeOf(writes[name](all))))));
    else for (const name of calls) results.push(await outcomeOf(writes[name](all)));
    results.forEach((result, index) => {
      if (calls[index] !== 'make a form token') return;
      made = result as string;
      results[index] = typeof result === 'string' && /^[\w-]{22}$/.test(result) ? 'a token' : result;
    });
    return {
      results,
      ...seen(tools),
      isNew: visits.current().isNew,
      isSame: visits.current().id === idBefore,
    };
  });
  const cookies = answer.cookies.map((cookie) => (/max-age=0/i.test(cookie) ? 'cleared' : 'a key'));
  const after = await look(app, browser);
  return {
    status: answer.status,
    handler: JSON.parse(answer.text) as { results: unknown[] },
    cookies,
    after,
    withOldKey: state === 'new' ? undefined : await look(app, before),
    elsewhere: elsewhere && (await look(app, elsewhere)),
    tokens: await app.ask(browser, async ({ tokens }) => [await tokens.consume(made), await tokens.consume(token)]),
    ended: idBefore && (await app.ask(app.browser(), async ({ visits }) => (await visits.find(idBefore))?.endReason)),
  };
}

/** Other visitors whose writes meet those of the scene in one moment: the store gets them in one group. */
function crowdOf(app: InlineApp, count = 2) {
  const answers: Promise<{ status: number; text: string }>[] = [];
  const beside = async (go: () => void): Promise<void> => {
    const visitors = await Promise.all(
      Array.from({ length: 2 * count }, async (_, index) => {
        const browser = app.browser();
        if (index % 2 === 0) await app.ask(browser, ({ session }) => void (session['count'] = 1));
        return browser;
      }),
    );
    let open!: () => void;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const arrived = visitors.map(
      (browser) =>
        new Promise<void>((arrive) => {
          const answer = app.call(browser, async ({ session }) => {
            arrive();
            await gate;
            session['count'] = 2;
            await session.save();
            return 'ok';
          });
          answers.push(answer);
        }),
    );
    await Promise.all(arrived);
    open();
    go();
  };
  return { beside, answers };
}

const MEDDLED = ['VISIT_ENDED', 'VISIT_KEY_RETIRED', 'VISIT_WRITE_CONFLICT', 'VISIT_STORE_UNAVAILABLE', 'VISIT_LOCKED'];

for (const platform of platforms) {
  describe(`Concurrent writes of one request, under ${platform}`, () => {
    let app: InlineApp;
    const watched = new WatchedStore();
    beforeAll(async () => {
      app = await InlineApp.start(platform, { store: watched.store, clock: new ManualClock() });
    });
    afterAll(() => app.close());

    /** The scene, and the calls of the store that its request made. */
    const traced = async (
      ...[state, calls, how, beside]: [
        State,
        readonly Write[],
        Parameters<typeof scene>[3],
        Parameters<typeof scene>[4]?,
      ]
    ) => {
      let from = 0;
      let to = 0;
      const sight = await scene(app, state, calls, how, async (go) => {
        if (beside) await beside(go);
        else {
          from = watched.calls.length;
          go();
        }
      });
      to = watched.calls.length;
      return { sight, trace: watched.calls.slice(from, to) };
    };

    describe.each(states)('on a visit that is %s', (state) => {
      const known = new Map<string, ReturnType<typeof traced>>();
      const oneAfterTheOther = (calls: readonly Write[]): ReturnType<typeof traced> => {
        const key = calls.join();
        if (!known.has(key)) known.set(key, traced(state, calls, 'one after the other'));
        return known.get(key)!;
      };

      // Turns know no platform: each pair on one of them. Within nine days it meets a visit in each state.
      const here = (first: Write, second: Write): boolean => {
        const [one, other] = [names.indexOf(first), names.indexOf(second)];
        const isOnThisPlatform = (one + other) % platforms.length === platforms.indexOf(platform);
        const pair = one + Math.floor(other / platforms.length) + states.indexOf(state);
        return isSoak || (isOnThisPlatform && isForToday(pair, 3 * states.length));
      };

      test.each(names)(
        'law 6: %s and each other one have the result of sequential calls in the same order',
        async (first) => {
          for (const second of names.filter((name) => here(first, name))) {
            const calls = [first, second];
            const expected = await oneAfterTheOther(calls);
            const { sight, trace } = await traced(state, calls, 'at once');
            expect(sight, `${first} and ${second}`).toEqual(expected.sight);
            expect(trace, `${first} and ${second}`).toEqual(expected.trace);
            expect(sight.status).toBe(200);
            for (const result of sight.handler.results) expect(MEDDLED, `${first} and ${second}`).not.toContain(result);
          }
        },
      );

      test.each(names)(
        'law 6: so do %s and each other one beside other visitors, who are not affected',
        async (first) => {
          for (const second of names.filter((name) => here(first, name))) {
            const calls = [first, second];
            const expected = await oneAfterTheOther(calls);
            const { beside, answers } = crowdOf(app);
            expect(await scene(app, state, calls, 'at once', beside), `${first} and ${second}`).toEqual(expected.sight);
            for (const { status, text } of await Promise.all(answers))
              expect({ status, text }).toEqual({ status: 200, text: 'ok' });
          }
        },
      );

      test('law 6: so do all of them at once, in many orders', async () => {
        const orders = isSoak ? 200 : 2;
        for (let turn = 0; turn < orders; turn++) {
          const calls = shuffled(names, TODAY * orders + turn);
          const expected = await traced(state, calls, 'one after the other');
          const { sight, trace } = await traced(state, calls, 'at once');
          expect(sight, calls.join(', ')).toEqual(expected.sight);
          expect(trace, calls.join(', ')).toEqual(expected.trace);
        }
      });
    });

    test('law 6: a call waits for earlier ones, whatever they wait for', async () => {
      const { browser } = await prepare(app, 'stored');
      const order: string[] = [];
      await app.ask(browser, async ({ session, identity, visits }) => {
        let go!: () => void;
        const gate = new Promise<void>((resolve) => (go = resolve));
        const noted = (name: string, call: Promise<unknown>) => call.then(() => void order.push(name));
        const all = [
          noted(
            'slow update',
            session.update('count', async (count: number) => (await gate, count + 1)),
          ),
          noted('login', identity.login('ann')),
          noted('renew', visits.renew()),
          noted(
            'update',
            session.update('count', (count: number) => count * 10),
          ),
        ];
        await new Promise((resolve) => setImmediate(resolve));
        expect(order).toEqual([]);
        expect(identity.userId).toBeNull();
        go();
        await Promise.all(all);
      });
      expect(order).toEqual(['slow update', 'login', 'renew', 'update']);
      expect(await look(app, browser)).toMatchObject({ user: 'ann', data: { count: 20 } });
    });

    test('law 6: a call that fails does not affect later ones', async () => {
      const { browser } = await prepare(app, 'stored');
      const results = await app.ask(browser, ({ session, identity }) =>
        Promise.all([
          outcomeOf(
            session.update('count', () => {
              throw Object.assign(new Error('no'), { code: 'NO' });
            }),
          ),
          outcomeOf(identity.reauthenticate()),
          outcomeOf(session.update('count', (count: number) => count + 1)),
          outcomeOf(identity.login('ann')),
        ]),
      );
      expect(results).toEqual(['NO', 'VISIT_IDENTITY_REQUIRED', 2, null]);
      expect(await look(app, browser)).toMatchObject({ user: 'ann', data: { count: 2 } });
    });
  });
}

/**
 * The databases share the pairs, and so do the platforms: what a pair comes to is shown above, here that it does so on
 * each of them.
 */
const SHARES: readonly TestDatabase['name'][] = ['sqlite', 'mariadb', 'postgres'];

describeStacks('Concurrent writes of one request', (stack) => {
  const parts = InlineApp.parts();
  const pairs = names.flatMap((first) => names.map((second) => [first, second] as const));

  test.each(['new', 'signed in'] as const)(
    'law 6: on a visit that is %s, in pairs, beside other visitors',
    async (state) => {
      const app = InlineApp.of(await stack.start(parts));
      for (const [index, pair] of pairs.entries()) {
        if (!isSoak && index % SHARES.length !== SHARES.indexOf(stack.database)) continue;
        const turn = Math.floor(index / SHARES.length) + (state === 'new' ? 0 : 1) + platforms.indexOf(stack.platform);
        if (!isForToday(turn, 5)) continue;
        const expected = await scene(app, state, pair, 'one after the other');
        const { beside, answers } = crowdOf(app, 1);
        expect(await scene(app, state, pair, 'at once', beside), pair.join(' and ')).toEqual(expected);
        for (const { status, text } of await Promise.all(answers))
          expect({ status, text }).toEqual({ status: 200, text: 'ok' });
      }
    },
  );
});

/** What callbacks of one write must not call of the same request. */
const nested: Record<string, (tools: Shared) => Promise<unknown>> = {
  ...writes,
  'end another visit': ({ visits }) => visits.end('0'.repeat(32)),
  endAllForUser: ({ visits, family }) => visits.endAllForUser(`ann ${family}`),
  endAll: ({ visits }) => visits.endAll(),
  'make a field with a form token': ({ tokens }) => tokens.hiddenField(),
  'save by the request': ({ request }) => (request.session as Tools['session']).save(),
  // A token that cannot be one costs no turn.
  'use a form token': ({ tokens }) => tokens.consume('A'.repeat(22)),
};

/** Writes during which something of the application is called back. */
interface Outer {
  /** How the visitor is found; as `signed in`, there is another visit of the same user. */
  readonly state: State;
  /** What it is called in errors. */
  readonly act: string;
  /** Which hook of a plugin, or the option `loadUser`; left out where the callback is an argument. */
  readonly hook?: string;
  readonly call: (tools: Shared, inside: () => unknown) => Promise<unknown>;
}

const outers: Record<string, Outer> = {
  'update()': {
    state: 'stored',
    act: 'session.update()',
    call: ({ session }, inside) => session.update('count', async (count: number) => (await inside(), count + 1)),
  },
  'update() on a new visit': {
    state: 'new',
    act: 'session.update()',
    call: ({ session }, inside) => session.update('count', async () => (await inside(), 1)),
  },
  'onNewVisit of save()': {
    state: 'new',
    act: 'session.save()',
    hook: 'onNewVisit',
    call: ({ session }) => ((session['a'] = 1), session.save()),
  },
  'onNewVisit of update()': {
    state: 'new',
    act: 'session.update()',
    hook: 'onNewVisit',
    call: (tools) => writes.update(tools),
  },
  'onNewVisit of a form token': {
    state: 'new',
    act: 'the making of a form token',
    hook: 'onNewVisit',
    call: ({ tokens }) => tokens.create(),
  },
  'onNewVisit of login()': {
    state: 'new',
    act: 'identity.login()',
    hook: 'onNewVisit',
    call: (tools) => writes.login(tools),
  },
  'onIdentityLinked of login()': {
    state: 'stored',
    act: 'identity.login()',
    hook: 'onIdentityLinked',
    call: (tools) => writes.login(tools),
  },
  'onIdentityLinked of a first login()': {
    state: 'new',
    act: 'identity.login()',
    hook: 'onIdentityLinked',
    call: (tools) => writes.login(tools),
  },
  'onNewDevice of login()': {
    state: 'stored',
    act: 'identity.login()',
    hook: 'onNewDevice',
    call: (tools) => writes.login(tools),
  },
  'loadUser of login()': {
    state: 'stored',
    act: 'identity.login()',
    hook: 'loadUser',
    call: (tools) => writes.login(tools),
  },
  'onVisitEnded of login() as somebody else': {
    state: 'signed in',
    act: 'identity.login()',
    hook: 'onVisitEnded',
    call: (tools) => writes['login as somebody else'](tools),
  },
  'onVisitEnded of logout()': {
    state: 'signed in',
    act: 'identity.logout()',
    hook: 'onVisitEnded',
    call: (tools) => writes.logout(tools),
  },
  'onIdentityUnlinked of logout()': {
    state: 'signed in',
    act: 'identity.logout()',
    hook: 'onIdentityUnlinked',
    call: (tools) => writes['logout, keeping the visit'](tools),
  },
  'onVisitEnded of end()': {
    state: 'stored',
    act: 'visits.end()',
    hook: 'onVisitEnded',
    call: (tools) => writes.end(tools),
  },
  'onVisitEnded of endOthers()': {
    state: 'signed in',
    act: 'visits.endOthers()',
    hook: 'onVisitEnded',
    call: (tools) => writes.endOthers(tools),
  },
  'onVisitEnded of endAllForUser()': {
    state: 'signed in',
    act: 'visits.endAllForUser()',
    hook: 'onVisitEnded',
    call: (tools) => nested['endAllForUser']!(tools),
  },
  'onAllVisitsEnded of endAll()': {
    state: 'stored',
    act: 'visits.endAll()',
    hook: 'onAllVisitsEnded',
    // How many there are depends on what other tests have left.
    call: async (tools) => Number(await nested['endAll']!(tools)) > 0,
  },
};

/** An application in which all that can be called back is. */
function startListening(platform: (typeof platforms)[number], options: VisitModuleOptions): Promise<InlineApp> {
  return InlineApp.start(
    platform,
    {
      ...options,
      identity: {
        requestUser: true,
        loadUser: (id) => Promise.resolve(callbacks.hook?.('loadUser')).then(() => ({ id })),
        ...options.identity,
      },
    },
    { providers: [Listener] },
  );
}

// Neither a write within another one nor a sign-in knows its platform.
for (const platform of ofToday(platforms, 1)) {
  describe(`A write that is called within another one of its request, under ${platform}`, () => {
    let app: InlineApp;
    const watched = new WatchedStore();
    const clock = new ManualClock();
    beforeAll(async () => {
      app = await startListening(platform, { store: watched.store, clock });
    });
    afterAll(() => app.close());
    // After endAll() nobody can sign in at the same instant.
    beforeEach(() => clock.advance(1000));
    afterEach(() => {
      callbacks.hook = undefined;
    });

    /** Makes the outer call with something inside, in the first callback. */
    const run = async ({ state, hook, call }: Outer, inside: (tools: Shared) => unknown) => {
      const { browser, token, family } = await prepare(app, state);
      let from = 0;
      const answer = await app.call(browser, async (tools) => {
        const all = { ...tools, token, family };
        let isFirst = true;
        const inFirst = (): unknown => {
          if (!isFirst) return undefined;
          isFirst = false;
          return inside(all);
        };
        if (hook !== undefined) callbacks.hook = (name) => (name === hook ? inFirst() : undefined);
        from = watched.calls.length;
        const result = await outcomeOf(call(all, inFirst));
        expect(isFirst, 'nothing was called back').toBe(false);
        return { result: /^[\w-]{22}$/.test(String(result)) ? 'a token' : result, ...seen(tools) };
      });
      callbacks.hook = undefined;
      const trace = watched.calls.slice(from);
      return { answer: { status: answer.status, text: answer.text }, trace, after: await look(app, browser) };
    };

    describe.each(Object.entries(outers))('in %s', (_, outer) => {
      test('law 6: is refused immediately, and does not affect the outer one', async () => {
        const expected = await run(outer, () => undefined);
        expect(expected.answer.status).toBe(200);
        const results: Record<string, unknown> = {};
        const messages: string[] = [];
        const actual = await run(outer, async (tools) => {
          for (const [name, call] of Object.entries(nested)) {
            await call(tools).then(
              () => (results[name] = 'done'),
              (error: Error) => {
                results[name] = codeOf(error);
                messages.push(error.message);
              },
            );
          }
        });
        expect(results).toEqual(Object.fromEntries(Object.keys(nested).map((name) => [name, 'VISIT_NESTED_CALL'])));
        for (const message of messages) expect(message).toContain(`inside a callback of ${outer.act}`);
        expect(actual).toEqual(expected);
      });

      test('law 6: fails the outer one with a helpful message, if the callback does not catch it', async () => {
        const { answer } = await run(outer, ({ session }) => session.save());
        expect(JSON.parse(answer.text)).toMatchObject({ result: 'VISIT_NESTED_CALL' });
      });

      test('law 6: fails the request if it is not awaited', async () => {
        const { answer } = await run(outer, ({ session }) => void session.save());
        expect(answer).toEqual({ status: 500, text: '{"statusCode":500,"message":"Internal server error"}' });
      });
    });

    test('law 6: is refused in a synchronous callback of update()', async () => {
      const { browser } = await prepare(app, 'stored');
      const results = await app.ask(browser, async ({ session, identity }) => {
        const inner: Promise<unknown>[] = [];
        await session.update('count', () => {
          inner.push(
            outcomeOf(session.save()),
            outcomeOf(identity.login('ann')),
            outcomeOf(session.update('a', () => 1)),
          );
          return 5;
        });
        return [...(await Promise.all(inner)), session['count']];
      });
      expect(results).toEqual(['VISIT_NESTED_CALL', 'VISIT_NESTED_CALL', 'VISIT_NESTED_CALL', 5]);
    });

    test('law 6: is refused in the hook of a visit that begins by itself', async () => {
      const eager = await startListening(platform, { store: new WatchedStore().store, creation: 'immediate' });
      try {
        let inner: Promise<unknown> | undefined;
        const parts: { session?: Tools['session'] } = {};
        await eager.ask(eager.browser(), ({ session }) => void (parts.session = session));
        callbacks.hook = (name) => (name === 'onNewVisit' ? (inner = outcomeOf(parts.session!.save())) : undefined);
        const answer = await eager.call(eager.browser(), () => 'ok');
        expect(answer).toMatchObject({ status: 200, text: 'ok' });
        expect(await inner).toBe('VISIT_NESTED_CALL');
      } finally {
        await eager.close();
      }
    });

    test('law 6: has its turn if it is called after the end of the outer one', async () => {
      const { browser } = await prepare(app, 'stored');
      await app.ask(browser, async ({ session }) => {
        let go!: () => void;
        const gate = new Promise<void>((resolve) => (go = resolve));
        let later: Promise<unknown> | undefined;
        await session.update('count', () => {
          later ??= gate.then(() => session.update('count', (count: number) => count * 10));
          return 2;
        });
        go();
        expect(await later).toBe(20);
      });
      expect(await look(app, browser)).toMatchObject({ data: { count: 20 } });
    });

    test('law 6: other requests can write in the meantime, and the callback runs again on their data', async () => {
      const { browser } = await prepare(app, 'stored');
      const increment = ({ session }: Tools): Promise<unknown> => session.update('count', (count: number) => count + 1);
      let asked = 0;
      const result = await app.ask(browser, ({ session }) =>
        session.update('count', async (count: number) => {
          if (asked++ === 0)
            await Promise.all([
              app.ask(browser.clone(), increment),
              app.ask(app.browser(), ({ identity }) => identity.login('ann')),
            ]);
          return count * 10;
        }),
      );
      expect([result, asked]).toEqual([20, 2]);
      expect(await look(app, browser)).toMatchObject({ data: { count: 20 } });
    });
  });

  describe(`A sign-in that fails, under ${platform}`, () => {
    const watched = new WatchedStore();
    const clock = new ManualClock();
    const apps = {} as Record<'end-oldest' | 'refuse', InlineApp>;
    beforeAll(async () => {
      for (const onLimit of ['end-oldest', 'refuse'] as const)
        apps[onLimit] = await startListening(platform, {
          store: watched.store,
          clock,
          identity: { maxVisitsPerUser: 2, onLimit },
        });
    });
    afterAll(() => Promise.all(Object.values(apps).map((app) => app.close())));
    beforeEach(() => clock.advance(1000));
    afterEach(() => {
      callbacks.hook = undefined;
      watched.pass();
    });

    const visitors = ['new', 'stored', 'somebody else', 'the same user'] as const;
    const endings = ['thrown', 'caught', 'tried again'] as const;

    /** Signs ann in while something is `armed`, and sees to it that all of it has happened, or nothing. */
    const attempt = async (
      app: InlineApp,
      visitor: (typeof visitors)[number],
      ending: (typeof endings)[number],
      { crowd = 0, arm, disarm }: { crowd?: number; arm: (user: string) => void; disarm: () => void },
    ) => {
      const family = String(families++);
      const user = `ann ${family}`;
      const service = app.running.app.get(VisitService);
      for (let index = 0; index < crowd; index++) await service.create({ userId: user });
      clock.advance(1);
      const browser = app.browser();
      if (visitor === 'stored') await app.ask(browser, ({ session }) => void (session['count'] = 1));
      if (visitor === 'somebody else') await app.ask(browser, ({ identity }) => identity.login(`bob ${family}`));
      if (visitor === 'the same user') await app.ask(browser, ({ identity }) => identity.login(user));
      const before = browser.clone();
      const known = new Set((await listAll(watched.inner, user, clock.now())).map(({ id }) => id));
      clock.advance(1000);
      let here: { result: unknown; user: string | null; shown: string | null } | undefined;
      const answer = await app.call(browser, async ({ identity, request }) => {
        arm(user);
        const error: unknown = await identity.login(user).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        here = {
          result: error === undefined ? 'done' : codeOf(error),
          user: identity.userId,
          shown: request.user?.id ?? null,
        };
        if (ending === 'thrown' && error !== undefined) throw error;
        if (ending === 'tried again' && error !== undefined) {
          disarm();
          await identity.login(user);
        }
        return 'ok';
      });
      disarm();
      const isRetried = ending === 'tried again';
      const after = await app.ask(browser, ({ identity }) => identity.userId);
      const withOldKey = await app.ask(before, ({ identity }) => identity.userId);
      const label = JSON.stringify({
        visitor,
        ending,
        here,
        status: answer.status,
        text: answer.text,
        after,
        withOldKey,
        cookies: answer.cookies,
      });
      const others = visitor === 'the same user' ? [user] : visitor === 'somebody else' ? [`bob ${family}`] : [];
      // Whoever was signed in before may still be: by then nothing had been changed.
      const nobody = [null, ...others];
      if (here!.result === 'done') {
        expect([here!.user, here!.shown, after, answer.status], label).toEqual([user, user, user, 200]);
      } else {
        expect(nobody, label).toContain(here!.user);
        expect(here!.shown, label).toBe(here!.user);
        if (isRetried) {
          expect([after, answer.status], label).toEqual([user, 200]);
        } else {
          expect(nobody, label).toContain(after);
          expect(nobody, label).toContain(withOldKey);
          for (const cookie of answer.cookies) {
            const [, sent] = /^(visit=[^;]*)/.exec(cookie)!;
            expect(
              await app.ask(app.browser(), ({ identity }) => identity.userId, { cookie: sent! }),
              label,
            ).toBeNull();
          }
        }
      }
      const left = (await listAll(watched.inner, user, clock.now())).filter(({ id }) => !known.has(id));
      return { ...here!, answer, label, left: left.length, after };
    };

    test.each(['logout', 'logout, keeping the visit', 'end', 'login as somebody else'] as const)(
      'law 7: after %s nobody is signed in, even if a plugin throws',
      async (name) => {
        const app = apps['end-oldest'];
        const { browser, token, family } = await prepare(app, 'signed in');
        clock.advance(1000);
        const here = await app.ask(browser, async (tools) => {
          callbacks.hook = (hook) => {
            if (hook === 'onVisitEnded' || hook === 'onIdentityUnlinked')
              throw Object.assign(new Error('no'), { code: 'NO' });
          };
          const shown = [tools.request.user.id];
          const result = await outcomeOf(writes[name]({ ...tools, token, family }));
          callbacks.hook = undefined;
          return [...shown, result, tools.identity.userId, tools.request.user ?? null];
        });
        expect(here).toEqual([`ann ${family}`, 'NO', null, null]);
        expect(await look(app, browser)).toMatchObject({ user: null });
      },
    );

    describe.each(visitors)('of a visitor who is %s', (visitor) => {
      test.each(endings)('law 7: because the store fails at any of its calls, has no effect: %s', async (ending) => {
        const limits = [
          ['end-oldest', 0],
          ['end-oldest', 2],
          ['refuse', 0],
        ] as const;
        const kinds = ['once', 'from then on', 'once, after it was done'] as const;
        let turn = visitors.indexOf(visitor) + endings.indexOf(ending);
        for (const [onLimit, crowd] of limits) {
          for (const kind of kinds) {
            if (!isForToday(turn++, kinds.length)) continue;
            const results: string[] = [];
            for (let at = 0; results.length === at; at++) {
              let calls = 0;
              const { result, label, left } = await attempt(apps[onLimit], visitor, ending, {
                crowd: visitor === 'the same user' ? Math.max(0, crowd - 1) : crowd,
                arm: () => {
                  watched.around = async (_, go) => {
                    const call = calls++;
                    if (kind === 'from then on' ? call < at : call !== at) return go();
                    if (kind === 'once, after it was done') await go();
                    throw new Error('the store is away');
                  };
                },
                disarm: () => watched.pass(),
              });
              if (calls > at) results.push(String(result));
              // A visit whose key nobody has may stay where the store could not be asked to end it, or has not said
              // what it did.
              if (result !== 'done' && kind === 'once')
                expect(left, label).toBeLessThanOrEqual(ending === 'tried again' ? 1 : 0);
            }
            expect(results.length, `${onLimit} ${crowd} ${kind}`).toBeGreaterThan(2);
            // What fails once is looked up, and done after all where that can be known; where nothing answers any
            // more, it fails.
            expect(results.filter((result) => result !== 'done').length).toBeGreaterThan(
              kind === 'from then on' ? 2 : 0,
            );
            for (const result of results) expect(['done', 'VISIT_STORE_UNAVAILABLE']).toContain(result);
          }
        }
      });

      test.each(endings)('law 7: because all visits of the user were ended, has no effect: %s', async (ending) => {
        const { result, answer } = await attempt(apps['end-oldest'], visitor, ending, {
          arm: (user) => {
            watched.around = async ({ method }, go) => {
              if (method !== 'revokedAt') return go();
              watched.pass();
              await endAllOf(watched.inner, user, { reason: 'disabled', at: clock.now() });
              return go();
            };
          },
          // Later, so that whoever tries again may sign in.
          disarm: () => (watched.pass(), clock.advance(1)),
        }).catch((error: Error) =>
          ending === 'tried again' ? { result: 'VISIT_ENDED', answer: { status: 409 } } : Promise.reject(error),
        );
        expect(result).toBe('VISIT_ENDED');
        if (ending === 'thrown') expect(answer.status).toBe(409);
      });

      test.each(['thrown', 'caught'] as const)(
        'law 7: because concurrent sign-ins have reached the limit, has no effect: %s',
        async (ending) => {
          const app = apps.refuse;
          const { result, answer, left } = await attempt(app, visitor, ending, {
            arm: (user) => {
              watched.around = async ({ method }, go) => {
                if (!['rekey', 'create'].includes(method)) return go();
                watched.pass();
                clock.advance(-1);
                for (let index = 0; index < (visitor === 'the same user' ? 1 : 2); index++)
                  await app.running.app.get(VisitService).create({ userId: user });
                clock.advance(1);
                return go();
              };
            },
            disarm: () => watched.pass(),
          });
          if (visitor === 'the same user') return expect(result).toBe('done');
          expect([result, left]).toEqual(['VISIT_LIMIT', 2]);
          if (ending === 'thrown') expect(answer.status).toBe(409);
        },
      );

      test.each(endings)('law 7: because application code throws, has no effect: %s', async (ending) => {
        const results: Record<string, unknown> = {};
        const hooks = ['onNewVisit', 'onIdentityLinked', 'onNewDevice', 'onLimitReached', 'onVisitEnded', 'loadUser'];
        for (const [index, hook] of hooks.entries()) {
          for (const [turn, often] of (['once', 'always'] as const).entries()) {
            // Each of them on one platform.
            const sum = index + turn + endings.indexOf(ending);
            if (!isSoak && sum % platforms.length !== platforms.indexOf(platform)) continue;
            let calls = 0;
            const { result, label, left, user, after } = await attempt(apps['end-oldest'], visitor, ending, {
              crowd: hook !== 'onLimitReached' ? 0 : visitor === 'the same user' ? 1 : 2,
              arm: () => {
                callbacks.hook = (name) => {
                  if (name !== hook || (often === 'once' && calls > 0) || !isInRequest(apps['end-oldest'])) return;
                  calls++;
                  throw Object.assign(new Error('no'), { code: 'NO' });
                };
              },
              disarm: () => (callbacks.hook = undefined),
            });
            results[hook] = result;
            expect(result, label).toBe(calls > 0 ? 'NO' : 'done');
            if (calls > 0 && ending !== 'tried again') expect([left, user], label).toEqual([0, after]);
          }
        }
        expect(Object.values(results).filter((result) => result === 'NO').length).toBeGreaterThan(
          visitor === 'the same user' ? 0 : 2,
        );
      });
    });
  });
}

/**
 * What earlier tests have left to be done when the store is back is done by a timer, in no request; plugins hear of
 * that, too.
 */
function isInRequest({ running }: { readonly running: RunningApp }): boolean {
  try {
    running.app.get(VisitService).current();
    return true;
  } catch {
    return false;
  }
}

// To start the process takes longer than most of its tests.
const todays = ofToday(platforms, 0);

describe.each(todays)('Failing writes that are not awaited, in a separate process, under %s', (platform) => {
  const fixture = fileURLToPath(new URL('../support/fixtures/unawaited.mjs', import.meta.url));
  let child: ChildProcess;
  let address: string;
  const errors: string[] = [];
  beforeAll(async () => {
    child = spawn(process.execPath, [fixture, platform], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1' },
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => errors.push(text));
    address = await new Promise((resolve, reject) => {
      createInterface({ input: child.stdout! }).once('line', resolve);
      child.once('close', (code) => reject(new Error(`the application ended with ${code}: ${errors.join('')}`)));
    });
  });
  afterAll(async () => {
    if (child.exitCode !== null) return;
    const closed = once(child, 'close');
    child.stdin!.end();
    await closed;
  });

  /** Begins a visit, makes the request, and gives its answer; the process has to answer afterwards. */
  const ask = async (path: string) => {
    const browser = new Browser(address);
    await browser.get('/begin');
    const answer = await browser.get(path);
    await new Browser(address).get('/back');
    const { status, text } = await browser.get('/read');
    expect([status, child.exitCode, errors.join('')]).toEqual([200, null, '']);
    return { answer, after: JSON.parse(text) as { user: string | null; data: Record<string, unknown> } };
  };

  const ways = [
    'ending/:/returned',
    'ending/:/thrown',
    'sending/:/sent',
    'sending/:/ended',
    'sending/:/redirected',
    'sending/:/written',
  ];
  const body = (status: number, message: string, code?: string) => ({
    statusCode: status,
    message,
    ...(code ? { code } : {}),
  });
  const away = body(503, 'The session store is unavailable', 'VISIT_STORE_UNAVAILABLE');
  const ended = body(409, 'This visit has ended', 'VISIT_ENDED');
  const internal = body(500, 'Internal server error');
  const cases: [write: string, how: string, answer: object][] = [
    ...['save', 'update', 'take', 'login', 'logout', 'end', 'create'].map((write): [string, string, object] => [
      write,
      'away',
      away,
    ]),
    ...['save', 'update', 'take', 'create'].map((write): [string, string, object] => [write, 'ended', ended]),
    ['save-function', 'here', internal],
    ['nested', 'here', internal],
  ];

  describe.each(ways)('%s', (way) => {
    test.each(cases)('law 7: %s, store or visit %s, fails its request', async (write, how, expected) => {
      const { answer, after } = await ask(`/${way.replace(':', `${write}/${how}`)}`);
      expect(JSON.parse(answer.text)).toEqual(expected);
      expect(answer.status).toBe((expected as { statusCode: number }).statusCode);
      expect(answer.text + JSON.stringify([...answer.headers])).not.toContain('meant');
      expect(after.user).toBeNull();
      if (how === 'away') expect(after.data).toEqual({ count: 1, notice: 'once' });
    });
  });

  test.each(['save', 'update', 'take', 'login', 'logout', 'end', 'create'])(
    'law 7: %s of a request whose response has been sent does not end the process',
    async (write) => {
      const { answer, after } = await ask(`/after/${write}`);
      expect([answer.status, answer.text]).toEqual([200, 'meant']);
      expect(after).toEqual({ user: null, data: {} });
    },
  );
});

/** Another order of the list for each number, the same on every machine. */
function shuffled<T>(list: readonly T[], seed: number): T[] {
  let state = (seed * 2_654_435_761 + 1) % 2_147_483_648;
  const random = (): number => ((state = (state * 1_103_515_245 + 12_345) % 2_147_483_648), state / 2_147_483_648);
  return list
    .map((value) => ({ value, at: random() }))
    .toSorted((one, other) => one.at - other.at)
    .map(({ value }) => value);
}
