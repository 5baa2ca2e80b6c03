import { describe, expect, test } from 'vitest';
import { Batcher } from '../../lib/store/batching/batcher.js';

describe('A batcher', () => {
  test('asks all questions of one turn together, and answers each', async () => {
    const batches: number[][] = [];
    const batcher = new Batcher(
      async (questions: readonly number[]) => {
        batches.push([...questions]);
        return questions.map((n) => n * 2);
      },
      { most: 10, inFlight: 2 },
    );
    expect(await Promise.all([1, 2, 3].map((n) => batcher.load(n)))).toEqual([2, 4, 6]);
    expect(batches).toEqual([[1, 2, 3]]);
  });

  test('no answer is older than its question: who comes after a batch has left waits for the next', async () => {
    let value = 'old';
    const release: (() => void)[] = [];
    const batcher = new Batcher(
      async (questions: readonly number[]) => {
        const seen = value;
        await new Promise<void>((resolve) => release.push(resolve));
        return questions.map(() => seen);
      },
      { most: 10, inFlight: 1 },
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

  test('bounds what is under way and what goes into one batch', async () => {
    let underWay = 0;
    let most = 0;
    const sizes: number[] = [];
    const batcher = new Batcher(
      async (questions: readonly number[]) => {
        most = Math.max(most, ++underWay);
        sizes.push(questions.length);
        await new Promise(setImmediate);
        underWay--;
        return questions;
      },
      { most: 10, inFlight: 2 },
    );
    const answers = await Promise.all(Array.from({ length: 95 }, (_, n) => batcher.load(n)));
    expect(answers).toEqual(Array.from({ length: 95 }, (_, n) => n));
    expect(most).toBe(2);
    expect(Math.max(...sizes)).toBe(10);
  });

  test('a failure is told to all of its batch, and the next batch is asked as ever', async () => {
    let fail = true;
    const batcher = new Batcher(
      async (questions: readonly number[]) => {
        if (fail) throw new Error('away');
        return questions;
      },
      { most: 10, inFlight: 1 },
    );
    const results = await Promise.allSettled([1, 2].map((n) => batcher.load(n)));
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    fail = false;
    expect(await batcher.load(3)).toBe(3);
  });
});
