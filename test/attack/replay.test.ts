import { VisitService } from 'nest-visit';
import { beforeAll, expect, test } from 'vitest';
import { describeStacks, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import {
  Alarm,
  idOf,
  invented,
  keyOf,
  LATE,
  nobody,
  seenAs,
  someone,
  target,
  TWENTY_MINUTES,
  victimOf,
} from './target.js';

interface Scene {
  readonly app: RunningApp;
  readonly browser: Browser;
  readonly user: string;
  readonly wait: (milliseconds: number) => void;
}

/** What ends a key's life, and what the victim has afterwards. */
const ends: Record<string, (scene: Scene) => Promise<unknown>> = {
  'another sign-in': ({ browser, user }) => browser.post('/login', { json: { user } }),
  'a sign-in of another user': ({ browser }) => browser.post('/login', { json: { user: someone() } }),
  'a new proof of identity': ({ browser }) => browser.post('/reauthenticate'),
  'a sign-out': ({ browser }) => browser.post('/logout'),
  'a sign-out that keeps the visit': ({ browser }) => browser.post('/logout', { json: { keep: true } }),
  'a renewal and its grace period': async ({ browser, wait }) => {
    await browser.post('/renew');
    // The old key has its grace until a while after the new one was first seen.
    await browser.get('/me');
    wait(30_000);
  },
  'its end by another client': ({ app, browser }) =>
    app.app.get(VisitService).end(idOf(browser), 'revoked', { anyUser: true }),
  'the end of all visits of its user': ({ app, user }) => app.app.get(VisitService).endAllForUser(user),
  'the end of all visits': ({ app }) => app.app.get(VisitService).endAll(),
};

describeStacks('Replay', (stack) => {
  let app: RunningApp;
  let elsewhere: RunningApp;
  beforeAll(async () => {
    [app, elsewhere] = [await stack.start(target), await stack.start(target)];
  });
  const wait = (milliseconds: number): void => stack.clock.advance(milliseconds);

  async function expectDead(one: RunningApp, stolen: string): Promise<void> {
    const cookie = `visit=${stolen}`;
    expect(await seenAs(one, cookie)).toEqual(nobody);
    expect((await one.browser().get('/secret', { cookie })).status).toBe(401);
    await one.browser().post('/set', { cookie, json: { private: 'overwritten' } });
  }

  test.each(Object.keys(ends))(
    'ASVS 7.4.1, A3, A4, B24, S2: a key that is used after %s gives no user and no data, and is reported',
    async (end) => {
      const { browser, user } = await victimOf(app);
      const stolen = keyOf(browser);
      await ends[end]!({ app, browser, user, wait });
      // At once, on every machine, though a request may still have been on its way.
      for (const one of [app, elsewhere]) await expectDead(one, stolen);
      wait(LATE);
      const { refused } = elsewhere.app.get(Alarm);
      refused.length = 0;
      await seenAs(elsewhere, `visit=${stolen}`);
      expect(refused).toEqual([{ reason: 'retired', visitId: stolen.slice(0, 32), remoteAddress: '127.0.0.1' }]);
      expect(await seenAs(app, `visit=${stolen}`)).toEqual(nobody);
      // The thief has changed nothing for who has the visit now.
      if (end.startsWith('another') || end.includes('proof') || end.includes('renewal')) {
        expect(await seenAs(app, `visit=${keyOf(browser)}`)).toEqual({
          userId: user,
          isNew: false,
          data: { private: user },
        });
      }
    },
  );

  test.each([
    ['idle for too long', {}, 1],
    ['older than its absolute timeout', { absoluteTimeout: '30m' }, 3],
  ] as const)(
    'ASVS 7.3.1, 7.3.2: a key of a visit that was %s gives no user and no data',
    async (_, options, steps) => {
      const limited = await stack.start(target, options);
      const { browser } = await victimOf(limited);
      const stolen = keyOf(browser);
      for (let step = 1; step < steps; step++) {
        wait(14 * 60_000);
        expect((await browser.get('/secret')).status).toBe(200);
      }
      wait(steps === 1 ? TWENTY_MINUTES : 2 * 60_000);
      await expectDead(limited, stolen);
      // Each browser that was left open comes with such a key: it is no sign of a thief.
      expect(limited.app.get(Alarm).refused).toEqual([]);
    },
  );

  test('S2: a key older than the previous one is unknown, so it counts as forged', async () => {
    const { browser } = await victimOf(app);
    const stolen = keyOf(browser);
    for (let i = 0; i < 2; i++) await browser.post('/reauthenticate');
    wait(LATE);
    app.app.get(Alarm).refused.length = 0;
    await seenAs(app, `visit=${stolen}`);
    expect(app.app.get(Alarm).refused).toMatchObject([{ reason: 'forged', visitId: stolen.slice(0, 32) }]);
  });

  test('S2, S10: an expired key beside it does not prevent the report of another key', async () => {
    const strict = await stack.start(target, { onRetiredKey: 'end' });
    const attacker = app.browser();
    await attacker.post('/set', { json: { own: 1 } });
    wait(TWENTY_MINUTES);
    const { browser } = await victimOf(app);
    const stolen = keyOf(browser);
    await browser.post('/reauthenticate');
    wait(LATE);
    const cookie = [keyOf(attacker), invented(1), stolen, invented(2)].map((key) => `visit=${key}`).join('; ');
    expect((await strict.browser().get('/secret', { cookie })).status).toBe(401);
    expect(strict.app.get(Alarm).refused.map(({ reason, visitId }) => [reason, visitId])).toEqual([
      ['forged', invented(1).slice(0, 32)],
      ['retired', stolen.slice(0, 32)],
      ['forged', invented(2).slice(0, 32)],
    ]);
    expect((await browser.get('/secret')).status).toBe(401);
  });
});
