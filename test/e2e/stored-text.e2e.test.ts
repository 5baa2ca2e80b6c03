import { MemoryVisitStore, VisitService } from 'nest-visit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeStacks, platforms } from '../support/app.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { ofToday } from '../support/today.js';
import { WatchedStore } from '../support/watched-store.js';

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error);

/** What no store can keep as it is. */
const BROKEN = {
  'half of a pair': 'bob\ud800',
  'the other half': 'bob\udfff',
  'a pair in reverse': '\udc00\ud800',
  'a NUL': 'a\0b',
  nothing: '',
};
const NO_USER_IDS: Record<string, unknown> = {
  ...BROKEN,
  'too much': 'x'.repeat(256),
  'a fraction': 1.5,
  null: null,
  'an object': {},
  '2^53': 2 ** 53,
};
const NO_REASONS: Record<string, unknown> = {
  ...BROKEN,
  'too much': 'x'.repeat(33),
  'a number': 1,
  null: null,
  'an object': {},
};

/** All that take a user id. */
const withUserId: Record<string, (tools: Tools, userId: any) => Promise<unknown>> = {
  login: ({ identity }, userId) => identity.login(userId),
  'visits.create': ({ visits }, userId) => visits.create({ userId }),
  'visits.listForUser': ({ visits }, userId) => visits.listForUser(userId),
  'visits.endAllForUser': ({ visits }, userId) => visits.endAllForUser(userId),
  'visits.end of a user': ({ visits }, userId) => visits.end('0'.repeat(32), 'revoked', { userId }),
};

/** All that take a reason. */
const withReason: Record<string, (tools: Tools, reason: any) => Promise<unknown>> = {
  'visits.end of this one': ({ visits }, reason) => visits.end(undefined, reason),
  'visits.end of another': ({ visits }, reason) => visits.end('0'.repeat(32), reason, { anyUser: true }),
  'visits.endOthers': ({ visits }, reason) => visits.endOthers(reason),
  'visits.endAllForUser': ({ visits }, reason) => visits.endAllForUser('ann', reason),
  'visits.endAll': ({ visits }, reason) => visits.endAll(reason),
};

describe.each(ofToday(platforms, 0))('B60, B61: text that cannot be stored unchanged, under %s', (platform) => {
  const watched = new WatchedStore(new MemoryVisitStore());
  let app: InlineApp;
  beforeAll(async () => {
    app = await InlineApp.start(platform, { store: watched.store });
  });
  afterAll(() => app.close());

  const table = (calls: typeof withUserId, texts: Record<string, unknown>, code: string) =>
    Object.keys(calls).flatMap((call) =>
      Object.entries(texts).map(([name, text]) => ({ call, name, text, code, make: calls[call]! })),
    );

  test.each([...table(withUserId, NO_USER_IDS, 'VISIT_USER_ID'), ...table(withReason, NO_REASONS, 'VISIT_END_REASON')])(
    '$call with $name is refused with $code, and the store is not called',
    async ({ make, text, code }) => {
      const browser = app.browser();
      await app.ask(browser, ({ identity }) => identity.login('ann'));
      const outcome = await app.ask(browser, async (tools) => {
        watched.calls.length = 0;
        const error = await make(tools, text).then(() => 'nothing', codeOf);
        return { error, calls: [...watched.calls] };
      });
      expect(outcome).toEqual({ error: code, calls: [] });
      expect(await app.ask(browser, ({ identity }) => identity.userId)).toBe('ann');
    },
  );

  test('is refused outside of requests, too', async () => {
    const visits = app.running.app.get(VisitService);
    await expect(visits.endAllForUser('ann', 'x'.repeat(33))).rejects.toMatchObject({ code: 'VISIT_END_REASON' });
    await expect(visits.create({ userId: 'bob\ud800' })).rejects.toMatchObject({ code: 'VISIT_USER_ID' });
  });
});

describeStacks('B60, B61: text at the limit of what can be stored', (stack) => {
  const parts = InlineApp.parts();
  const start = async () => InlineApp.of(await stack.start(parts));

  test('user ids are stored unchanged, and never confused', async () => {
    const app = await start();
    const ids = [
      '1',
      '01',
      '1 ',
      'б',
      'b',
      'а',
      'a',
      'A',
      'ä',
      'a\u0308',
      'ß',
      'ss',
      'İ',
      'i',
      '😀',
      '😎',
      '😀'.repeat(255),
    ];
    ids.push('\ufffd', "o'brien\\", '\\\'; DROP TABLE visit; -- "', '%', '_', '`', '\\', '\\\\', '\n', '\x1a');
    const family = `${stack.platform} `;
    const named = ids.map((id) => (id.length > 500 ? id : family + id));
    for (const id of named) {
      const browser = app.browser();
      await app.ask(browser, ({ identity }) => identity.login(id));
      expect(await app.ask(browser, ({ identity }) => identity.userId)).toBe(id);
    }
    const visits = app.running.app.get(VisitService);
    for (const id of named) expect((await visits.listForUser(id)).map(({ userId }) => userId)).toEqual([id]);
    for (const id of named) expect(await visits.endAllForUser(id, 'gone')).toBe(1);
  });

  test('a reason of any 32 characters is stored', async () => {
    const app = await start();
    for (const reason of ['x'.repeat(32), '😀'.repeat(32), "it's \\over"]) {
      const browser = app.browser();
      const visits = app.running.app.get(VisitService);
      const id = await app.ask(browser, async ({ identity }) => {
        await identity.login(`${stack.platform} bob`);
        return visits.current().id;
      });
      expect(await visits.end(id, reason, { anyUser: true })).toBe(true);
      expect((await visits.find(id))?.endReason).toBe(reason);
    }
  });
});
