import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { ofToday } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';

type List = unknown[];

/** How a callback changes what it gets: each adds one to a count when it is called once. */
const changes: Record<string, { start: () => unknown; add: (value: any) => unknown; count: (value: any) => number }> = {
  'an array': { start: () => [0], add: (list: List) => (list.push(1), list), count: (list: List) => list.length - 1 },
  'a nested object': {
    start: () => ({ of: { n: 0 } }),
    add: (value) => (value.of.n++, value),
    count: (value) => value.of.n,
  },
  'a map': {
    start: () => new Map([['n', 0]]),
    add: (map) => map.set('n', map.get('n') + 1),
    count: (map) => map.get('n'),
  },
  'a date': { start: () => new Date(0), add: (date: Date) => (date.setTime(date.getTime() + 1), date), count: Number },
  'a buffer': {
    start: () => Buffer.alloc(1),
    add: (bytes: Buffer) => (bytes[0]!++, bytes),
    count: (bytes) => bytes[0],
  },
};

interface Before {
  /** What is stored; what the request sets to the same value again is no change of its own. */
  readonly stored: 'the value' | 'another one';
  /** What the request has done to the value before it calls `update()`. */
  readonly act: (tools: Tools, start: () => unknown) => void;
}

const before: Record<string, Before> = {
  nothing: { stored: 'the value', act: () => {} },
  'set it': { stored: 'another one', act: ({ session }, start) => void session.set('value', start()) },
  'set it to the same value': { stored: 'the value', act: ({ session }, start) => void session.set('value', start()) },
  'read it': { stored: 'the value', act: ({ session }) => void session.get('value') },
  'cleared the session': {
    stored: 'another one',
    act: ({ session }, start) => {
      session.clear();
      session.set('value', start());
    },
  },
};

const todays = ofToday(platforms, 1);

describe.each(todays)('B59: update() whose callback changes its value in place, under %s', (platform) => {
  const watched = new WatchedStore();
  let app: InlineApp;
  let other: InlineApp;

  beforeAll(async () => {
    [app, other] = [
      await InlineApp.start(platform, { store: watched.store }),
      await InlineApp.start(platform, { store: watched.inner }),
    ];
  });
  afterAll(() => Promise.all([app.close(), other.close()]));

  const begun = async (start: () => unknown) => {
    const browser = app.browser();
    await app.call(browser, ({ session }) => void session.set('value', start()));
    return browser;
  };

  /** Before the first save of the next request, another process saves; so it has to be tried again. */
  const interrupt = (save: () => Promise<unknown>): void => {
    watched.around = async ({ method }, go) => {
      if (method !== 'save') return go();
      watched.pass();
      await save();
      return go();
    };
  };

  describe.each(Object.keys(changes))('%s', (what) => {
    const { start, add, count } = changes[what]!;

    test.each(Object.keys(before).flatMap((done) => ['at once', 'later'].map((when) => [done, when] as const)))(
      'counts once, though it is called twice: after the request has done %s, by a callback that returns %s',
      async (done, when) => {
        const { stored, act } = before[done]!;
        const browser = await begun(stored === 'the value' ? start : () => 'another one');
        const meanwhile = other.browser();
        meanwhile.jar.set('visit', browser.jar.get('visit')!);
        interrupt(() => other.call(meanwhile, ({ session }) => void session.set('other', 1)));
        let calls = 0;
        const given = await app.ask(browser, async (tools) => {
          act(tools, start);
          const updated = await tools.session.update('value', (value: unknown) => {
            calls++;
            return when === 'later' ? Promise.resolve().then(() => add(value)) : add(value);
          });
          return [updated, tools.session.get('value')];
        });
        expect(calls).toBe(2);
        expect(given.map(count)).toEqual([1, 1]);
        expect(count(await app.ask(browser, ({ session }) => session.get('value')))).toBe(1);
      },
    );

    test('counts nothing if it throws afterwards', async () => {
      const browser = await begun(() => 'another one');
      await app.ask(browser, async ({ session }) => {
        session.set('value', start());
        session.set('own', 1);
        await session
          .update('value', (value: unknown) => {
            add(value);
            throw new Error('changed its mind');
          })
          .catch(() => undefined);
      });
      const stored = await app.ask(browser, ({ session }) => [session.get('value'), session.get('own')]);
      expect([count(stored[0]), stored[1]]).toEqual([0, 1]);
    });
  });

  test.each(['at once', 'later'])(
    'many concurrent updates in one process lose and repeat nothing: %s',
    async (when) => {
      const browser = await begun(() => []);
      await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          app.ask(browser.clone(), ({ session }) => {
            session.set(`own ${n}`, n);
            const add = (list: number[]): number[] => (list.push(n), list);
            return session.update('value', (list: number[]) =>
              when === 'later' ? Promise.resolve().then(() => add(list)) : add(list),
            );
          }),
        ),
      );
      const list = (await app.ask(browser, ({ session }) => session.get('value'))) as number[];
      expect(list.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, n) => n));
    },
  );
});
