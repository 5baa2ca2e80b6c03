import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { TouchQueue } from '../../lib/visit/touch.queue.js';
import type { Touch } from '../../lib/store/visit.store.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const touch = (id: string, expiry: number): Touch => ({ id, accessed: expiry - 1, expiry });

function queue() {
  const batches: (readonly Touch[])[] = [];
  let answer: () => Promise<void> = async () => {};
  const store = { touch: (touches: readonly Touch[]) => (batches.push(touches), answer()) };
  return { queue: new TouchQueue(store, 30_000, 10_000), batches, answerWith: (next: () => Promise<void>) => (answer = next) };
}

describe('The touch queue', () => {
  test('R26: gathers one update per visit and writes them after the interval', async () => {
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

  test('R27: what waits, or is on its way, counts', async () => {
    const { queue: touches, answerWith } = queue();
    let done!: () => void;
    answerWith(() => new Promise((resolve) => (done = resolve)));
    touches.add(touch('a', 10));
    expect(touches.waiting('a')).toBe(10);
    const flushing = touches.flush();
    expect(touches.waiting('a')).toBe(10);
    touches.add(touch('a', 30));
    expect(touches.waiting('a')).toBe(30);
    done();
    await flushing;
    expect(touches.waiting('a')).toBe(30);
  });

  test('R28, B21: a failed write is tried again, without overwriting what is newer', async () => {
    const { queue: touches, batches, answerWith } = queue();
    answerWith(() => Promise.reject(new Error('deadlock')));
    touches.add(touch('a', 10));
    touches.add(touch('b', 10));
    const flushing = touches.flush();
    touches.add(touch('a', 20));
    await flushing;
    answerWith(async () => {});
    await vi.advanceTimersByTimeAsync(30_000);
    expect(batches[1]).toEqual(expect.arrayContaining([touch('a', 20), touch('b', 10)]));
  });

  test('R28: memory is bounded while the database is away', async () => {
    const { queue: touches, batches, answerWith } = queue();
    answerWith(() => Promise.reject(new Error('away')));
    for (let i = 0; i < 150_000; i++) touches.add(touch(String(i), i));
    await touches.flush();
    answerWith(async () => {});
    await touches.flush();
    expect(batches.at(-1)).toHaveLength(100_000);
    expect(batches.at(-1)!.at(-1)!.id).toBe('149999');
  });

  test('R31: an ended visit is forgotten', async () => {
    const { queue: touches, batches } = queue();
    touches.add(touch('a', 10));
    touches.forget('a');
    await touches.flush();
    expect(batches).toEqual([]);
  });

  test('R29: after close everything is written at once', async () => {
    const { queue: touches, batches } = queue();
    touches.add(touch('a', 10));
    await touches.close();
    touches.add(touch('b', 10));
    await touches.flush();
    expect(batches).toEqual([[touch('a', 10)], [touch('b', 10)]]);
  });
});
