import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import {
  MemoryVisitStore,
  VisitPlugin,
  VisitService,
  type VerifiedVisit,
  type VisitPluginHooks,
  type VisitStore,
} from 'nest-visit';
import { SealedCookieVisitStore } from 'nest-visit/sealed-cookie';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Browser } from '../support/browser.js';
import { InlineApp } from '../support/inline-handlers.js';
import { ManualClock } from '../support/manual-clock.js';
import { WatchedStore } from '../support/watched-store.js';

const events: string[] = [];

@VisitPlugin()
class Listener implements VisitPluginHooks {
  onNewVisit(): void {
    events.push('new');
  }
  onRecordRequest(): void {
    events.push('record');
  }
  onKeyRefused(): void {
    events.push('refused');
  }
  onVisitEnded(): void {
    events.push('ended');
  }
}

const stores: [string, () => VisitStore][] = [
  ['a store on the server', () => new MemoryVisitStore()],
  ['a store in clients', () => new SealedCookieVisitStore({ secrets: ['b'.repeat(64)] })],
];

describe.each(stores)('visits.verify() with %s', (_, makeStore) => {
  const inner = makeStore();
  const watched = new WatchedStore(inner);
  const clock = new ManualClock();
  let app: InlineApp;
  beforeAll(async () => {
    const options = {
      store: watched.store,
      clock,
      timeout: '20m',
      source: 'cookie, query',
      csrf: { trustedOrigins: ['https://friend.example'] },
    } as const;
    app = await InlineApp.start('express', options, { providers: [Listener] });
  });
  afterAll(() => app.close());
  beforeEach(() => clock.advance(60_000));
  afterEach(() => watched.pass());

  const cookieOf = (browser: Browser): string => [...browser.jar].map(([name, value]) => `${name}=${value}`).join('; ');
  const verify = (credential: Parameters<VisitService['verify']>[0]): Promise<VerifiedVisit | null> =>
    app.running.app.get(VisitService).verify(credential);
  const handshake = (headers: Record<string, string>, url = '/socket'): IncomingMessage =>
    Object.assign(new IncomingMessage(new Socket()), {
      headers: { host: new URL(app.running.address).host, ...headers },
      method: 'GET',
      url,
    });
  const signIn = async (user = 'ann'): Promise<Browser> => {
    const browser = app.browser();
    await app.call(browser, async ({ session, identity }) => {
      session['count'] = 5;
      await identity.login(user);
    });
    return browser;
  };

  test('identifies the user by a cookie, and by a handshake', async () => {
    const cookie = cookieOf(await signIn());
    const headers = handshake({ cookie });
    for (const credential of [
      cookie,
      headers,
      { request: headers },
      { extra: { request: headers } },
      { raw: headers, headers: { cookie } },
    ]) {
      expect(await verify(credential)).toMatchObject({
        userId: 'ann',
        session: { count: 5 },
        visit: { userId: 'ann', isCurrent: false },
      });
    }
    const fetched = new Request(`${app.running.address}/socket`, { headers: { cookie } });
    expect((await verify(fetched))?.userId).toBe('ann');
    expect(JSON.stringify(await verify(cookie))).not.toContain(
      cookie.slice(cookie.indexOf('.') + 1, cookie.indexOf('.') + 44),
    );
  });

  test('returns no user for a missing, malformed, forged, expired, ended or replaced key', async () => {
    const browser = await signIn();
    const cookie = cookieOf(browser);
    const forged = cookie.replace(/\.[\w-]{43}/, `.${'x'.repeat(43)}`);
    for (const credential of ['', undefined, null, {}, 'visit=1', 'other=1', forged, handshake({})])
      expect(await verify(credential)).toBe(null);
    clock.advance(21 * 60_000);
    expect(await verify(cookie)).toBe(null);
    const other = await signIn();
    const before = cookieOf(other);
    await app.call(other, ({ identity }) => identity.reauthenticate());
    // What a client keeps itself cannot be taken back from it.
    if (inner instanceof MemoryVisitStore) {
      expect(await verify(before)).toBe(null);
      const last = cookieOf(other);
      await app.call(other, ({ visits }) => visits.end());
      expect(await verify(last)).toBe(null);
    }
  });

  test('a handshake that another site opened with a visitor’s cookie has no visit', async () => {
    const cookie = cookieOf(await signIn());
    const from = async (headers: Record<string, string>) =>
      (await verify(handshake({ cookie, ...headers })))?.userId ?? null;
    expect(await from({ origin: 'https://evil.example' })).toBe(null);
    expect(await from({ origin: 'null' })).toBe(null);
    expect(await from({ 'sec-fetch-site': 'same-site' })).toBe(null);
    expect(await from({ origin: 'https://friend.example' })).toBe('ann');
    expect(await from({ origin: app.running.address })).toBe('ann');
  });

  test('only reads: it causes no row, touch, event or cookie, and does not extend the visit', async () => {
    const browser = await signIn();
    const cookie = cookieOf(browser);
    const forged = cookie.replace(/\.[\w-]{43}/, `.${'x'.repeat(43)}`);
    events.length = watched.calls.length = 0;
    clock.advance(15 * 60_000);
    const session = (await verify(cookie))!.session as { count: number };
    session.count = 6;
    await verify(forged);
    await app.running.app.get(VisitService).flush();
    expect(events).toEqual([]);
    expect(watched.calls.filter((call) => call !== 'find')).toEqual([]);
    expect((await verify(cookie))!.session).toEqual({ count: 5 });
    clock.advance(6 * 60_000);
    expect(await verify(cookie)).toBe(null);
    if (inner instanceof SealedCookieVisitStore) expect(inner.size).toBe(0);
  });

  test('throws if the store is unavailable, and needs no look-up without a key', async () => {
    const cookie = cookieOf(await signIn());
    watched.away('find');
    await expect(verify(cookie)).rejects.toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    expect(await verify('other=1')).toBe(null);
    if (inner instanceof SealedCookieVisitStore) expect(inner.size).toBe(0);
  });

  test('accepts a key alone, and one in the URL if the sources allow it', async () => {
    const browser = await signIn();
    const key = browser.jar.get('visit')!;
    const isHere = inner instanceof MemoryVisitStore;
    expect((await verify(key))?.userId).toBe(isHere ? 'ann' : undefined);
    expect((await verify(handshake({}, `/socket?visit_key=${key}`)))?.userId).toBe(isHere ? 'ann' : undefined);
    expect(await verify(handshake({}, `/socket?visit_key=${key}&visit_key=${key}`))).toBe(null);
  });
});
