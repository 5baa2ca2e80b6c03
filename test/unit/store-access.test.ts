import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { Logger } from '@nestjs/common';
import { MemoryVisitStore, VisitError, VisitStoreUnavailableError, type VisitStore } from 'nest-visit';
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { VisitHealth } from '../../lib/observe/visit-health.js';
import type { StoreAccess } from '../../lib/store/store-access.js';
import { openAccess } from '../support/open-access.js';
import { newVisit, saveOf } from '../../lib/testing/samples.js';

const TIMEOUT = 1000;

/** What a store does with its calls, until it is told otherwise. */
type Mood = 'answers' | 'hangs' | 'refuses' | 'refuses late';

/**
 * Tells what a test does, and the store that it has made, from what earlier tests of this process have left: logs of
 * failures tick on.
 */
const own = new AsyncLocalStorage<object>();
afterAll(() => own.disable());
let current = {};
const isOwn = (): boolean => own.getStore() === current;

/** A store that counts its calls; those that hang can be let go later. What this test does is its own from here on. */
function moody(connections?: number) {
  own.enterWith(current);
  const inner = new MemoryVisitStore();
  let mood: Mood = 'answers';
  let concerned: readonly string[] | undefined;
  const hung: (() => void)[] = [];
  const calls: string[] = [];
  const store = new Proxy<VisitStore>(inner, {
    get: (target, name, proxy) => {
      // Its facets are the store itself.
      if (Reflect.get(target, name) === target) return proxy as unknown;
      if (name === 'server') return { connections };
      const member = Reflect.get(target, name) as unknown;
      if (typeof member !== 'function') return member;
      return async (...args: unknown[]) => {
        calls.push(String(name));
        if (concerned && !concerned.includes(String(name))) return Reflect.apply(member, target, args) as unknown;
        if (mood === 'hangs') await new Promise<void>((resolve) => hung.push(resolve));
        if (mood === 'refuses late') await new Promise((resolve) => setTimeout(resolve, TIMEOUT * 0.9));
        if (mood.startsWith('refuses')) throw new Error('refused');
        return Reflect.apply(member, target, args) as unknown;
      };
    },
  });
  return {
    access: openAccess(store, TIMEOUT),
    calls,
    hung,
    /** @param methods which of them; by default all */
    become: (next: Mood, methods?: readonly string[]): void => {
      mood = next;
      concerned = methods;
    },
    /** All that hang are answered. */
    letGo: (): void => hung.splice(0).forEach((resolve) => resolve()),
  };
}

type Moody = ReturnType<typeof moody>;

/** What became of a request, and when. */
interface Asked {
  outcome?: string;
  at?: number;
}

function ask(work: () => Promise<unknown>): Asked {
  const asked: Asked = {};
  const note = (outcome: string): void => void Object.assign(asked, { outcome, at: performance.now() });
  work().then(
    () => note('answered'),
    (error: Error) => note(error instanceof VisitStoreUnavailableError ? 'unavailable' : error.name),
  );
  return asked;
}

/** Lets all happen that can happen now. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
}

/** Timers as they are: they run in the context that they were set in. Those of this test's store are kept in a set. */
function fakeTimers(): Set<unknown> {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  const ours = new Set<unknown>();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((work: () => void, milliseconds: number) => {
    const isOurs = isOwn() && /[\\/]lib[\\/]store[\\/]/.test(new Error('who').stack ?? '');
    const inContext = AsyncResource.bind(work);
    const timer: unknown = set(() => {
      ours.delete(timer);
      inContext();
    }, milliseconds);
    if (isOurs) ours.add(timer);
    return timer;
    // The type of setTimeout has overloads and a property for promises, which nothing here uses.
  }) as never);
  vi.spyOn(globalThis, 'clearTimeout').mockImplementation((timer) => {
    ours.delete(timer);
    clear(timer);
  });
  return ours;
}

async function pass(milliseconds: number): Promise<void> {
  await settle();
  await vi.advanceTimersByTimeAsync(milliseconds);
  await settle();
}

const find = ({ access }: Moody) => ask(() => access.find(newVisit().id));

const KINDS: [string, (store: StoreAccess) => Promise<unknown>][] = [
  ['find', (store) => store.find(newVisit().id)],
  ['create', (store) => store.create(newVisit())],
  ['save', (store) => store.save(saveOf(newVisit()))],
  ['call', (store) => store.call((one) => one.end([newVisit().id], { reason: 'x', at: 0 }))],
  ['read', (store) => store.revokedAt('x')],
];

const isWrite = ([name]: (typeof KINDS)[number]): boolean => ['create', 'save', 'call'].includes(name);
const [WRITES, READS] = [KINDS.filter(isWrite), KINDS.filter((kind) => !isWrite(kind))];

/** The store hangs, and this is noticed. */
async function open(one: Moody): Promise<void> {
  one.become('hangs');
  for (let timeouts = 0; timeouts < 3; timeouts++) {
    find(one);
    await pass(TIMEOUT);
  }
}

describe('While the store does not answer', () => {
  const lines: string[] = [];
  let timers: Set<unknown>;
  beforeEach(() => {
    timers = fakeTimers();
    lines.length = 0;
    current = {};
    const note = (line: string): void => void (isOwn() && lines.push(line));
    Logger.overrideLogger({ log: note, error: note, warn: note });
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
    Logger.overrideLogger(false);
  });

  test.each(KINDS)('R28: after three timeouts in a row, requests are refused immediately: %s', async (...kind) => {
    const [, work] = kind;
    const one = moody();
    one.become('hangs');
    for (let timeouts = 0; timeouts < 3; timeouts++) {
      const began = performance.now();
      const asked = ask(() => work(one.access));
      await pass(TIMEOUT - 1);
      expect(asked.outcome).toBeUndefined();
      await pass(1);
      expect(asked).toEqual({ outcome: 'unavailable', at: began + TIMEOUT });
    }
    const probe = ask(() => work(one.access));
    await settle();
    const began = performance.now();
    const calls = one.calls.length;
    // A store whose writes do not end may be read.
    const kinds = isWrite(kind) ? WRITES : KINDS;
    const refused = kinds.map(([, other]) => ask(() => other(one.access)));
    await settle();
    expect(refused).toEqual(kinds.map(() => ({ outcome: 'unavailable', at: began })));
    expect(one.calls).toHaveLength(calls);
    expect(probe.outcome).toBeUndefined();
  });

  test.each(KINDS)('one call at a time tries again, and all continue when it is answered: %s', async (_, work) => {
    const one = moody();
    await open(one);
    for (let tries = 0; tries < 3; tries++) {
      const calls = one.calls.length;
      const [probe, ...others] = Array.from({ length: 20 }, () => ask(() => work(one.access)));
      await pass(TIMEOUT - 1);
      expect(one.calls).toHaveLength(calls + 1);
      expect(others.map(({ outcome }) => outcome)).toEqual(others.map(() => 'unavailable'));
      expect(probe!.outcome).toBeUndefined();
      await pass(1);
      expect(probe!.outcome).toBe('unavailable');
    }
    one.become('answers');
    const probe = ask(() => work(one.access));
    await settle();
    expect(probe.outcome).toBe('answered');
    const all = KINDS.map(([, other]) => ask(() => other(one.access)));
    await settle();
    // Nobody has that visit, so it cannot be saved; the store has said so.
    expect(all.map(({ outcome }) => outcome)).toEqual(all.map(() => 'answered'));
  });

  test('B84: while only writes hang, reads are served, and one write at a time tries again', async () => {
    const one = moody();
    one.become('hangs', ['create', 'save', 'end']);
    for (let timeouts = 0; timeouts < 3; timeouts++) {
      ask(() => one.access.create(newVisit()));
      await pass(TIMEOUT);
    }
    expect(lines.filter((line) => line.includes('Writes to the store do not complete'))).toHaveLength(1);
    for (let tries = 0; tries < 3; tries++) {
      const calls = one.calls.length;
      const [probe, ...writes] = [...WRITES, ...WRITES].map(([, work]) => ask(() => work(one.access)));
      const reads = READS.map(([, work]) => ask(() => work(one.access)));
      await settle();
      expect(reads.map(({ outcome }) => outcome)).toEqual(READS.map(() => 'answered'));
      expect(writes.map(({ outcome }) => outcome)).toEqual(writes.map(() => 'unavailable'));
      expect(one.calls).toHaveLength(calls + 1 + READS.length);
      await pass(TIMEOUT);
      expect(probe!.outcome).toBe('unavailable');
    }
    one.become('answers');
    one.letGo();
    await settle();
    expect(lines.at(-1)).toBe('Writes to the store complete again');
    const all = KINDS.map(([, work]) => ask(() => work(one.access)));
    await settle();
    expect(all.map(({ outcome }) => outcome)).toEqual(all.map(() => 'answered'));
  });

  test('R108: health reports the current state, and does not wait for an unavailable store', async () => {
    const one = moody();
    const health = new VisitHealth(one.access);
    const check = async () => {
      const asked = health.check('sessions');
      await settle();
      return Promise.race([asked, Promise.resolve('waits')]);
    };
    expect(await check()).toEqual({ sessions: { status: 'up' } });
    one.become('hangs', ['create', 'save', 'end']);
    for (let timeouts = 0; timeouts < 3; timeouts++) {
      ask(() => one.access.create(newVisit()));
      await pass(TIMEOUT);
    }
    expect(await check()).toMatchObject({ sessions: { status: 'up', degraded: true } });
    await open(one);
    expect(await check()).toBe('waits');
    expect(await check()).toMatchObject({ sessions: { status: 'down' } });
    one.become('answers');
    one.letGo();
    await settle();
    expect(await check()).toEqual({ sessions: { status: 'up' } });
  });

  test('B84: writes never use all connections, and a call that has waited too long for one is not sent', async () => {
    const one = moody(5);
    one.become('hangs', ['create', 'save', 'end']);
    const end = WRITES.find(([name]) => name === 'call')![1];
    const asked = Array.from({ length: 8 }, () => ask(() => end(one.access)));
    await pass(TIMEOUT - 1);
    // Five, of which three are left to others.
    expect(one.calls).toEqual(['end', 'end']);
    const reads = READS.map(([, work]) => ask(() => work(one.access)));
    await settle();
    expect(reads.map(({ outcome }) => outcome)).toEqual(READS.map(() => 'answered'));
    await pass(1);
    expect(asked.map(({ outcome }) => outcome)).toEqual(asked.map(() => 'unavailable'));
    one.become('answers');
    one.letGo();
    await pass(TIMEOUT);
    expect(one.calls.filter((name) => name === 'end')).toHaveLength(2);
    // Each has given back its place, once.
    one.become('hangs', ['end']);
    const later = Array.from({ length: 4 }, () => ask(() => end(one.access)));
    await settle();
    expect(one.calls.filter((name) => name === 'end')).toHaveLength(4);
    one.become('answers');
    one.letGo();
    await settle();
    expect(later.map(({ outcome }) => outcome)).toEqual(later.map(() => 'answered'));
  });

  test('waiting calls that have not been sent are refused, too', async () => {
    const one = moody();
    one.become('hangs');
    const others = [...KINDS.slice(1), READS[1]!].map(([, work]) => ask(() => work(one.access)));
    // Two groups are on their way, the rest waits.
    const sent = [find(one)];
    await pass(1);
    sent.push(find(one));
    await pass(TIMEOUT - 2);
    const waiting = [find(one), find(one)];
    await settle();
    expect(waiting.map(({ outcome }) => outcome)).toEqual([undefined, undefined]);
    const calls = one.calls.length;
    await pass(1);
    expect([...others, ...sent.slice(0, 1)].map(({ outcome }) => outcome)).toEqual(Array(6).fill('unavailable'));
    expect(waiting).toEqual(waiting.map(() => ({ outcome: 'unavailable', at: performance.now() })));
    expect(one.calls).toHaveLength(calls);
  });

  test('a late answer to a call that timed out ends this state', async () => {
    const one = moody();
    await open(one);
    one.become('answers');
    one.letGo();
    await settle();
    const all = KINDS.map(([, work]) => ask(() => work(one.access)));
    await settle();
    expect(all.map(({ outcome }) => outcome)).toEqual(all.map(() => 'answered'));
  });

  test('timeouts with an answer between them do not begin it', async () => {
    const one = moody();
    for (let round = 0; round < 4; round++) {
      one.become('hangs');
      find(one);
      find(one);
      await pass(TIMEOUT);
      find(one);
      await pass(TIMEOUT);
      one.become('answers');
      const asked = find(one);
      await settle();
      expect(asked.outcome).toBe('answered');
    }
    expect(lines.filter((line) => line.includes('refused immediately'))).toEqual([]);
  });

  test('an immediate error counts as an answer; a late one does not', async () => {
    const one = moody();
    one.become('refuses');
    for (let tries = 0; tries < 10; tries++) {
      find(one);
      await settle();
    }
    one.become('answers');
    const all = [find(one), find(one)];
    await settle();
    expect(all.map(({ outcome }) => outcome)).toEqual(['answered', 'answered']);

    one.become('refuses late');
    for (let tries = 0; tries < 3; tries++) {
      find(one);
      await pass(TIMEOUT);
    }
    const [probe, refused] = [find(one), find(one)];
    await settle();
    expect([probe.outcome, refused.outcome]).toEqual([undefined, 'unavailable']);
  });

  test('a probe that fails immediately ends it; one that was never sent does not', async () => {
    const one = moody();
    await open(one);
    const wrong = ask(() =>
      one.access.call(async () => {
        throw new VisitError('VISIT_USER_ID', 'not asked');
      }),
    );
    await settle();
    expect(wrong.outcome).toBe('VisitError');
    const [, refused] = [find(one), find(one)];
    await settle();
    expect(refused.outcome).toBe('unavailable');
    await pass(TIMEOUT);
    one.become('refuses');
    find(one);
    await settle();
    one.become('answers');
    const all = [find(one), find(one)];
    await settle();
    expect(all.map(({ outcome }) => outcome)).toEqual(['answered', 'answered']);
  });

  test('the log has a line when it begins and when it ends, and none for each request', async () => {
    const one = moody();
    await open(one);
    expect(lines.filter((line) => line.includes('refused immediately'))).toHaveLength(1);
    const before = lines.length;
    for (let round = 0; round < 5; round++) {
      for (let request = 0; request < 100; request++) find(one);
      await pass(TIMEOUT);
    }
    expect(lines).toHaveLength(before);
    one.become('answers');
    one.letGo();
    await settle();
    for (let request = 0; request < 100; request++) find(one);
    await settle();
    expect(lines.slice(before)).toEqual(['The store answers again']);
  });

  test('calls that hung use no connections and no timers after the store is available again', async () => {
    const one = moody();
    await open(one);
    for (let tries = 0; tries < 10; tries++) {
      KINDS.forEach(([, work]) => ask(() => work(one.access)));
      await pass(TIMEOUT);
    }
    // Those that hang never answer: their connections are lost.
    one.become('answers');
    find(one);
    await settle();
    const all = Array.from({ length: 1000 }, (_, index) => ask(() => KINDS[index % 4]![1](one.access)));
    await settle();
    expect(all.filter(({ outcome }) => outcome !== 'answered')).toEqual([]);
    expect(timers.size).toBeGreaterThan(0);
    await pass(TIMEOUT * 2);
    expect(timers.size).toBe(0);
  });
});
