import { beforeAll, expect, test } from 'vitest';
import { describeStacks, type RunningApp } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { idOf, invented, keyOf, LATE, nobody, seenAs, someone, target, victimOf } from './target.js';

/** How an attacker gets a key into a browser of somebody else. */
const ways: Record<string, (victim: Browser, key: string) => { path: string; more: Record<string, unknown> }> = {
  cookie: (victim, key) => {
    victim.jar.set('visit', key);
    return { path: '/login', more: {} };
  },
  query: (_, key) => ({ path: `/login?visit_key=${key}`, more: {} }),
  body: (_, key) => ({ path: '/login', more: { visit_key: key } }),
};

/** Whose key it is. */
const plants: Record<string, (app: RunningApp) => Promise<string>> = {
  'an own key': async (app) => {
    const attacker = app.browser();
    await attacker.post('/set', { json: { planted: true } });
    return keyOf(attacker);
  },
  'an own key, signed in': async (app) => keyOf((await victimOf(app)).browser),
  'an own key, ended': async (app) => {
    const { browser } = await victimOf(app);
    const key = keyOf(browser);
    await browser.post('/logout');
    return key;
  },
  'an invented one': async () => invented(77),
  'an invented secret': async (app) => `${idOf((await victimOf(app)).browser)}.${'B'.repeat(43)}`,
};

// That sign-ins are the same on each database is shown by test/e2e, test/contract and test/interleaving.
describeStacks(
  'Fixation',
  (stack) => {
    let app: RunningApp;
    beforeAll(async () => {
      app = await stack.start(target, { source: 'cookie, form' });
    });

    test.each(Object.keys(ways))(
      'ASVS 7.2.4, B23, B25: a key planted by %s is never the key after a sign-in',
      async (way) => {
        for (const [whose, plant] of Object.entries(plants)) {
          const planted = await plant(app);
          const [browser, user] = [app.browser(), someone()];
          const { path, more } = ways[way]!(browser, planted);
          const answer = await browser.post(path, { json: { user, ...more } });
          expect([answer.status, answer.cookies.length], whose).toEqual([201, 1]);
          expect(keyOf(browser), whose).not.toBe(planted);
          await browser.post('/set', { json: { private: user } });
          expect((await browser.get('/secret')).text, whose).toBe(`the secret of ${user}`);
          await app.browser().post('/set', { cookie: `visit=${planted}`, json: { private: 'overwritten' } });
          for (const wait of [0, LATE]) {
            stack.clock.advance(wait);
            expect((await app.browser().get('/secret', { cookie: `visit=${planted}` })).status, whose).toBe(401);
            expect((await seenAs(app, `visit=${planted}`)).data, whose).not.toHaveProperty('private');
          }
          expect((await app.browser().get(`/secret?visit_key=${planted}`)).status, whose).toBe(401);
          expect((await seenAs(app, `visit=${keyOf(browser)}`)).data, whose).toMatchObject({ private: user });
        }
      },
    );

    test('ASVS 7.2.4: an id that a client has invented is not adopted, not even at a sign-in', async () => {
      const browser = app.browser();
      browser.jar.set('visit', invented(5));
      await browser.post('/login', { json: { user: someone() } });
      expect(idOf(browser)).not.toBe(invented(5).slice(0, 32));
      expect(await seenAs(app, `visit=${invented(5)}`)).toEqual(nobody);
    });

    test('ASVS 7.2.4: re-authentication makes the previous key worthless', async () => {
      const { browser, user } = await victimOf(app);
      const stolen = keyOf(browser);
      await browser.post('/reauthenticate');
      for (const wait of [0, LATE]) {
        stack.clock.advance(wait);
        expect(await seenAs(app, `visit=${stolen}`)).toEqual(nobody);
      }
      expect((await browser.get('/secret')).text).toBe(`the secret of ${user}`);
    });

    test('ASVS 7.2.4, RFC 6265bis R5: neither a planted nor an own key, in any order, survives a sign-in', async () => {
      for (const isFirst of [true, false]) {
        const planted = await plants['an own key']!(app);
        const browser = app.browser();
        await browser.post('/set', { json: { cart: 1 } });
        const own = keyOf(browser);
        const cookie = (isFirst ? [planted, own] : [own, planted]).map((key) => `visit=${key}`).join('; ');
        const user = someone();
        const [header] = (await app.browser().post('/login', { cookie, json: { user } })).cookies;
        const key = /visit=([^;]*)/.exec(header!)![1]!;
        expect([planted, own]).not.toContain(key);
        expect(await seenAs(app, `visit=${key}`)).toMatchObject({ userId: user });
        for (const before of [planted, own])
          expect((await app.browser().get('/secret', { cookie: `visit=${before}` })).status).toBe(401);
      }
    });
  },
  ['sqlite'],
);
