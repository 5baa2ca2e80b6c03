import { Logger } from '@nestjs/common';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { TouchQueue } from '../../lib/visit/touch.queue.js';
import type { Touch } from '../../lib/store/visit.store.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const touch = (id: string, expiry: number): Touch => ({ id, accessed: expiry - 1, expiry });

function queue(interval = 30_000) {
  const batches: (readonly Touch[])[] = [];
  let answer: () => Promise<void> = async () => {};
  const store = { touch: (touches: readonly Touch[]) => (batches.push(touches), answer()) };
  return {
    queue: new TouchQueue(store, interval, 10_000),
    batches,
    answerWith: (next: () => Promise<void>) => (answer = next),
  };
}

describe('The touch queue', () => {
  test('R26: collects one update per visit and writes them after the interval', async () => {
    const { queue: touches, batches } = queue();
    touches.add(touch('a', 10));
    touches.add(touch('a', 20));
    touches.add(touch('b', 5));
    touches.add(touch('a', 15));
    await vi.advanceTimersByTimeAsync(29_999);
    expect(batches).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(batches).toEqual([[touch('a', 20), touch('b', 5)]]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(batches).toHaveLength(1);
  });

  test('R27: updates that wait or are being written count', async () => {
    const { queue: touches, answerWith } = queue();
    let done!: () => void;
    answerWith(() => new Promise((resolve) => (done = resolve)));
    touches.add(touch('a', 10));
    expect(touches.waiting('a')).toBe(10);
    const flushing = touches.flush();
    await vi.advanceTimersByTimeAsync(0);
    expect(touches.waiting('a')).toBe(10);
    touches.add(touch('a', 30));
    expect(touches.waiting('a')).toBe(30);
    done();
    await flushing;
    expect(touches.waiting('a')).toBe(30);
  });

  test('R28, B21: a failed write is retried, without overwriting newer values', async () => {
    const { queue: touches, batches, answerWith } = queue();
    answerWith(() => Promise.reject(new Error('deadlock')));
    touches.add(touch('a', 10));
    touches.add(touch('b', 10));
    const flushing = touches.flush();
    await vi.advanceTimersByTimeAsync(0);
    touches.add(touch('a', 20));
    await flushing;
    answerWith(async () => {});
    await vi.advanceTimersByTimeAsync(30_000);
    expect(batches[1]).toEqual(expect.arrayContaining([touch('a', 20), touch('b', 10)]));
  });

  test('R28: updates during a write that takes longer than the interval are written after it', async () => {
    const { queue: touches, batches, answerWith } = queue(5000);
    answerWith(() => new Promise((resolve) => setTimeout(resolve, 8000)));
    touches.add(touch('a', 10));
    void touches.flush();
    await vi.advanceTimersByTimeAsync(0);
    touches.add(touch('b', 10));
    await vi.advanceTimersByTimeAsync(8000);
    answerWith(async () => {});
    await vi.advanceTimersByTimeAsync(5000);
    expect(batches).toEqual([[touch('a', 10)], [touch('b', 10)]]);
  });

  test('R28: memory is bounded while the database is unavailable', async () => {
    const { queue: touches, batches, answerWith } = queue();
    answerWith(() => Promise.reject(new Error('away')));
    for (let i = 0; i < 101_000; i++) touches.add(touch(String(i), i));
    // What could not be written is as new as what comes next.
    await touches.flush();
    for (let i = 101_000; i < 102_000; i++) touches.add(touch(String(i), i));
    answerWith(async () => {});
    const failed = batches.slice();
    await touches.flush();
    const written = new Set(batches.slice(failed.length).flatMap((batch) => batch.map(({ id }) => Number(id))));
    expect(written.size).toBe(100_000);
    const tried = failed.flat().length;
    const dropped = Array.from({ length: 102_000 }, (_, i) => i).filter((i) => !written.has(i));
    expect(dropped).toEqual(Array.from({ length: 2000 }, (_, i) => (i < 1000 ? i : i + tried)));
  });

  test('R28: updates are written in batches with their own deadlines; completed ones are not repeated', async () => {
    const { queue: touches, batches, answerWith } = queue();
    for (let i = 0; i < 1200; i++) touches.add(touch(String(i), 10));
    // All of them take longer than the deadline of one call.
    answerWith(() => new Promise((resolve) => setTimeout(resolve, 9000)));
    const flushing = touches.flush();
    await vi.advanceTimersByTimeAsync(27_000);
    await flushing;
    expect(batches.map(({ length }) => length)).toEqual([500, 500, 200]);
    expect(touches.waiting('0')).toBeUndefined();
  });

  test('R28: of several servers, one that is unavailable or hangs does not delay the others', async () => {
    const written = new Map<string, number>();
    let isAway = true;
    const store = {
      server: { isDivided: true },
      touch: async ([one]: readonly Touch[]) => {
        const { id, expiry } = one!;
        if (isAway && id.startsWith('away')) throw new Error('away');
        if (isAway && id.startsWith('still')) await new Promise(() => {});
        written.set(id, expiry);
      },
    };
    const touches = new TouchQueue(store, 30_000, 1000);
    const lost = ['away', 'still'].map((id) => touch(`${id} 0`, 1));
    for (const one of lost) touches.add(one);
    // More than one batch.
    const others = Array.from({ length: 1200 }, (_, index) => touch(`there ${index}`, index));
    for (const [index, one] of others.entries()) {
      touches.add(one);
      if (index % 4 === 0) touches.add(touch(`away ${index}`, index));
    }
    const flushing = touches.flush();
    await vi.advanceTimersByTimeAsync(10_000);
    await flushing;
    expect(written).toEqual(new Map(others.map(({ id, expiry }) => [id, expiry])));
    expect(lost.map(({ id }) => touches.waiting(id))).toEqual([1, 1]);
    isAway = false;
    await vi.advanceTimersByTimeAsync(30_000);
    expect(lost.map(({ id }) => written.get(id))).toEqual([1, 1]);
    expect(lost.map(({ id }) => touches.waiting(id))).toEqual([undefined, undefined]);
  });

  test('R28: a slow batch that was written late is not written again, and the next batches are smaller', async () => {
    const { queue: touches, batches, answerWith } = queue();
    for (let i = 0; i < 1000; i++) touches.add(touch(String(i), 10));
    answerWith(() => new Promise((resolve) => setTimeout(resolve, 15_000)));
    const flushing = touches.flush();
    await vi.advanceTimersByTimeAsync(10_000);
    await flushing;
    expect(batches.map(({ length }) => length)).toEqual([500]);
    expect(touches.waiting('0')).toBe(10);
    touches.add(touch('1', 20));
    await vi.advanceTimersByTimeAsync(5000);
    // But for what is newer.
    expect([touches.waiting('0'), touches.waiting('1')]).toEqual([undefined, 20]);
    answerWith(async () => {});
    await touches.flush();
    expect(batches.slice(1).map(({ length }) => length)).toEqual([250, 251]);
  });

  test('R27, B62: urgent updates are awaited, with all others in a batch, unless writes fail', async () => {
    const { queue: touches, batches, answerWith } = queue();
    for (let i = 0; i < 700; i++) touches.add(touch(String(i), 10));
    const [one, other] = [touches.addNow(touch('a', 10)), touches.addNow(touch('b', 10))];
    await one;
    await other;
    expect(batches).toHaveLength(1);
    expect(batches[0]!.slice(0, 2).map(({ id }) => id)).toEqual(['a', 'b']);
    expect(batches[0]).toHaveLength(500);
    answerWith(() => Promise.reject(new Error('away')));
    await touches.addNow(touch('c', 10));
    expect(touches.addNow(touch('d', 10))).toBeUndefined();
    answerWith(async () => {});
    await vi.advanceTimersByTimeAsync(30_000);
    expect(
      new Set(
        batches
          .slice(2)
          .flat()
          .map(({ id }) => id),
      ).size,
    ).toBe(204);
    const again = touches.addNow(touch('e', 10));
    expect(again).toBeInstanceOf(Promise);
    await again;
    expect(batches.at(-1)).toEqual([touch('e', 10)]);
  });

  test('R29: closing waits for a hanging store for a limited time, and logs what is lost', async () => {
    const { queue: touches, answerWith } = queue();
    answerWith(() => new Promise(() => {}));
    const said = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => said.mockRestore());
    touches.add(touch('a', 10));
    const closing = touches.close();
    await vi.advanceTimersByTimeAsync(2000);
    await closing;
    expect(said.mock.calls.flat()).toEqual([expect.stringContaining('1 expiry updates could not be written')]);
    await touches.close();
  });

  test('R31: an ended visit is forgotten', async () => {
    const { queue: touches, batches } = queue();
    touches.add(touch('a', 10));
    touches.forget('a');
    await touches.flush();
    expect(batches).toEqual([]);
  });

  test('R29: after close, updates are written immediately', async () => {
    const { queue: touches, batches } = queue();
    touches.add(touch('a', 10));
    await touches.close();
    touches.add(touch('b', 10));
    await touches.flush();
    expect(batches).toEqual([[touch('a', 10)], [touch('b', 10)]]);
  });
});
