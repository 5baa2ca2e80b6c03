import type { ServerResponse } from 'node:http';
import { FORM_TOKENS } from '../../lib/session/hidden-entries.js';
import type { Operation, Outcome, World } from './operations.js';
import { codeOf, type Process } from './process.js';

/** One write of a request that makes several of them. */
export interface Act {
  /** The columns of the visit that it may change. */
  readonly owns: readonly string[];
  /** The entries of the session that it may change. */
  readonly ownsEntries?: (mark: string) => readonly string[];
  /** May begin a visit, where the request has none that is stored. */
  readonly mayBegin?: boolean;
  /**
   * Plain changes of the session take no turn. They are made before the first write is called, so that all manners mean
   * the same.
   */
  readonly prepare?: (process: Process, mark: string) => void;
  readonly run: (process: Process, world: World) => Promise<unknown>;
}

const KEY = ['keyHash', 'previousKeyHash', 'previousKeyUntil', 'keyChanged'];
const DATA = ['sessionVersion'];
const END = ['endedAt', 'endReason', 'sessionVersion', 'data', 'previousKeyUntil', 'keyChanged'];

export const acts = {
  save: {
    owns: DATA,
    ownsEntries: (mark) => [`saved by ${mark}`],
    mayBegin: true,
    prepare: ({ session }, mark) => void session.set(`saved by ${mark}`, mark),
    run: ({ session }) => session.save(),
  },
  reload: { owns: [], run: ({ session }) => session.reload() },
  update: {
    owns: DATA,
    ownsEntries: () => ['counter'],
    mayBegin: true,
    run: ({ session }) => session.update('counter', (count) => ((count as number | undefined) ?? 0) + 1),
  },
  take: { owns: DATA, ownsEntries: () => ['gift'], run: ({ session }) => session.take('gift') },
  issue: {
    owns: DATA,
    ownsEntries: () => [FORM_TOKENS],
    mayBegin: true,
    run: async ({ formTokens }) => void (await formTokens.create()),
  },
  login: {
    owns: [...KEY, ...END, 'userId', 'authenticatedAt', 'permanent'],
    mayBegin: true,
    run: ({ identity }, { user }) => identity.login(user),
  },
  loginOther: {
    owns: [...KEY, ...END, 'userId', 'authenticatedAt', 'permanent'],
    mayBegin: true,
    run: ({ identity }, { user }) => identity.login(`${user}, another one`),
  },
  logout: { owns: END, run: ({ identity }) => identity.logout() },
  logoutOnly: {
    owns: [...KEY, 'userId', 'authenticatedAt'],
    run: ({ identity }) => identity.logout({ keepVisit: true }),
  },
  reauthenticate: { owns: [...KEY, 'authenticatedAt'], run: ({ identity }) => identity.reauthenticate() },
  renew: { owns: KEY, run: ({ visits }) => visits.renew() },
  endOwn: { owns: END, run: ({ visits }) => visits.end() },
  endUser: { owns: END, run: ({ visits }, { user }) => visits.endAllForUser(user) },
  /** Another request at the same moment, in the same process, that begins a visit of its own. */
  stranger: {
    owns: [],
    mayBegin: true,
    run: async (process) => {
      const { status, error } = await process.request({}, () => void process.session.set('of a stranger', true));
      return { status, error };
    },
  },
} satisfies Record<string, Act>;

export type ActName = keyof typeof acts;

/**
 * How a request makes its writes: each after the one before; all at once, and it waits for all; or all at once, and its
 * response is sent without waiting for any.
 */
export type Manner = 'in order' | 'at once' | 'answered first';

/** A request that makes several writes, such as `at once: update, login`. */
export type RequestName = `${Manner}: ${string}`;

export interface ParsedRequest {
  readonly manner: Manner;
  readonly acts: readonly ActName[];
}

const REQUEST = /^(in order|at once|answered first): (.+)$/;

export function nameOf(manner: Manner, names: readonly ActName[]): RequestName {
  return `${manner}: ${names.join(', ')}`;
}

/** The parts of the name, if it is one of a request with several writes. */
export function parseRequest(name: string): ParsedRequest | undefined {
  const [, manner, list] = REQUEST.exec(name) ?? [];
  return manner && list ? { manner: manner as Manner, acts: list.split(', ') as ActName[] } : undefined;
}

/** What became of one write. */
export interface Deed {
  readonly value?: unknown;
  readonly error?: string;
  /** The visit of the request when it was done. */
  readonly visitId?: string;
}

export const markOf = (slot: number, index: number): string => `${slot}.${index}`;

const actOf = (name: ActName): Act => acts[name];

export function requestOperation({ manner, acts: names }: ParsedRequest): Operation {
  return {
    isRequest: true,
    owns: [...new Set(names.flatMap((name) => actOf(name).owns))],
    ownsEntries: (slot) => names.flatMap((name, index) => actOf(name).ownsEntries?.(markOf(slot, index)) ?? []),
    mayBegin: names.some((name) => actOf(name).mayBegin),
    run: (process, world, slot) => {
      const key = world.situation === 'new' ? undefined : world.key;
      const leftAt: { leftAt?: number } = {};
      const leaves = (): void => void (leftAt.leftAt ??= world.steps());
      const work = (response: ServerResponse): unknown => {
        names.forEach((name, index) => actOf(name).prepare?.(process, markOf(slot, index)));
        return MANNERS[manner](process, world, names, response);
      };
      const answer = process.request({ key, answersItself: manner === 'answered first', leaves }, work);
      return answer.then((outcome): Outcome => ({ ...outcome, ...leftAt }));
    },
  };
}

type Perform = (process: Process, world: World, names: readonly ActName[], response: ServerResponse) => unknown;

async function perform(process: Process, world: World, name: ActName): Promise<Deed> {
  try {
    const value = await actOf(name).run(process, world);
    return { value, visitId: process.visits.current().id };
  } catch (error) {
    return { error: codeOf(error) };
  }
}

const MANNERS: Record<Manner, Perform> = {
  'in order': async (process, world, names) => {
    const deeds: Deed[] = [];
    for (const name of names) deeds.push(await perform(process, world, name));
    return deeds;
  },
  'at once': (process, world, names) => Promise.all(names.map((name) => perform(process, world, name))),
  'answered first': (process, world, names, response) => {
    for (const name of names) void actOf(name).run(process, world);
    response.end('done');
  },
};
