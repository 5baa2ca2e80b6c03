import type { IncomingMessage, ServerResponse } from 'node:http';
import { MemoryVisitStore } from 'nest-visit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { WatchedStore } from '../support/watched-store.js';

type Counting = { count?: number };

const count = ({ session }: Tools): string =>
  String((session['count'] = ((session['count'] as number | undefined) ?? 0) + 1));
const counted = ({ session }: Tools): string => String(session['count'] ?? 0);

const pairs = platforms.flatMap((inner) => platforms.map((outer) => [inner, outer] as const));

/** One response, two applications that have something to save and to say. */
describe.each(pairs)('An application under %s, mounted in another one under %s', (innerPlatform, outerPlatform) => {
  const watched = new WatchedStore();
  let inner: InlineApp;
  let outer: InlineApp;
  beforeAll(async () => {
    inner = await InlineApp.start(innerPlatform, { store: watched.store, cookie: { name: 'inner' } });
    const server = inner.running.app.getHttpServer() as NodeJS.EventEmitter;
    const options = { store: new MemoryVisitStore(), cookie: { name: 'outer' } };
    outer = await InlineApp.start(outerPlatform, options, {}, (app) => {
      app.use((request: IncomingMessage & { session: Counting }, response: ServerResponse, next: () => void) => {
        const [, counts, path] = /^\/inner(-counted)?(\/.*)$/.exec(request.url!) ?? [];
        if (path === undefined) return next();
        if (counts) request.session.count = (request.session.count ?? 0) + 1;
        request.url = path;
        server.emit('request', request, response);
      });
    });
  });
  afterAll(() => Promise.all([inner.close(), outer.close()]));

  const ask = (browser: Browser, path: string) => browser.get(path);
  const names = (cookies: readonly string[]): string[] => cookies.map((cookie) => cookie.split('=')[0]!).toSorted();

  test('B8, law 7: both save before the response is sent, and both send their keys', async () => {
    const browser = outer.browser();
    const path = `/inner-counted${inner.path(count)}`;
    const first = await ask(browser, path);
    expect([first.status, first.text, names(first.cookies)]).toEqual([200, '1', ['inner', 'outer']]);
    expect((await ask(browser, path)).text).toBe('2');
    expect((await outer.call(browser, counted)).text).toBe('2');
    expect((await ask(browser, `/inner${inner.path(counted)}`)).text).toBe('2');
  });

  test('law 7: only the one with unsaved changes saves', async () => {
    const browser = outer.browser();
    expect(names((await ask(browser, `/inner-counted${inner.path(() => 'nothing')}`)).cookies)).toEqual(['outer']);
    expect(names((await ask(browser, `/inner${inner.path(count)}`)).cookies)).toEqual(['inner']);
    expect((await outer.call(browser, counted)).text).toBe('1');
    expect((await ask(browser, `/inner${inner.path(counted)}`)).text).toBe('1');
  });

  test('law 7: if one cannot save, its error is sent instead of the response', async () => {
    const browser = outer.browser();
    watched.away('create');
    const answer = await ask(browser, `/inner-counted${inner.sendingPath((tools) => tools.raw.end(count(tools)))}`);
    watched.pass();
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'VISIT_STORE_UNAVAILABLE' });
    expect(names(answer.cookies)).not.toContain('inner');
  });
});
