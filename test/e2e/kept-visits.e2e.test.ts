import { VisitPlugin, type IdentityChange, type VisitPluginHooks } from 'nest-visit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { isForToday } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';
import { endAllOf, listAll } from '../../lib/testing/many.js';

// Whatever becomes of a sign-in or sign-out while the store fails, nobody loses the visit that they came with.

/** The visits that belong to their user no more. */
const unlinked: string[] = [];

/** Somebody listens, so that the store is asked for devices, too. */
@VisitPlugin()
class Listener implements VisitPluginHooks {
  onNewDevice = () => undefined;
  onIdentityUnlinked = ({ visitId }: IdentityChange) => void unlinked.push(visitId);
}

interface Act {
  /** Who is signed in before. */
  readonly before: 'nobody' | 'ann' | 'bob';
  readonly make: (tools: Tools) => Promise<void>;
  /** What the visitor is after it. `session`: what it has of the one before. */
  readonly after: { readonly user: 'ann' | null; readonly session: 'kept' | 'empty' };
  /** It ends a visit, or rights: what cannot be known to have happened may have. */
  readonly ends?: boolean;
  /** The visit is remembered before it. */
  readonly permanent?: boolean;
  /** Passport has signed them in. */
  readonly byPassport?: boolean;
}

const acts: Record<string, Act> = {
  'a sign-in': {
    before: 'nobody',
    make: ({ identity }) => identity.login('ann'),
    after: { user: 'ann', session: 'kept' },
  },
  'another sign-in of the same user': {
    before: 'ann',
    make: ({ identity }) => identity.login('ann'),
    after: { user: 'ann', session: 'kept' },
  },
  'a sign-in as another user': {
    before: 'bob',
    make: ({ identity }) => identity.login('ann'),
    after: { user: 'ann', session: 'empty' },
    ends: true,
  },
  'a re-authentication': {
    before: 'ann',
    make: ({ identity }) => identity.reauthenticate(),
    after: { user: 'ann', session: 'kept' },
  },
  'a sign-out': {
    before: 'ann',
    make: ({ identity }) => identity.logout(),
    after: { user: null, session: 'empty' },
    ends: true,
  },
  'a sign-out that keeps the visit': {
    before: 'ann',
    make: ({ identity }) => identity.logout({ keepVisit: true }),
    after: { user: null, session: 'kept' },
    ends: true,
  },
  // All that Passport does before it asks for another session.
  'a sign-out by Passport': {
    before: 'ann',
    byPassport: true,
    make: async ({ session }) => {
      session['passport'] = {};
      await session.save();
    },
    after: { user: null, session: 'kept' },
    ends: true,
  },
  'a renewal': { before: 'ann', make: ({ visits }) => visits.renew(), after: { user: 'ann', session: 'kept' } },
  'a shorter lifetime': {
    before: 'ann',
    permanent: true,
    make: async ({ request, session }) => {
      request.session.cookie.maxAge = null;
      await session.save();
    },
    after: { user: 'ann', session: 'kept' },
  },
};

const look = ({ identity, session, visits }: Tools) => ({
  user: identity.userId,
  cart: session['cart'] as string[] | undefined,
  id: visits.current().id,
});

describe.each(platforms)('A visitor’s visit while the store fails, under %s', (platform) => {
  const watched = new WatchedStore();
  const clock = new ManualClock();
  let app: InlineApp;
  beforeAll(async () => {
    const options = { store: watched.store, clock, identity: { maxVisitsPerUser: 2, onLimit: 'end-oldest' } } as const;
    app = await InlineApp.start(platform, options, { providers: [Listener] });
  });
  afterAll(() => app.close());
  beforeEach(() => clock.advance(1000));
  afterEach(() => watched.pass());

  /** A visitor with a cart, and another visit of each user elsewhere. */
  async function prepare({ before, permanent = false, byPassport = false }: Act): Promise<Browser> {
    await endAllOf(watched.inner, 'ann', { reason: 'test', at: clock.now() });
    clock.advance(1000);
    for (const user of ['ann', 'bob']) await app.ask(app.browser(), ({ identity }) => identity.login(user));
    clock.advance(1000);
    const browser = app.browser();
    await app.ask(browser, async ({ session, identity }) => {
      if (before !== 'nobody') await identity.login(before, { permanent });
      session['cart'] = ['a book'];
      if (byPassport) session['passport'] = { user: before };
    });
    clock.advance(1000);
    return browser;
  }

  const live = async (): Promise<string[]> =>
    (await Promise.all(['ann', 'bob'].map((user) => listAll(watched.inner, user, clock.now()))))
      .flat()
      .map(({ id }) => id)
      .toSorted();

  /** Makes calls fail from the one at `place` on. How many were made. */
  function fail(place: number, often: number, moment: 'before' | 'after'): () => number {
    let calls = 0;
    watched.around = async (_, go) => {
      const call = calls++;
      if (call < place || call >= place + often) return go();
      if (moment === 'after') await go();
      throw new Error('the store is away');
    };
    return () => {
      watched.pass();
      return calls;
    };
  }

  describe.each(Object.entries(acts))('after %s', (_, act) => {
    const moments = ['before', 'after'] as const;
    const failures = { 'one call fails': 1, 'two calls fail': 2, 'all calls fail from then on': Infinity };
    const shift = Object.values(acts).indexOf(act) + platforms.indexOf(platform);
    const cases = moments
      .flatMap((moment) => Object.entries(failures).map(([name, often]) => [name, moment, often] as const))
      // What the store answers knows no platform: each on one of them a day.
      .filter((_case, index) => isForToday(index + shift, platforms.length));

    test.each(cases)(
      'B81: if %s, %s execution: all of it is done, or nothing is after the store has recovered',
      async (_name, moment, often) => {
        const outcomes: string[] = [];
        for (let place = 0; ; place++) {
          const browser = await prepare(act);
          const before = await app.ask(browser, look);
          const listed = await live();
          let stop!: () => number;
          let here: unknown;
          const { status, cookies, headers } = await app.call(browser, async (tools) => {
            tools.session['note'] = 'unsaved';
            stop = fail(place, often, moment);
            try {
              await act.make(tools);
            } finally {
              here = { ...look(tools), note: tools.session['note'] };
              if (stop() <= place) outcomes.push('end');
            }
            return 'ok';
          });
          if (outcomes.at(-1) === 'end') break;
          const after = await app.ask(browser, look);
          const label = JSON.stringify({ place, status, cookies, before, here, after });
          if (status === 200) {
            outcomes.push('done');
            const { user, session } = act.after;
            expect([after.user, after.cart, after.id === before.id], label).toEqual([
              user,
              session === 'kept' ? before.cart : undefined,
              session === 'kept',
            ]);
          } else {
            outcomes.push('failed');
            expect([status, headers.get('retry-after')], label).toEqual([503, expect.stringMatching(/^\d+$/)]);
            // An end of which nobody knows whether it was done. What was to go on goes on, with the key that the client
            // has.
            if (act.ends && moment === 'after' && after.user === null) {
              outcomes.push('ended');
              if (act.after.session === 'empty') continue;
              expect([after, cookies], label).toEqual([{ ...before, user: null }, []]);
              expect(
                unlinked.filter((id) => id === before.id),
                label,
              ).toHaveLength(1);
              continue;
            }
            expect(here, label).toEqual({ ...before, note: 'unsaved' });
            expect(after, label).toEqual(before);
            // How long its cookie lasts is said when it is set, and not when it is saved.
            if (!act.permanent) expect(cookies, label).toEqual([]);
            await expect.poll(live).toEqual(listed);
          }
        }
        // One call that fails is asked again, or its outcome is looked up, wherever that can be.
        expect(outcomes).toContain(often === 1 ? 'done' : 'failed');
        // What has ended stays so: no right comes back by itself.
        expect(outcomes.includes('ended')).toBe(Boolean(act.ends) && moment === 'after' && often > 1);
      },
    );
  });

  test('a new visitor keeps the session data of the request after a failed sign-in', async () => {
    const browser = app.browser();
    await app.call(browser, async ({ session, identity }) => {
      session['cart'] = ['a book'];
      watched.away('revokedAt');
      await identity.login('ann').catch(() => watched.pass());
    });
    expect(await app.ask(browser, look)).toMatchObject({ user: null, cart: ['a book'] });
  });
});
