import { VisitService } from 'nest-visit';
import { expect, test } from 'vitest';
import { describeStacks } from '../support/app.js';
import type { Answer } from '../support/browser.js';
import { isSoak } from '../support/soak.js';
import { idOf, nobody, target, victimOf } from './target.js';

const SAMPLES = isSoak ? 150 : 30;

const median = (values: readonly number[]): number =>
  values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)]!;

/**
 * How likely one of the first takes longer than one of the others: 0.5 if it tells nothing (the U of Mann and Whitney,
 * as a share).
 */
function advantage(first: readonly number[], others: readonly number[]): number {
  let wins = 0;
  for (const one of first) for (const other of others) wins += one > other ? 1 : one === other ? 0.5 : 0;
  return wins / (first.length * others.length);
}

/** All of it but what differs between any two answers. */
const shapeOf = ({ status, headers, text, cookies }: Answer): unknown => ({
  status,
  text,
  cookies: cookies.length,
  headers: [...headers].filter(([name]) => name !== 'date'),
});

describeStacks('Timing', (stack) => {
  test('S2, S10: a wrong secret of an existing visit and an unknown id take the same path', async () => {
    const app = await stack.start(target);
    const { browser } = await victimOf(app);
    const { visit } = await app.app.get(VisitService).create({ userId: 'found' });
    stack.clock.advance(60_000);
    const secret = 'A'.repeat(43);
    const unknown = `visit=${'0'.repeat(32)}.${secret}`;
    const wrong = [visit.id, idOf(browser)].map((id) => `visit=${id}.${secret}`);
    for (const path of ['/me', '/secret']) {
      const seen = [];
      for (const cookie of [unknown, ...wrong]) {
        let answer: unknown;
        const sql = await stack.statements(async () => {
          answer = shapeOf(await app.browser().get(path, { cookie }));
        });
        seen.push({ sql, answer });
      }
      expect(seen[0]!.sql).toHaveLength(1);
      expect(seen[1]).toEqual(seen[0]);
      expect(seen[2]).toEqual(seen[0]);
    }
    const texts = await Promise.all(
      [unknown, ...wrong].map(async (cookie) => (await app.browser().get('/me', { cookie })).text),
    );
    expect(texts.map((text) => JSON.parse(text) as unknown)).toEqual([nobody, nobody, nobody]);

    // A report for who reads the run. Nothing is expected of it: times are the machine's.
    const times: [number[], number[]] = [[], []];
    const client = app.browser();
    for (let index = 0; index < SAMPLES * 2; index++) {
      const cookie = index % 2 === 0 ? unknown : wrong[0]!;
      const begin = performance.now();
      await client.get('/me', { cookie });
      times[index % 2]!.push(performance.now() - begin);
    }
    const [ofUnknown, ofWrong] = times;
    console.info(
      `timing on ${stack.database} under ${stack.platform}, ${SAMPLES} requests each: unknown id ` +
        `${median(ofUnknown).toFixed(3)} ms, ` +
        `wrong secret ${median(ofWrong).toFixed(3)} ms; who guesses by time is right in ` +
        `${(100 * advantage(ofWrong, ofUnknown)).toFixed(1)} % of pairs, 50 % is chance`,
    );
  });
});
