import { syncBuiltinESMExports } from 'node:module';
import timers from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { VisitStoreUnavailableError } from 'nest-visit';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { StoreAccess } from '../../lib/store/store-access.js';
import { openAccess } from '../support/open-access.js';
import { newVisit, NOW, rekeyOf } from '../../lib/testing/samples.js';
import { PATIENCE } from '../support/patience.js';
import { WatchedStore, type Method } from '../support/watched-store.js';

Logger.overrideLogger(false);

/** As drivers and sockets say it. */
const BREAKS: readonly (() => Error)[] = [
  () => Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }),
  () =>
    Object.assign(new Error('Connection lost: The server closed the connection.'), {
      code: 'PROTOCOL_CONNECTION_LOST',
    }),
  () => new Error('Connection terminated unexpectedly'),
  () => new Error('Socket closed unexpectedly'),
  () => new Error('there is no connection to Redis'),
  () => new Error('The client is offline'),
  () => Object.assign(new Error('the database system is starting up'), { code: '57P03' }),
];

describe('A write whose answer was lost', () => {
  let watched: WatchedStore;
  let access: StoreAccess;
  const visit = newVisit();
  const count = (method: Method): number => watched.calls.filter((call) => call === method).length;
  // Nobody waits for a pause between two look-ups: what counts is how long it would be.
  let pauses: unknown[];
  beforeEach(() => {
    pauses = [];
    vi.spyOn(timers, 'setTimeout').mockImplementation(async (milliseconds, value) => {
      pauses.push(milliseconds);
      return value;
    });
    syncBuiltinESMExports();
  });
  afterEach(() => {
    vi.mocked(timers.setTimeout).mockRestore();
    syncBuiltinESMExports();
  });
  beforeEach(async () => {
    watched = new WatchedStore();
    access = openAccess(watched.store, PATIENCE);
    await watched.inner.create([visit]);
  });

  /** The first calls of a method fail, before they are done or after it. */
  function fail(plan: Partial<Record<Method, { often: number; after?: boolean }>>, makeError: () => Error): void {
    const left = new Map(Object.entries(plan).map(([method, { often }]) => [method, often]));
    watched.around = async ({ method }, go) => {
      const often = left.get(method) ?? 0;
      if (often === 0) return go();
      left.set(method, often - 1);
      if (plan[method]!.after) await go();
      throw makeError();
    };
  }

  test.each(BREAKS.map((makeError) => [makeError().message, makeError] as const))(
    'B81: is looked up when the store can be reached again: %s',
    async (_, makeError) => {
      fail({ rekey: { often: 1, after: true }, find: { often: 3 } }, makeError);
      expect(await access.rekey(rekeyOf(visit))).toEqual({ outcome: 'done' });
      fail({ end: { often: 1, after: true }, find: { often: 3 } }, makeError);
      expect(await access.end([visit.id], { reason: 'x', at: NOW })).toEqual([visit.id]);
      expect([count('rekey'), count('end')]).toEqual([1, 1]);
      expect(pauses).toEqual([25, 50, 100, 25, 50, 100]);
    },
  );

  test('B81: is repeated each time that its connection breaks, and once if the store fails', async () => {
    fail({ rekey: { often: 4 } }, BREAKS[0]!);
    expect(await access.rekey(rekeyOf(visit))).toEqual({ outcome: 'done' });
    expect(count('rekey')).toBe(5);
    fail({ end: { often: Infinity } }, () => new Error('the disk is full'));
    await expect(access.end([visit.id], { reason: 'x', at: NOW })).rejects.toThrow(VisitStoreUnavailableError);
    expect(count('end')).toBe(2);
  });

  test('is not repeated if the store fails in another way', async () => {
    fail({ rekey: { often: 1 }, find: { often: 1 } }, () => new Error('the store is broken'));
    await expect(access.rekey(rekeyOf(visit))).rejects.toThrow(VisitStoreUnavailableError);
    expect(count('find')).toBe(1);
  });

  test('is completed later: before the first request finds the visit, or without a request', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    watched.away();
    const [first, second] = [rekeyOf(visit), newVisit()];
    await watched.inner.create([second]);
    access.finishLater(visit.id, () => access.rekey(first));
    const other = rekeyOf(second);
    access.finishLater(second.id, () => access.rekey(other));
    await expect(access.find(visit.id)).rejects.toThrow(VisitStoreUnavailableError);
    watched.pass();
    expect(await Promise.all([access.find(visit.id), access.find(visit.id)])).toMatchObject([
      { keyHash: first.newKeyHash },
      { keyHash: first.newKeyHash },
    ]);
    const keyOfSecond = async (): Promise<string | undefined> => (await watched.inner.find([second.id]))[0]?.keyHash;
    expect(await keyOfSecond()).toBe(second.keyHash);
    await vi.advanceTimersByTimeAsync(250);
    expect(await keyOfSecond()).toBe(other.newKeyHash);
  });
});
