import { parseRequest, requestOperation, type RequestName } from './acts.js';
import { TIMEOUT, TOUCH_INTERVAL, type Answer, type Process } from './process.js';

/** Where an order begins. */
export interface World {
  /** When the visit was made and last recorded as used. */
  readonly start: number;
  readonly visitId: string;
  /** The key that all requests come with: they left the browser before any of them was answered. */
  readonly key: string;
  readonly user: string;
  readonly situation: Situation;
  /** How many steps have begun so far. */
  readonly steps: () => number;
}

/**
 * `anonymous`, `signedIn`: a visit in the middle of its life. `expiring`: signed in; the requests come in its last
 * second, and what cleans up looks at the clock just after it. `new`: there is no visit, and the requests come without
 * a key.
 */
export type Situation = 'anonymous' | 'signedIn' | 'expiring' | 'new';

/** What is in the session at first. */
export const INITIAL = { counter: 10, gift: 'once', kept: 'as it was' };

export interface Outcome extends Partial<Answer> {
  /** How many visits it says that it ended or deleted. */
  readonly count?: number;
  /** How many steps had begun when the headers of its response left. */
  readonly leftAt?: number;
}

export interface Operation {
  /** Whether it is a request with the visit's key, or work from elsewhere. */
  readonly isRequest: boolean;
  /** The columns of the visit that it may change, besides `accessed` and `expiry`, which every request may. */
  readonly owns: readonly string[];
  /** The entries of the session that it may change; `slot` is its number in the order. */
  readonly ownsEntries?: (slot: number) => readonly string[];
  /** May begin a visit of its own, where there is none that it could use. */
  readonly mayBegin?: boolean;
  readonly run: (process: Process, world: World, slot: number) => Promise<Outcome>;
}

const KEY = ['keyHash', 'previousKeyHash', 'previousKeyUntil', 'keyChanged'];
const DATA = ['sessionVersion'];
const END = ['endedAt', 'endReason', 'sessionVersion', 'data'];

/** Different, so that the later of two touches is not always the one that reaches further. */
const TIMEOUTS = [TIMEOUT, TIMEOUT - 60_000, TIMEOUT - 30_000];

export const operations = {
  load: {
    isRequest: true,
    owns: [],
    run: (process, { key }) =>
      process.request({ key }, () => ({ userId: process.identity.userId, counter: process.session.get('counter') })),
  },
  set: {
    isRequest: true,
    owns: DATA,
    ownsEntries: (slot) => [`set by ${slot}`],
    mayBegin: true,
    run: (process, { key }, slot) => process.request({ key }, () => void process.session.set(`set by ${slot}`, slot)),
  },
  update: {
    isRequest: true,
    owns: DATA,
    ownsEntries: () => ['counter'],
    mayBegin: true,
    run: (process, { key }) =>
      process.request({ key }, () =>
        process.session.update('counter', (count) => ((count as number | undefined) ?? 0) + 1),
      ),
  },
  take: {
    isRequest: true,
    owns: DATA,
    ownsEntries: () => ['gift'],
    run: (process, { key }) => process.request({ key }, () => process.session.take('gift')),
  },
  touch: {
    isRequest: true,
    owns: [],
    run: async (process, { key }, slot) => {
      const answer = await process.request({ key, timeout: TIMEOUTS[slot]! }, () => {});
      await process.visits.flush();
      return answer;
    },
  },
  login: {
    isRequest: true,
    // A sign-in that comes too late for "end all" ends what it has just begun.
    owns: [...KEY, ...END, 'userId', 'authenticatedAt', 'permanent'],
    mayBegin: true,
    run: (process, { key, user }) => process.request({ key }, () => process.identity.login(user)),
  },
  logout: {
    isRequest: true,
    owns: [...END, 'previousKeyUntil', 'keyChanged'],
    run: (process, { key }) => process.request({ key }, () => process.identity.logout()),
  },
  renew: {
    isRequest: true,
    owns: KEY,
    run: (process, { key }) => process.request({ key }, () => process.visits.renew()),
  },
  end: {
    isRequest: false,
    owns: END,
    run: async (process, { visitId }) => ({
      count: Number(await process.visits.end(visitId, 'revoked', { anyUser: true })),
    }),
  },
  endAll: {
    isRequest: false,
    owns: END,
    run: async (process, { user }) => ({ count: await process.visits.endAllForUser(user) }),
  },
  expunge: {
    isRequest: false,
    owns: [],
    run: async (process) => ({ count: (await process.expunge.run({ keepDays: 0 })).visits }),
  },
  wipe: {
    isRequest: false,
    owns: ['sessionVersion', 'data'],
    run: async (process) => ({ count: await process.expunge.wipeExpired() }),
  },
} satisfies Record<string, Operation>;

export type OperationName = keyof typeof operations | RequestName;

export function operationOf(name: OperationName): Operation {
  const request = parseRequest(name);
  return request ? requestOperation(request) : operations[name as keyof typeof operations];
}

/** Clocks of several machines are never quite in step. In milliseconds. */
const SKEWS = [0, 40, -40];

/** When an operation takes place, by the clock of its process. */
export function timeOf(
  name: OperationName,
  { start, situation }: Pick<World, 'start' | 'situation'>,
  slot = 0,
): number {
  if (situation !== 'expiring') return start + 2 * 60_000 + SKEWS[slot]!;
  const isCleaning = name === 'expunge' || name === 'wipe';
  return start + TIMEOUT + (isCleaning ? 2 * TOUCH_INTERVAL + 1 : -1000);
}
