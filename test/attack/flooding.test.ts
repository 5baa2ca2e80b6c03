import { CsrfGuard, ExpungeService, FormTokenService, IdentityService, VisitService } from 'nest-visit';
import { expect, test } from 'vitest';
import { RequestStory } from '../../lib/request/request.story.js';
import { describeStacks, type RunningApp } from '../support/app.js';
import { isSoak } from '../support/soak.js';
import { entriesHeldBy, flood } from './flood.js';
import { Alarm, invented, LATE, target, victimOf } from './target.js';

const MANY = isSoak ? 10_000 : 600;

const request = (method: string, path: string, headers = ''): string =>
  `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n${headers}\r\n`;

const MALFORMED = [
  'x',
  '',
  '0'.repeat(76),
  `${'0'.repeat(32)}.${'A'.repeat(42)}`,
  `${'0'.repeat(32)}.${'+'.repeat(43)}`,
  "' OR 1=1 --",
];

/** What an application keeps in its memory: each part of the library is held by one of these. */
const partsOf = ({ app }: RunningApp): object[] =>
  [RequestStory, VisitService, IdentityService, FormTokenService, CsrfGuard, ExpungeService].map((part) =>
    app.get<object>(part),
  );

describeStacks(
  'Floods',
  (stack) => {
    /** What these requests leave behind. */
    async function outcomeOf(app: RunningApp, requestOf: (index: number) => string) {
      const { refused } = app.app.get(Alarm);
      const before = {
        rows: (await stack.rows()).length,
        entries: entriesHeldBy(partsOf(app)),
        refused: refused.length,
      };
      let report: Awaited<ReturnType<typeof flood>> | undefined;
      const sql = await stack.statements(async () => {
        report = await flood(app.address, MANY, requestOf);
      });
      return {
        statuses: [...report!.statuses],
        hasCookie: report!.hasCookie,
        queries: sql.length,
        rows: (await stack.rows()).length - before.rows,
        entries: entriesHeldBy(partsOf(app)) - before.entries,
        told: refused.length - before.refused,
      };
    }
    const nothing = { hasCookie: false, queries: 0, rows: 0, entries: 0, told: 0 };

    test('S3, B35, R9: many malformed keys cause no query, no row and no entry in memory', async () => {
      const app = await stack.start(target);
      const ask = (index: number): string =>
        request('GET', '/me', `Cookie: visit=${MALFORMED[index % MALFORMED.length]}\r\n`);
      expect(await outcomeOf(app, ask)).toEqual({ ...nothing, statuses: [[200, MANY]] });
    });

    test('A5, S2, S10, B35: many forged keys create no row, share queries, and are all reported', async () => {
      const app = await stack.start(target, { creation: 'immediate' });
      const { browser } = await victimOf(app);
      stack.clock.advance(LATE);
      await browser.get('/me');
      const id = browser.jar.get('visit')!.slice(0, 32);
      const ask = (index: number): string =>
        request(
          'GET',
          '/me',
          `Cookie: visit=${index % 2 ? invented(index) : `${id}.${String(index).padStart(43, 'A')}`}\r\n`,
        );
      const { queries, ...rest } = await outcomeOf(app, ask);
      expect(rest).toEqual({ hasCookie: false, rows: 0, entries: 0, told: MANY, statuses: [[200, MANY]] });
      expect(queries).toBeGreaterThan(0);
      expect(queries).toBeLessThan(MANY / 4);
      expect(
        app.app
          .get(Alarm)
          .refused.every(({ reason, remoteAddress }) => reason === 'forged' && remoteAddress === '127.0.0.1'),
      ).toBe(true);
      expect((await browser.get('/secret')).status).toBe(200);
    });

    test('ASVS 7.6.2, B35, R35: many visitors without cookies cause no query and no row', async () => {
      const app = await stack.start(target);
      expect(await outcomeOf(app, () => request('GET', '/me'))).toEqual({ ...nothing, statuses: [[200, MANY]] });
    });

    test('B35: neither do sign-outs of anonymous visitors, or denied requests', async () => {
      const app = await stack.start(target);
      const asks = [
        request('POST', '/logout'),
        request('GET', '/secret'),
        request('GET', '/nowhere'),
        request('DELETE', '/visits/0'),
      ];
      const { statuses, hasCookie: _, ...rest } = await outcomeOf(app, (index) => asks[index % asks.length]!);
      expect(new Map(statuses)).toEqual(new Map([201, 401, 404, 200].map((status) => [status, MANY / asks.length])));
      // Whoever signs out without a visit may have an old cookie, which goes.
      expect({ hasCookie: false, ...rest }).toEqual(nothing);
    });
  },
  ['sqlite'],
);
