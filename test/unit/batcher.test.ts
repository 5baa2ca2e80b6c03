import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { Asking } from '../../lib/store/ask-each.js';
import { Batcher } from '../../lib/store/batching/batcher.js';

/** Groups fail as they are, as while the store is away. */
const asking = <Q, A>(ask: (questions: readonly Q[]) => Promise<readonly A[]>): Asking<Q, A> => ({
  ask,
  probe: () => Promise.reject(new Error('away')),
});

const LIMITS = { deadline: 60_000, explain: (error: unknown) => error };

describe('A batcher', () => {
  test('sends all questions of one turn together, and answers each', async () => {
    const batches: number[][] = [];
    const batcher = new Batcher(
      asking(async (questions: readonly number[]) => {
        batches.push([...questions]);
        return questions.map((n) => n * 2);
      }),
      { most: 10, inFlight: 2, ...LIMITS },
    );
    expect(await Promise.all([1, 2, 3].map((n) => batcher.load(n)))).toEqual([2, 4, 6]);
    expect(batches).toEqual([[1, 2, 3]]);
  });

  test('no answer is older than its question: later questions wait for the next batch', async () => {
    let value = 'old';
    const release: (() => void)[] = [];
    const batcher = new Batcher(
      asking(async (questions: readonly number[]) => {
        const seen = value;
        await new Promise<void>((resolve) => release.push(resolve));
        return questions.map(() => seen);
      }),
      { most: 10, inFlight: 1, ...LIMITS },
    );
    const first = batcher.load(1);
    await new Promise(setImmediate);
    value = 'new';
    const second = batcher.load(1);
    release.shift()!();
    expect(await first).toBe('old');
    while (release.length === 0) await new Promise(setImmediate);
    release.shift()!();
    expect(await second).toBe('new');
  });

  test('limits the number of concurrent batches and the size of a batch', async () => {
    let underWay = 0;
    let most = 0;
    const sizes: number[] = [];
    const batcher = new Batcher(
      asking(async (questions: readonly number[]) => {
        most = Math.max(most, ++underWay);
        sizes.push(questions.length);
        await new Promise(setImmediate);
        underWay--;
        return questions;
      }),
      { most: 10, inFlight: 2, ...LIMITS },
    );
    const answers = await Promise.all(Array.from({ length: 95 }, (_, n) => batcher.load(n)));
    expect(answers).toEqual(Array.from({ length: 95 }, (_, n) => n));
    expect(most).toBe(2);
    expect(Math.max(...sizes)).toBe(10);
  });

  test('a batch that no caller waits for any more is not counted', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    let hangs = true;
    const batcher = new Batcher(
      asking((questions: readonly number[]) => (hangs ? new Promise<number[]>(() => {}) : Promise.resolve(questions))),
      {
        most: 10,
        inFlight: 1,
        ...LIMITS,
      },
    );
    const lost = batcher.load(1).catch(String);
    await new Promise(setImmediate);
    vi.advanceTimersByTime(LIMITS.deadline / 2);
    hangs = false;
    const waiting = batcher.load(2);
    vi.advanceTimersByTime(LIMITS.deadline / 2 + 1);
    expect(await lost).toContain('no answer within');
    expect(await waiting).toBe(2);
    expect(await batcher.load(3)).toBe(3);
  });

  test('a failure is reported to all of its batch, and the next batch is sent as usual', async () => {
    let fail = true;
    const batcher = new Batcher(
      asking(async (questions: readonly number[]) => {
        if (fail) throw new Error('away');
        return questions;
      }),
      { most: 10, inFlight: 1, ...LIMITS },
    );
    const results = await Promise.allSettled([1, 2].map((n) => batcher.load(n)));
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    fail = false;
    expect(await batcher.load(3)).toBe(3);
  });

  test('R28: no caller waits longer than the deadline; each error is explained once', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'performance'] });
    const explained: string[] = [];
    const batcher = new Batcher<number, number>(
      asking(() => new Promise(() => {})),
      {
        most: 2,
        inFlight: 1,
        deadline: 1000,
        explain: (error) => {
          explained.push((error as Error).message);
          return error;
        },
      },
    );
    const outcomes: string[] = [];
    const ask = (n: number): void => void batcher.load(n).catch(() => outcomes.push(`${n} at ${performance.now()}`));
    try {
      const start = performance.now();
      for (const n of [1, 2, 3]) ask(n);
      await new Promise(setImmediate);
      await vi.advanceTimersByTimeAsync(600);
      ask(4);
      await vi.advanceTimersByTimeAsync(399);
      expect(outcomes).toEqual([]);
      await vi.advanceTimersByTimeAsync(1);
      expect(outcomes).toEqual([1, 2, 3].map((n) => `${n} at ${start + 1000}`));
      await vi.advanceTimersByTimeAsync(600);
      expect(outcomes.at(-1)).toBe(`4 at ${start + 1600}`);
      expect(explained).toEqual(Array(2).fill('there was no answer within 1000 ms'));
      await vi.advanceTimersByTimeAsync(60_000);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});
