import { AsyncLocalStorage } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { MemoryVisitStore, type VisitRecord } from 'nest-visit';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { newVisit, NOW } from '../../lib/testing/samples.js';
import { OpenStreams, type OpenStream } from '../../lib/visit/open-streams.js';
import { TimeLimits } from '../../lib/visit/time-limits.js';

const INTERVAL = 30_000;
const MINUTE = 60_000;
const YEAR = 525_600 * MINUTE;

describe('Open streams', () => {
  let store: MemoryVisitStore;
  let now: number;
  let find: (id: string) => Promise<VisitRecord | null>;
  /** The ids of the visits that were looked up. */
  let asked: string[];
  let streams: OpenStreams;
  /** The names of the streams that were ended. */
  let ended: string[];
  beforeEach(() => {
    vi.useFakeTimers();
    store = new MemoryVisitStore();
    now = NOW;
    asked = [];
    ended = [];
    find = async (id) => (await store.find([id]))[0]!;
    streams = open();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function open({ endWithVisit = true, timeout = YEAR, interval = INTERVAL } = {}): OpenStreams {
    const limits = { shortenExisting: true, timeout, permanentTimeout: timeout, absoluteTimeout: false as const };
    return new OpenStreams(
      { clock: { now: () => now }, streams: { endWithVisit, interval } },
      { find: (id) => (asked.push(id), find(id)) },
      new TimeLimits(limits, { waiting: () => undefined }),
    );
  }

  async function visit(given: Partial<VisitRecord> = {}): Promise<VisitRecord> {
    const { id } = newVisit(given);
    await store.create([{ ...newVisit(given), id }]);
    return (await store.find([id]))[0]!;
  }

  /** Follows the visit. @returns what is called when the client has left */
  const follow = (name: string, record: VisitRecord, given: Partial<OpenStream> = {}): (() => void) => {
    const usual: OpenStream = {
      visitId: record.id,
      storedIn: 'store',
      record,
      isForeign: () => false,
      end: () => void ended.push(name),
    };
    // With its getters.
    return streams.add(Object.defineProperties(usual, Object.getOwnPropertyDescriptors(given)));
  };

  const end = ({ id }: VisitRecord): Promise<unknown> => store.end([id], { reason: 'test', at: now });
  const tick = (): Promise<unknown> => vi.advanceTimersByTimeAsync(INTERVAL);

  test('of one visit all end with it, even if the first one has been removed or has ended', async () => {
    const one = await visit();
    const leave = follow('a', one);
    follow('b', one);
    follow('c', one);
    leave();
    expect(streams.size).toBe(1);
    await end(one);
    await tick();
    expect(ended).toEqual(['b', 'c']);
    expect(streams.size).toBe(0);
  });

  test('are ended once and then forgotten, even if they are slow to end', async () => {
    const one = await visit();
    follow('a', one);
    streams.visitsEnded([one.id]);
    streams.visitsEnded([one.id]);
    await end(one);
    await tick();
    expect([ended, streams.size]).toEqual([['a'], 0]);
  });

  test('are checked by one timer while there are any, and it does not keep the process alive', async () => {
    const timers = vi.spyOn(globalThis, 'setInterval');
    const [one, two] = [await visit(), await visit()];
    const leave = [follow('a', one), follow('b', two)];
    expect(timers.mock.results.map(({ value }) => (value as NodeJS.Timeout).hasRef())).toEqual([false]);
    leave[0]!();
    expect(vi.getTimerCount()).toBe(1);
    leave[1]!();
    expect(vi.getTimerCount()).toBe(0);
    timers.mockRestore();

    follow('c', two);
    await end(two);
    await tick();
    expect(ended).toEqual(['c']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('are not followed if the option is off, and nothing is looked up', async () => {
    streams = open({ endWithVisit: false });
    const one = await visit();
    follow('a', one)();
    follow('b', one);
    await end(one);
    streams.visitsEnded([one.id]);
    await tick();
    expect([ended, asked, streams.size, vi.getTimerCount()]).toEqual([[], [], 0, 0]);
  });

  test('law 8: end outside the asynchronous context of any request', async () => {
    // Timers that are not real run in the context of whoever moves them.
    vi.useRealTimers();
    streams = open({ interval: 1 });
    const running = new AsyncLocalStorage<string>();
    onTestFinished(() => running.disable());
    const one = await visit();
    await end(one);
    const seen = await new Promise<unknown>((resolve) => {
      running.run('the request of somebody', () => follow('a', one, { end: () => resolve(running.getStore()) }));
    });
    expect(seen).toBeUndefined();
  });

  test('of a visit that is not stored continue, and are not looked up until it is', async () => {
    const one = await visit();
    await end(one);
    let storedIn: OpenStream['storedIn'] = 'nowhere';
    follow('a', one, {
      get storedIn() {
        return storedIn;
      },
    });
    await tick();
    expect([ended, asked]).toEqual([[], []]);
    storedIn = 'store';
    await tick();
    expect([ended, asked]).toEqual([['a'], [one.id]]);
  });

  test('of a visit in sealed cookies end when it expires, according to the cookies of the request', async () => {
    const one = newVisit();
    const record = { ...(await visit()), id: one.id };
    follow('a', record, { storedIn: 'client' });
    await tick();
    now += 20 * MINUTE - 1;
    await tick();
    expect([ended, asked]).toEqual([[], []]);
    now++;
    await tick();
    expect([ended, asked]).toEqual([['a'], []]);
  });

  test('end by the current limits, if these apply to existing visits', async () => {
    streams = open({ timeout: 5 * MINUTE });
    follow('a', await visit());
    now += 5 * MINUTE - 1;
    await tick();
    expect(ended).toEqual([]);
    now++;
    await tick();
    expect(ended).toEqual(['a']);
  });

  test('are logged if they end because their visit cannot be looked up, but not other or later ones', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    onTestFinished(() => warn.mockRestore());
    const [one, other] = [await visit(), await visit()];
    follow('a', one);
    follow('b', other);
    const well = find;
    find = (id) => (id === one.id ? Promise.reject(new Error('away')) : well(id));
    await tick();
    follow('late', one);
    expect(warn).not.toHaveBeenCalled();
    await tick();
    expect(ended).toEqual(['a']);
    expect(warn.mock.calls.map(([line]) => String(line))).toEqual([expect.stringContaining(one.id)]);
    await tick();
    expect(ended).toEqual(['a', 'late']);
  });
});
