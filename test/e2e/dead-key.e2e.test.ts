import { Controller, Get } from '@nestjs/common';
import { ExclusiveSession, IdentityService, Session } from 'nest-visit';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { platforms } from '../support/app.js';
import type { Browser } from '../support/browser.js';
import { InlineApp, type Tools } from '../support/inline-handlers.js';
import { WatchedStore } from '../support/watched-store.js';

/** What a request with a dead key has been shown of the session. */
const seen: unknown[] = [];
const see = (value: unknown): unknown => (seen.push(value), value);

@Controller()
class Alone {
  constructor(private readonly identity: IdentityService) {}

  @Get('alone')
  @ExclusiveSession()
  alone(@Session() session: Session) {
    see(session.get('secret'));
    return { user: this.identity.userId };
  }
}

/** What a request does when its key has died meanwhile. */
const acts: Record<string, (session: Session) => Promise<unknown>> = {
  'save()': (session) => {
    session.set('note', 1);
    return session.save();
  },
  'update()': (session) => session.update('secret', see),
  'take()': (session) => session.take('cart'),
  'reload()': (session) => session.reload(),
};

/** What makes a key die, and leaves the session to whoever has the next one. */
const changes: Record<string, (tools: Tools) => Promise<void>> = {
  'a sign-in': ({ identity }) => identity.login('ann'),
  'a sign-out': ({ identity }) => identity.logout({ keepVisit: true }),
  'a new proof of identity': ({ identity }) => identity.reauthenticate(),
};

const signal = () => {
  let give!: () => void;
  const given = new Promise<void>((resolve) => (give = resolve));
  return { give, given };
};

describe.each(platforms)('Laws 1 and 4: a request whose key becomes invalid while it runs, under %s', (platform) => {
  const watched = new WatchedStore();
  let app: InlineApp;
  beforeAll(async () => {
    app = await InlineApp.start(platform, { store: watched.store }, { controllers: [Alone] });
  });
  afterAll(() => app.close());
  afterEach(() => {
    watched.pass();
    seen.length = 0;
  });

  /** Two browsers with the key of one visit: of somebody who is signed in, unless the change is a sign-in. */
  const begun = async (change: string): Promise<[owner: Browser, other: Browser]> => {
    const owner = app.browser();
    await app.ask(owner, async ({ session, identity }) => {
      if (change !== 'a sign-in') await identity.login('bea');
      session.set('cart', 1);
    });
    return [owner, owner.clone()];
  };

  describe.each(Object.keys(changes))('by %s', (change) => {
    test.each(Object.keys(acts))(
      'is refused, and sees nothing of the newer session, though it waits for the save of that session: %s',
      async (act) => {
        const [owner, other] = await begun(change);
        const [inside, enter, called] = [signal(), signal(), signal()];
        const late = app.ask(other, async ({ session }) => {
          session.get('cart');
          inside.give();
          await enter.given;
          const done = acts[act]!(session);
          called.give();
          const refusal = await done.then(
            () => 'done',
            (error: { code: string }) => error.code,
          );
          session.revert();
          see(session.get('secret'));
          return refusal;
        });
        await inside.given;
        const { held, release } = watched.hold('save');
        const changing = app.ask(owner, async (tools) => {
          await changes[change]!(tools);
          tools.session.set('secret', 'of the new key');
        });
        await held;
        enter.give();
        await called.given;
        release();
        await changing;
        expect(await late).toBe('VISIT_KEY_RETIRED');
        expect(seen.filter((value) => value !== undefined)).toEqual([]);
        expect(await app.ask(owner, ({ session }) => session.get('secret'))).toBe('of the new key');
      },
    );

    test('is refused, and sees nothing of the newer session, in spite of @ExclusiveSession()', async () => {
      const [owner, other] = await begun(change);
      const [locked, go] = [signal(), signal()];
      watched.around = async ({ method }, call) => {
        const result = await call();
        if (method !== 'lock') return result;
        locked.give();
        await go.given;
        return result;
      };
      const late = other.get('/alone');
      await locked.given;
      await app.ask(owner, async (tools) => {
        await changes[change]!(tools);
        tools.session.set('secret', 'of the new key');
      });
      go.give();
      const answer = await late;
      expect([answer.status, (JSON.parse(answer.text) as { code: string }).code]).toEqual([409, 'VISIT_KEY_RETIRED']);
      expect(seen).toEqual([]);
    });
  });
});
