import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Browser, BrowserContextOptions } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { describeWith } from '../support/needs.js';
import { temporaryFolder } from '../support/servers.mjs';
import { isForToday } from '../support/today.js';
import { focusOutline, lowContrast, unlabelledFields } from './in-page.mjs';
import { buildSample, SampleProcess } from './sample-process.js';
import { launchBrowser, Visitor } from './visitor.js';

const platforms = ['express', 'fastify'] as const;
const PAGES = ['/', '/preferences', '/sign-in', '/guestbook', '/without-cookies', '/visits', '/nowhere'];
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0';
const DAY = 24 * 60 * 60;

describeWith('chromium', 'the sample in a browser', () => {
  const folder = temporaryFolder('sample');
  let browser: Browser;

  beforeAll(async () => {
    buildSample();
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser?.close();
    await folder.remove();
  });

  // Each day a browser looks at the pages on one platform, and at a restart on the other; without one, other suites look
  // at both.
  for (const [turn, platform] of platforms.entries()) {
    if (isForToday(turn, platforms.length))
      describe(`under ${platform}`, () => {
        const database = join(folder.path, `${platform}.sqlite`);
        let sample: SampleProcess;
        const visitors: Visitor[] = [];

        beforeAll(async () => {
          sample = await SampleProcess.start({ PLATFORM: platform, DATABASE_URL: database });
        });
        afterAll(async () => {
          await sample?.stop();
        });
        afterEach(async () => {
          const complaints = visitors.flatMap((visitor) => visitor.takeComplaints());
          await Promise.all(visitors.splice(0).map(({ context }) => context.close()));
          if (complaints.length > 0) throw new Error(complaints.join('\n'));
        });

        const keep = (visitor: Visitor): Visitor => {
          visitors.push(visitor);
          return visitor;
        };
        const arrive = async (options?: BrowserContextOptions): Promise<Visitor> =>
          keep(await Visitor.arrive(browser, sample.address, options));

        /** What a client with this cookie gets to see, beside any browser. */
        const ask = (path: string, cookie: string): Promise<Response> =>
          fetch(`${sample.address}${path}`, { headers: { cookie: `visit=${cookie}` }, redirect: 'manual' });

        test('R12 R13 R34: the home page shows the visit: new at first, then known, with the same id', async () => {
          const visitor = await arrive({ userAgent: FIREFOX });
          expect(await visitor.open('/')).toBe(200);
          expect(await visitor.text('#known')).toMatch(/^No/);
          const id = await visitor.text('#visit-id');
          expect(id).toMatch(/^[\da-f]{32}$/);
          expect(await visitor.text('main')).toContain('127.0.0.1');
          expect(await visitor.text('main')).toContain('Firefox, Linux');

          await visitor.page.reload();
          expect(await visitor.text('#known')).toBe('Yes');
          expect(await visitor.text('#visit-id')).toBe(id);
          const cookie = await visitor.cookie();
          expect(cookie).toMatchObject({ expires: -1, httpOnly: true, sameSite: 'Lax' });
          expect(await visitor.page.content()).not.toContain(cookie!.value.split('.')[1]);
        });

        test('R45 R47 B10: the counter counts across redirects and reloads, and can be reset', async () => {
          const visitor = await arrive();
          await visitor.open('/');
          expect(await visitor.text('#clicks')).toBe('0');
          for (const clicks of ['1', '2', '3']) {
            await visitor.press('Add one');
            expect(await visitor.text('#clicks')).toBe(clicks);
          }
          await visitor.page.reload();
          expect(await visitor.text('#clicks')).toBe('3');
          expect(await visitor.text('#opened')).toContain('5 times');
          await visitor.screenshot(`${platform}-home`);

          await visitor.press('Start again at 0');
          expect(await visitor.text('#clicks')).toBe('0');
          expect(await visitor.text('#opened')).toContain('6 times');
        });

        test('R39 B23 B24: signing in gives the same visit a new key, and the old one is invalid', async () => {
          const visitor = await arrive();
          await visitor.open('/');
          await visitor.press('Add one');
          const id = await visitor.text('#visit-id');
          const before = (await visitor.cookie())!.value;

          await visitor.signIn('ada', 'engine-1843');
          expect(await visitor.text('[role=status]')).toContain('Hello, Ada Lovelace');
          const after = await visitor.cookie();
          expect(after!.value).not.toBe(before);
          expect(after!.expires).toBe(-1);
          await visitor.open('/');
          expect(await visitor.text('#user')).toBe('Ada Lovelace');
          expect(await visitor.text('#visit-id')).toBe(id);
          expect(await visitor.text('#clicks')).toBe('1');

          expect((await ask('/visits', after!.value)).status).toBe(200);
          const late = await ask('/visits', before);
          expect(late.status).toBe(401);
          expect(late.headers.getSetCookie()).toEqual([]);
        });

        test('R40 B32: signing out ends the visit, its key and its data; the browser deletes the cookie', async () => {
          const visitor = await arrive();
          await visitor.open('/');
          await visitor.press('Add one');
          const id = await visitor.text('#visit-id');
          await visitor.signIn('grace', 'moth-1947');
          const signedIn = (await visitor.cookie())!.value;
          await visitor.press('Sign out');

          expect(await visitor.text('[role=status]')).toContain('You are signed out');
          expect(await visitor.text('#user')).toBe('nobody');
          expect(await visitor.text('#visit-id')).not.toBe(id);
          expect(await visitor.text('#clicks')).toBe('0');
          expect((await visitor.cookie())!.value).not.toBe(signedIn);
          expect((await ask('/visits', signedIn)).status).toBe(401);
          expect(await (await ask('/', signedIn)).text()).not.toContain(id);
        });

        test('R36: "remember me" makes this one visit permanent, for 30 days', async () => {
          const visitor = await arrive();
          await visitor.open('/sign-in');
          await visitor.page.getByLabel('Name').fill('ada');
          await visitor.page.getByLabel('Password').fill('engine-1843');
          await visitor.page.getByLabel('Remember me').check();
          await visitor.press('Sign in');
          const { expires } = (await visitor.cookie())!;
          expect(expires - Date.now() / 1000).toBeGreaterThan(29.9 * DAY);
          expect(expires - Date.now() / 1000).toBeLessThan(30.1 * DAY);
          await visitor.open('/');
          expect(await visitor.text('#kept')).toContain('remember me');

          const other = await arrive();
          await other.signIn('ada', 'engine-1843');
          expect((await other.cookie())!.expires).toBe(-1);
        });

        test('R48: a wrong password gets a 401, and the session data is kept', async () => {
          const visitor = await arrive();
          await visitor.open('/');
          await visitor.press('Add one');
          const before = await visitor.cookie();
          await visitor.open('/sign-in');
          await visitor.page.getByLabel('Name').fill('ada');
          await visitor.page.getByLabel('Password').fill('wrong');
          const answer = visitor.page.waitForResponse((response) => response.request().method() === 'POST');
          await visitor.press('Sign in');
          expect((await answer).status()).toBe(401);
          expect(await visitor.text('[role=alert]')).toContain('do not belong together');
          expect(await visitor.page.getByLabel('Name').inputValue()).toBe('ada');
          expect(await visitor.cookie()).toEqual(before);
          await visitor.screenshot(`${platform}-wrong-password`);
          expect(visitor.takeComplaints()).toEqual([expect.stringContaining('401')]);

          await visitor.open('/');
          expect(await visitor.text('#clicks')).toBe('1');
          expect(await visitor.text('#user')).toBe('nobody');
        });

        test('R14 R2 R5: without cookies, links and forms contain the key, with a warning', async () => {
          const visitor = keep(
            await Visitor.arriveWithoutCookies(sample.address, join(folder.path, `${platform}-profile`)),
          );
          const { page } = visitor;
          const responses: Promise<Record<string, string>>[] = [];
          page.on('response', (response) => {
            if (response.request().isNavigationRequest()) responses.push(response.allHeaders());
          });
          await visitor.open('/without-cookies');
          expect(await page.getByRole('note').innerText()).toContain('holds the key to your visit');
          const id = await visitor.text('#visit-id');
          expect(await visitor.text('#clicks')).toBe('0');

          await visitor.press('Add one');
          await visitor.press('Add one');
          await page.getByRole('link', { name: 'Open this page again' }).click();
          expect(await visitor.text('#visit-id')).toBe(id);
          expect(await visitor.text('#clicks')).toBe('2');
          expect(new URL(page.url()).searchParams.get('visit_key')).toMatch(new RegExp(String.raw`^${id}\.`));
          expect(await visitor.context.cookies()).toEqual([]);
          await visitor.screenshot(`${platform}-without-cookies`);

          // The page, two redirects and their targets, and the link: all that carry the key.
          expect(responses).toHaveLength(6);
          for (const headers of await Promise.all(responses)) {
            expect(headers).toMatchObject({ 'referrer-policy': 'no-referrer', 'cache-control': 'no-store' });
          }
          await visitor.open('/without-cookies');
          expect(await visitor.text('#visit-id')).not.toBe(id);
        });

        test('R35 R11: pages that store nothing create no visit, and files never do', async () => {
          const visitor = await arrive();
          for (const path of ['/preferences', '/sign-in']) await visitor.open(path);
          expect(await visitor.cookie()).toBeUndefined();
          const address = await visitor.page.locator('link[rel=stylesheet]').getAttribute('href');
          const response = await fetch(`${sample.address}${address}`);
          expect(response.headers.get('cache-control')).toContain('immutable');
          expect(response.headers.getSetCookie()).toEqual([]);

          await visitor.open('/');
          expect(await visitor.cookie()).toBeDefined();
        });

        test('B18: while the database is unavailable, pages say so, and nobody loses their visit', async () => {
          const visitor = await arrive();
          await visitor.open('/');
          const id = await visitor.text('#visit-id');
          const cookie = await visitor.cookie();

          const { default: Database } = (await import('libsql')) as unknown as {
            default: new (path: string) => { exec(sql: string): void; close(): void };
          };
          const other = new Database(database);
          other.exec('ALTER TABLE visit RENAME TO visit_away');
          try {
            const response = await visitor.page.goto(`${sample.address}/visits`);
            expect(response!.status()).toBe(503);
            expect(await response!.headerValue('retry-after')).toMatch(/^\d+$/);
            expect(await response!.headerValue('set-cookie')).toBeNull();
            expect(await visitor.text('h1')).toBe('The database does not answer');
            expect(await visitor.page.content()).not.toMatch(/sqlite|table/i);
            await visitor.screenshot(`${platform}-503`);
          } finally {
            other.exec('ALTER TABLE visit_away RENAME TO visit');
            other.close();
          }
          expect(visitor.takeComplaints()).toEqual([expect.stringContaining('503')]);
          await visitor.open('/');
          expect(await visitor.text('#visit-id')).toBe(id);
          expect(await visitor.cookie()).toEqual(cookie);
        });

        test('R12: concurrent visitors are not mixed up', async () => {
          const people = await Promise.all([arrive(), arrive(), arrive()]);
          await Promise.all(
            people.map(async (person, index) => {
              await person.open('/');
              for (let click = 0; click <= index; click++) await person.press('Add one');
            }),
          );
          const seen = await Promise.all(
            people.map(async (person) => [await person.text('#clicks'), await person.text('#visit-id')]),
          );
          expect(seen.map(([clicks]) => clicks)).toEqual(['1', '2', '3']);
          expect(new Set(seen.map(([, id]) => id)).size).toBe(3);
        });

        test('R45: preferences change language and colors of every page', async () => {
          const visitor = await arrive({ colorScheme: 'light' });
          const { page } = visitor;
          const ground = (): Promise<string> =>
            page.evaluate('getComputedStyle(document.body).backgroundColor') as Promise<string>;
          await visitor.open('/preferences');
          const light = await ground();
          await page.getByLabel('Deutsch').check();
          await page.getByLabel('Dark').check();
          await visitor.press('Save');
          expect(await visitor.text('[role=status]')).toBe('Ihre Einstellungen sind gespeichert.');
          expect(await visitor.text('h1')).toBe('Einstellungen');

          for (const path of PAGES) {
            await visitor.open(path);
            expect(await page.locator('html').getAttribute('lang')).toBe('de');
            expect(await ground(), path).not.toBe(light);
          }
          expect(await visitor.text('h1')).toBe('Diese Seite gibt es nicht');
          expect(visitor.takeComplaints()).toHaveLength(2); // The browser notes 401 and 404.

          await visitor.open('/preferences');
          await page.getByLabel('English').check();
          await page.getByLabel('Wie mein System').check();
          await visitor.press('Speichern');
          expect(await visitor.text('h1')).toBe('Preferences');
          expect(await ground()).toBe(light);
          await page.emulateMedia({ colorScheme: 'dark' });
          expect(await ground()).not.toBe(light);
        });

        test('ASVS 7.4.4: each page has a sign-out button for signed-in users', async () => {
          const visitor = await arrive();
          await visitor.signIn('grace', 'moth-1947');
          for (const path of PAGES) {
            await visitor.open(path);
            expect(await visitor.page.getByRole('button', { name: 'Sign out' }).isVisible(), path).toBe(true);
          }
          await visitor.press('Sign out');
          for (const path of PAGES) {
            await visitor.open(path);
            expect(await visitor.page.getByRole('button', { name: 'Sign out' }).count(), path).toBe(0);
          }
          expect(visitor.takeComplaints().filter((complaint) => !/status of (401|404)/.test(complaint))).toEqual([]);
        });

        test('R41: pages that need a sign-in redirect to it', async () => {
          const visitor = await arrive();
          expect(await visitor.open('/visits')).toBe(401);
          await visitor.screenshot(`${platform}-401`);
          expect(visitor.takeComplaints()).toEqual([expect.stringContaining('401')]);
          await visitor.page.getByRole('main').getByRole('link', { name: 'Sign in' }).click();
          expect(await visitor.text('h1')).toBe('Sign in');
        });

        test('R42 R31: a visit that is ended from another browser is signed out immediately', async () => {
          const here = await arrive();
          const there = await arrive({ userAgent: FIREFOX });
          const bystander = await arrive();
          await here.signIn('grace', 'moth-1947');
          await there.signIn('grace', 'moth-1947');
          await bystander.signIn('ada', 'engine-1843');

          await here.open('/visits');
          const own = here.page.locator('.visit[aria-current]');
          expect(await own.count()).toBe(1);
          expect(await own.innerText()).toContain('Chrome, Linux');
          expect(await own.getByRole('button').count()).toBe(0);
          const other = here.page.locator('.visit:not([aria-current])');
          expect(await other.count()).toBe(1);
          expect(await other.innerText()).toContain('Firefox, Linux');
          await here.screenshot(`${platform}-visits`);

          await there.open('/visits');
          await other.getByRole('button', { name: 'End this visit' }).click();
          expect(await here.text('[role=status]')).toBe('The visit has ended.');
          expect(await other.count()).toBe(0);
          expect((await there.page.reload())!.status()).toBe(401);
          expect(there.takeComplaints()).toEqual([expect.stringContaining('401')]);
          expect(await here.open('/visits')).toBe(200);
          expect(await bystander.open('/visits')).toBe(200);
        });

        test('R42: users cannot end visits of other users, or their own other visits by mistake', async () => {
          const ada = await arrive();
          const grace = await arrive();
          const graceToo = await arrive();
          await ada.signIn('ada', 'engine-1843');
          for (const visitor of [grace, graceToo]) await visitor.signIn('grace', 'moth-1947');
          await grace.open('/');
          const id = await grace.text('#visit-id');

          const forged = await fetch(`${sample.address}/visits/end`, {
            method: 'POST',
            headers: { cookie: `visit=${(await ada.cookie())!.value}`, 'sec-fetch-site': 'same-origin' },
            body: new URLSearchParams({ id }),
            redirect: 'manual',
          });
          expect(forged.status).toBe(404);
          expect(await grace.open('/visits')).toBe(200);

          await grace.press('End all others');
          expect(await grace.text('[role=status]')).toMatch(/ended/);
          expect(await grace.page.locator('.visit').count()).toBe(1);
          expect(await graceToo.open('/visits')).toBe(401);
          expect(graceToo.takeComplaints()).toHaveLength(1);
          expect(await ada.open('/visits')).toBe(200);
        });

        test('R58: a flash message is shown once; user input is text, not HTML', async () => {
          const visitor = await arrive();
          await visitor.open('/guestbook');
          await visitor.page.getByLabel('Your name').fill('Bobby <b>');
          await visitor.page.getByLabel('Your message').fill('<script>alert(1)</script> & hello');
          await visitor.press('Write it into the book');
          expect(new URL(visitor.page.url()).pathname).toBe('/guestbook');
          expect(await visitor.text('[role=status]')).toContain('Thank you, Bobby <b>.');
          expect(await visitor.text('#entries li:first-child')).toContain('<script>alert(1)</script> & hello');
          expect(await visitor.page.locator('main script').count()).toBe(0);
          await visitor.screenshot(`${platform}-guestbook`);

          await visitor.page.reload();
          expect(await visitor.page.locator('[role=status]').count()).toBe(0);
          expect(await visitor.page.getByLabel('Your name').inputValue()).toBe('Bobby <b>');
          expect(await visitor.text('#entries li:first-child')).toContain('hello');
        });

        test('R58: of two tabs that load concurrently, exactly one shows the flash message', async () => {
          const visitor = await arrive();
          await visitor.open('/guestbook');
          const cookie = (await visitor.cookie())!.value;
          const form_token = await visitor.page.locator('input[name=form_token]').inputValue();
          const send = async (site: string): Promise<number> => {
            const headers = { cookie: `visit=${cookie}`, 'sec-fetch-site': site };
            const body = new URLSearchParams({ name: 'Tab', message: 'two at once', form_token });
            return (await fetch(`${sample.address}/guestbook`, { method: 'POST', headers, body, redirect: 'manual' }))
              .status;
          };
          // The other site has not used the token up; the second click has.
          expect([await send('cross-site'), await send('same-origin'), await send('same-origin')]).toEqual([
            403, 303, 403,
          ]);
          const pages = await Promise.all([1, 2, 3, 4].map(async () => (await ask('/guestbook', cookie)).text()));
          expect(pages.filter((page) => page.includes('Thank you, Tab.'))).toHaveLength(1);
        });

        test('no link contains the key of a signed-in user', async () => {
          const visitor = await arrive();
          await visitor.signIn('ada', 'engine-1843');
          await visitor.open('/without-cookies');
          expect(await visitor.page.content()).not.toContain('visit_key');
          expect(await visitor.page.getByRole('main').innerText()).toContain('gives no key away');
        });

        test('R72: the plugin counts new visits, and only new ones', async () => {
          const visitor = await arrive({ userAgent: FIREFOX });
          const count = async (): Promise<number> =>
            Number(await visitor.page.getByRole('row', { name: 'Firefox' }).locator('td').first().innerText());
          await visitor.open('/');
          // The page was made before the visit was stored with it.
          await visitor.page.reload();
          const first = await count();
          expect(first).toBeGreaterThan(0);
          await visitor.page.reload();
          expect(await count()).toBe(first);

          await (await arrive({ userAgent: FIREFOX })).open('/');
          await visitor.page.reload();
          expect(await count()).toBe(first + 1);
        });

        test('signing in needs no mouse and no JavaScript', async () => {
          const visitor = await arrive({ javaScriptEnabled: false });
          const { keyboard } = visitor.page;
          const focused = visitor.page.locator(':focus');
          await visitor.open('/sign-in');
          await keyboard.press('Tab');
          expect(await focused.innerText()).toBe('Skip to the content');
          await visitor.screenshot(`${platform}-skip-link`);
          await keyboard.press('Enter');
          await keyboard.press('Tab');
          expect(await focused.getAttribute('name')).toBe('name');
          await keyboard.type('ada');
          await keyboard.press('Tab');
          await keyboard.type('engine-1843');
          await keyboard.press('Tab');
          await keyboard.press('Space');
          await keyboard.press('Tab');
          expect(await focused.innerText()).toBe('Sign in');
          expect(await visitor.page.evaluate(focusOutline)).toBe('solid');
          await keyboard.press('Enter');
          await visitor.page.waitForURL('**/visits');
          expect(await visitor.text('.user')).toBe('Ada Lovelace');
          expect((await visitor.cookie())!.expires).toBeGreaterThan(0);
        });

        for (const colorScheme of ['light', 'dark'] as const) {
          test(`all pages in ${colorScheme}: readable, complete on a narrow screen, every field labeled`, async () => {
            for (const signedIn of [false, true]) {
              const visitor = await arrive({ colorScheme, viewport: { width: 1100, height: 800 } });
              const { page } = visitor;
              if (signedIn) await visitor.signIn('ada', 'engine-1843');
              // Any two of colors, visitor and language meet on each page.
              const language = signedIn === (colorScheme === 'dark') ? 'English' : 'Deutsch';
              await visitor.open('/preferences');
              await page.getByLabel(language).check();
              await page.locator('main button').click();
              for (const path of PAGES) {
                await page.setViewportSize({ width: 1100, height: 800 });
                await visitor.open(path);
                const name = `${colorScheme}-${signedIn ? 'ada' : 'nobody'}-${language}${path.replace('/', '-')}`;
                await visitor.screenshot(name);
                expect(await page.evaluate(lowContrast), name).toEqual([]);
                expect(await page.locator('h1').count(), name).toBe(1);
                expect(await page.evaluate(unlabelledFields), name).toEqual([]);
                await page.setViewportSize({ width: 320, height: 640 });
                expect(await page.evaluate('document.documentElement.scrollWidth'), name).toBe(320);
                await visitor.screenshot(`${name}-narrow`);
              }
              expect(visitor.takeComplaints().filter((complaint) => !/status of (401|404)/.test(complaint))).toEqual(
                [],
              );
            }
          });
        }
      });

    const restart = `B39 R29: under ${platform}, SIGTERM ends the sample despite open connections, and saves counts`;
    if (isForToday(turn + 1, platforms.length))
      test(restart, async () => {
        const env = { PLATFORM: platform, DATABASE_URL: join(folder.path, `restart-${platform}.sqlite`) };
        const first = await SampleProcess.start(env);
        const visitor = await Visitor.arrive(browser, first.address);
        await visitor.open('/');
        await visitor.press('Add one');
        await visitor.press('Add one');
        await visitor.signIn('ada', 'engine-1843');
        // The browser keeps its connections; here is one more, of the kind that is opened in advance and not used yet.
        const unused = connect(Number(new URL(first.address).port), '127.0.0.1');
        await once(unused, 'connect');
        let received = '';
        unused.setEncoding('latin1').on('data', (data: string) => (received += data));
        unused.on('error', () => {});
        const { code, signal } = await first.stop('SIGTERM');
        expect({ code, signal }).toEqual({ code: 0, signal: null });
        // It was not waited for: left to itself, Node closes it after a minute, and says so with a 408.
        expect(received).toBe('');
        // It says that it takes keys from addresses, and where it is; nothing else.
        expect(first.output).toMatch(/^[^\n]*Keys are accepted in URLs[^\n]*\nnest-visit sample: http[^\n]*\n$/);

        const second = await SampleProcess.start({ ...env, DATABASE_URL: `file:${env.DATABASE_URL}` });
        visitor.moveTo(second.address);
        await visitor.open('/');
        expect(await visitor.text('#clicks')).toBe('2');
        expect(await visitor.text('#user')).toBe('Ada Lovelace');
        expect(visitor.takeComplaints()).toEqual([]);
        expect((await second.stop('SIGINT')).code).toBe(0);
        await visitor.context.close();
      });
  }

  const failures: [env: Record<string, string>, line: string][] = [
    [{ PLATFORM: 'koa' }, 'PLATFORM must be express or fastify, got "koa"'],
    [{ PORT: '99999' }, 'PORT must be a number from 0 (any free port) to 65535, got "99999"'],
    [
      { DATABASE_URL: 'redis://me:secret@127.0.0.1/1' },
      'DATABASE_URL must be mysql://…, postgres://… or the path of a SQLite file, got redis:…',
    ],
    [
      { DATABASE_URL: 'mysql://me:secret@127.0.0.1:1/visit' },
      'The sample cannot start: [visit] cannot open the data source of type "mysql" at 127.0.0.1:1/visit: connect ' +
        'ECONNREFUSED 127.0.0.1:1',
    ],
  ];
  test.each(failures.filter((_, index) => isForToday(index, 2)))(
    'R74: %o fails the startup with exit code 1 and one line',
    async (env, line) => {
      expect(await SampleProcess.fail(env)).toEqual({ code: 1, output: `${line}\n` });
    },
  );
});
