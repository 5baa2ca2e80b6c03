import * as fc from 'fast-check';
import { codeOf, type Process } from '../interleaving/process.js';
import { Refusal, type Model, type Turn, type User, type Visit } from './model.js';

/** Something that is done within a request, or by somebody outside of all requests. */
export interface Act {
  /** Which visits are meant is settled before anything is done. */
  readonly among: (model: Model) => Deed;
  readonly toString: () => string;
}

export interface Deed {
  /** What it should give. Called when the ids of all visits are known. @throws Refusal */
  readonly expect: (turn: Turn) => () => unknown;
  readonly run: (process: Process) => unknown;
}

const act = (words: string, expect: (turn: Turn) => unknown, run: Deed['run']): Act => ({
  among: () => ({
    expect: (turn) => {
      const value = expect(turn);
      return () => value;
    },
    run,
  }),
  toString: () => words,
});

const count = (value: unknown): number => ((value as number | undefined) ?? 0) + 1;

type Items = { items?: string[] } | undefined;

const ENTRIES = ['cart', 'notice'];
const entry = fc.constantFrom(...ENTRIES);
const value = fc.constantFrom<unknown>('a', 'b', { items: ['c'] });
export const anyUser = fc.constantFrom<User>('Ann', 'Bob');

const set = (method: 'set' | 'flash') =>
  fc.tuple(entry, value).map(([name, what]) =>
    act(
      `${method} ${name} to ${JSON.stringify(what)}`,
      (turn) => void turn.session.set(name, what),
      ({ session }) => void session[method](name, structuredClone(what)),
    ),
  );

/** A change within a value, which nobody sets. */
const addWithin = entry.map((name) =>
  act(
    `add to what ${name} holds`,
    ({ session }) => {
      const held = session.get(name) as Items;
      if (held?.items) session.set(name, { items: [...held.items, 'd'] });
    },
    ({ session }) => void (session.get(name) as Items)?.items?.push('d'),
  ),
);

const remove = entry.map((name) =>
  act(
    `delete ${name}`,
    (turn) => turn.session.delete(name),
    ({ session }) => session.delete(name),
  ),
);

const clear = fc.constant(
  act(
    'clear the session',
    (turn) => turn.session.clear(),
    ({ session }) => session.clear(),
  ),
);

const update = fc.constant(
  act(
    'update the counter',
    (turn) => turn.update('counter', count),
    ({ session }) => session.update('counter', count),
  ),
);

const take = entry.map((name) =>
  act(
    `take ${name}`,
    (turn) => turn.take(name),
    ({ session }) => session.take(name),
  ),
);

const login = fc.tuple(anyUser, fc.constantFrom(undefined, undefined, true, false)).map(([user, permanent]) =>
  act(
    `sign in as ${user}${permanent === undefined ? '' : permanent ? ', to be remembered' : ', not to be remembered'}`,
    (turn) => turn.login(user, permanent),
    ({ identity }) => identity.login(user, permanent === undefined ? {} : { permanent }),
  ),
);

const logout = fc.constantFrom(false, false, true).map((keepVisit) =>
  act(
    keepVisit ? 'sign out and keep the visit' : 'sign out',
    (turn) => turn.logout(keepVisit),
    ({ identity }) => identity.logout({ keepVisit }),
  ),
);

const renew = fc.constant(
  act(
    'renew the key',
    (turn) => turn.renew(),
    ({ visits }) => visits.renew(),
  ),
);

const reauthenticate = fc.constant(
  act(
    'prove again who it is',
    (turn) => turn.reauthenticate(),
    ({ identity }) => identity.reauthenticate(),
  ),
);

const endOwn = fc.constant(
  act(
    'end the own visit',
    (turn) => turn.endOwn('ended'),
    ({ visits }) => visits.end(),
  ),
);

const endOne = fc.nat({ max: 7 }).map((pick): Act => ({
  among: (model) => {
    // Expunged ones too: to end them is to end nothing.
    const visit: Visit | undefined = model.visits[pick % Math.max(1, model.visits.length)];
    const id = visit?.id;
    return {
      expect: (turn) => {
        const isEnded = visit !== undefined && turn.endOne(visit);
        return () => isEnded;
      },
      // Outside of a request there is no user, and it has to be said that any may be meant.
      run: async ({ visits }) =>
        id !== undefined &&
        visits.end(id).catch((error: unknown) => {
          if (codeOf(error) !== 'VISIT_NOT_RESOLVED') throw error;
          return visits.end(id, 'revoked', { anyUser: true });
        }),
    };
  },
  toString: () => `end visit ${pick} of those there ever were`,
}));

const endOthers = fc.constant(
  act(
    'end all others of the same user',
    (turn) => turn.endOthers(),
    ({ visits }) => visits.endOthers(),
  ),
);

const endAllForUser = anyUser.map((user) =>
  act(
    `end all of ${user}`,
    (turn) => turn.endAllForUser(user),
    ({ visits }) => visits.endAllForUser(user),
  ),
);

const endAll = fc.constant(
  act(
    'end everything',
    (turn) => turn.endAll(),
    ({ visits }) => visits.endAll(),
  ),
);

const list = anyUser.map((user): Act => ({
  among: (model) => ({
    expect: (turn) => {
      const live = model.liveOf(user).map((visit) => ({ visit, isCurrent: visit === turn.visit }));
      return () => live.map(({ visit, isCurrent }) => `${visit.id}${isCurrent ? ', current' : ''}`).sort();
    },
    run: async ({ visits }) => {
      const found = await visits.listForUser(user);
      return found.map(({ id, isCurrent }) => `${id}${isCurrent ? ', current' : ''}`).sort();
    },
  }),
  toString: () => `list the visits of ${user}`,
}));

type Weighted = readonly [weight: number, arbitrary: fc.Arbitrary<Act>];

const weighted = (...arbitraries: readonly Weighted[]): fc.Arbitrary<Act> =>
  fc.oneof(...arbitraries.map(([weight, arbitrary]) => ({ weight, arbitrary })));

/** What takes a turn of its request. */
const anyOfWrites: readonly Weighted[] = [
  [8, update],
  [6, take],
  [14, login],
  [6, logout],
  [12, renew],
  [4, reauthenticate],
  [2, endOwn],
  [3, endOne],
  [3, endOthers],
  [2, endAllForUser],
];

const anyWrite = weighted(...anyOfWrites);

/**
 * Several writes that are called at once: each comes to what it would come to after the one before, and none fails
 * because of another.
 */
export const writesAtOnce = fc.array(anyWrite, { minLength: 2, maxLength: 3 }).map((writes): Act => ({
  among: (model) => {
    const deeds = writes.map((write) => write.among(model));
    return {
      expect: (turn) => {
        const values = deeds.map((deed) => valueOrRefusal(() => deed.expect(turn)));
        return () => values.map((give) => give());
      },
      run: (process) => Promise.all(deeds.map((deed) => valueOrCode(() => deed.run(process)))),
    };
  },
  toString: () => `at once: ${writes.map(String).join(' | ')}`,
}));

function valueOrRefusal(expect: () => () => unknown): () => unknown {
  try {
    return expect();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return () => ({ error: error.code });
  }
}

async function valueOrCode(run: () => unknown): Promise<unknown> {
  try {
    return await run();
  } catch (error) {
    return { error: codeOf(error) };
  }
}

/** What may be done within a request. */
export const anyAct = weighted(
  [12, set('set')],
  [4, set('flash')],
  [3, addWithin],
  [4, remove],
  [2, clear],
  ...anyOfWrites,
  [1, endAll],
  [3, list],
);

/** What may be done where there is no request. */
export const anyActElsewhere = weighted([8, endOne], [4, endAllForUser], [1, endAll], [8, list]);
