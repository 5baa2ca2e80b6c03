import { expect, test } from 'vitest';
import { describeStacks, type RunningApp } from '../support/app.js';
import { VisitKey } from '../../lib/key/visit-key.js';
import { VisitResolver } from '../../lib/key/visit.resolver.js';
import { send } from '../fuzz/wire.js';
import { invented, keyOf, nobody, seenAs, someone, target, victimOf, type Me } from './target.js';

/** Byte by byte, as no HTTP client would send it. */
async function sendCookie(
  app: RunningApp,
  header: string,
  path = '/me',
): Promise<{ status: number; me: Me | undefined }> {
  const { status, body } = await send(
    Number(new URL(app.address).port),
    Buffer.from(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: ${header}\r\n\r\n`, 'latin1'),
  );
  return {
    status,
    me: status === 200 ? (JSON.parse(body.slice(body.indexOf('{'), body.lastIndexOf('}') + 1)) as Me) : undefined,
  };
}

const HOST = '__Host-visit';

/**
 * What another host of the site, or a page without https, can put into a browser, since it is not the name with the
 * prefix.
 */
const LOOK_ALIKES = [
  'visit',
  '__host-visit',
  '__HOST-visit',
  '__Host-Visit',
  '__Host-visit.',
  '__Secure-visit',
  '__Host_visit',
  '_Host-visit',
  '$__Host-visit',
  '__Host-visit\u00a0',
  '\u00a0__Host-visit',
  '\u00a0 __Host-visit \u00a0',
  '\u00ad__Host-visit',
  '\u0085__Host-visit',
  '"__Host-visit"',
  '"__Host-visit',
  '__Host-visit%20',
  '%5F%5FHost-visit',
  '__Host%2Dvisit',
  '__Host-visit[]',
  '__Host-visit;',
  'x=__Host-visit',
  '=__Host-visit',
  '__Host-vi\u00adsit',
];

describeStacks(
  'Cookies',
  (stack) => {
    const start = (options = {}): Promise<RunningApp> => stack.start(target, options);

    test('RFC 6265bis R1, R21: names that resemble the __Host- name are refused, and hide no cookie', async () => {
      const app = await start({ cookie: { secure: true } });
      const { browser, user } = await victimOf(app);
      const [own, planted] = [keyOf(browser, HOST), keyOf((await victimOf(app)).browser, HOST)];
      expect((await sendCookie(app, `${HOST}=${planted}`)).me).toMatchObject({ isNew: false });
      for (const name of LOOK_ALIKES) {
        expect((await sendCookie(app, `${name}=${planted}`)).me, name).toEqual(nobody);
        for (const header of [`${name}=${planted}; ${HOST}=${own}`, `${HOST}=${own};${name}=${planted}`]) {
          expect((await sendCookie(app, header)).me?.userId, header).toBe(user);
        }
      }
    });

    test('RFC 6265bis R1: a request with control characters in names or values is invalid', async () => {
      const app = await start();
      const key = keyOf((await victimOf(app)).browser);
      const cookie = app.app.get(VisitResolver, { strict: false })['cookie'];
      for (const character of ['\0', '\u000b', '\u000c', '\u007f', '\u0001']) {
        for (const header of [
          `visit${character}=${key}`,
          `${character}visit=${key}`,
          `visit=${character}${key}`,
          `visit=${key}${character}`,
        ]) {
          expect((await sendCookie(app, header)).status, JSON.stringify(header)).toBe(400);
          const read = cookie.read(header).map((value) => VisitKey.parse(value));
          expect(read.filter(Boolean), JSON.stringify(header)).toEqual([]);
        }
      }
    });

    test('RFC 6265bis R5, R21: of several cookies of one name, the valid one counts, in any position', async () => {
      const app = await start();
      const { browser, user } = await victimOf(app);
      const key = keyOf(browser);
      const junk = [
        invented(1),
        'x',
        '',
        `${key}x`,
        `"${key.toUpperCase()}"`,
        invented(2),
        encodeURIComponent(`"${key}"`),
      ];
      for (let at = 0; at <= junk.length; at++) {
        const values = junk.toSpliced(at, 0, key);
        const answer = await app.browser().get('/me', { cookie: values.map((value) => `visit=${value}`).join('; ') });
        expect((JSON.parse(answer.text) as Me).userId, `at ${at}`).toBe(user);
        expect(answer.cookies).toEqual([]);
      }
    });

    test('RFC 6265bis R5: quotes around a key are not part of it; escapes, cuts and additions are', async () => {
      const app = await start();
      const { browser, user } = await victimOf(app);
      const key = keyOf(browser);
      expect((await seenAs(app, `visit="${key}"`)).userId).toBe(user);
      for (const value of [
        `'${key}'`,
        `"${key}`,
        `""${key}""`,
        key.replace('.', '%2E'),
        encodeURIComponent(`${key}\0`),
        `${key},${key}`,
        `${key}, visit=${key}`,
        key.slice(0, -1),
        `${key}=`,
        key.toUpperCase(),
        `s:${key}`,
      ]) {
        expect(await seenAs(app, `visit=${value}`), value).toEqual(nobody);
      }
    });

    test('RFC 6265bis R4, ASVS 3.3.2, 14.3.2: each cookie has SameSite, and its response no-store', async () => {
      for (const [cookie, sameSite] of [
        [{}, 'Lax'],
        [{ sameSite: 'strict' }, 'Strict'],
        [{ sameSite: 'none', secure: true }, 'None'],
        [{ permanent: true }, 'Lax'],
      ] as const) {
        const app = await start({ cookie });
        const browser = app.browser();
        const paths = ['/set', '/login', '/renew', '/reauthenticate', '/logout'];
        for (const path of paths) {
          const { cookies, headers } = await browser.post(path, {
            json: path === '/login' ? { user: someone() } : { a: 1 },
          });
          expect(cookies, path).toHaveLength(1);
          expect(cookies[0], path).toMatch(new RegExp(`; SameSite=${sameSite}(;|$)`));
          expect(cookies[0], path).toMatch(/; HttpOnly(;|$)/);
          expect(headers.get('cache-control'), path).toBe('no-store');
        }
      }
    });

    test('R9, R21: thousands of cookies, and very long ones, never identify another visitor', async () => {
      const app = await start();
      const { browser, user } = await victimOf(app);
      const own = `visit=${keyOf(browser)}`;
      for (const [junk, whose] of [
        [`visit=${'A'.repeat(8000)}; `, user],
        ['x=; '.repeat(2500), user],
        [';'.repeat(9000), user],
        // More of our name than any browser would have: those that are too many are not looked at.
        ['visit=x; '.repeat(1000), null],
      ] as const) {
        const { status, me } = await sendCookie(app, junk + own);
        expect([status, me?.userId], junk.slice(0, 20)).toEqual([200, whose]);
      }
      expect((await sendCookie(app, `visit=${'A'.repeat(100_000)}`)).status).toBe(431);
      expect(await seenAs(app, own)).toMatchObject({ userId: user });
    });
  },
  ['sqlite'],
);
