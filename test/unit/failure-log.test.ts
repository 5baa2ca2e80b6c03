import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openAccess } from '../support/open-access.js';
import { MemoryVisitStore } from 'nest-visit';
import { Logger } from '@nestjs/common';

const lines: string[] = [];

beforeEach(() => {
  lines.length = 0;
  vi.useFakeTimers();
  for (const level of ['error', 'log'] as const)
    vi.spyOn(Logger.prototype, level).mockImplementation((line: string) => void lines.push(line));
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

class Failing extends MemoryVisitStore {
  fails = true;

  override async find(ids: readonly string[]) {
    if (this.fails) throw Object.assign(new Error('secret'), { code: 'ECONNREFUSED' });
    return super.find(ids);
  }
}

test('an outage writes a line at once, one with a count every five seconds, and one at the end', async () => {
  const store = new Failing();
  const access = openAccess(store, 10_000);
  const ask = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const asked = access.find(String(i)).catch(() => {});
      await vi.advanceTimersByTimeAsync(10);
      await asked;
    }
  };
  await ask(130);
  expect(lines).toEqual(['The store failed: Error ECONNREFUSED']);
  await vi.advanceTimersByTimeAsync(5000);
  expect(lines.slice(1)).toEqual(['The store failed 129 times in 5 s, most recently: Error ECONNREFUSED']);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(lines).toHaveLength(2);
  store.fails = false;
  await ask(1);
  await vi.advanceTimersByTimeAsync(5000);
  expect(lines.slice(2)).toEqual(['The store is available again']);
  await vi.advanceTimersByTimeAsync(60_000);
  await ask(100);
  expect(lines).toHaveLength(3);
  store.fails = true;
  await ask(1);
  expect(lines.slice(3)).toEqual(['The store failed: Error ECONNREFUSED']);
  // One answer between failures is not the end of them.
  store.fails = false;
  await ask(1);
  store.fails = true;
  await ask(1);
  await vi.advanceTimersByTimeAsync(65_000);
  expect(lines.slice(4)).toEqual(['The store failed 1 times in 5 s, most recently: Error ECONNREFUSED']);
});

test('R29: an application that closes logs what it has not logged yet, and nothing afterwards', async () => {
  const store = new Failing();
  const access = openAccess(store, 10_000);
  const ask = async (): Promise<void> => {
    const asked = access.find('1').catch(() => {});
    await vi.advanceTimersByTimeAsync(10);
    await asked;
  };
  for (let i = 0; i < 3; i++) await ask();
  access.close();
  expect(lines).toEqual([
    'The store failed: Error ECONNREFUSED',
    'The store failed 2 times in 5 s, most recently: Error ECONNREFUSED',
  ]);
  await ask();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(lines).toHaveLength(2);
  expect(vi.getTimerCount()).toBe(0);
});
