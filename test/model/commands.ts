import * as fc from 'fast-check';
import { VisitKey } from '../../lib/key/visit-key.js';
import { TIMEOUT, TOUCH_INTERVAL, type Answer, type Told } from '../interleaving/process.js';
import { anyAct, anyActElsewhere, anyUser, writesAtOnce, type Act } from './acts.js';
import { expectSame, expectTold } from './expectations.js';
import {
  ABSOLUTE_TIMEOUT,
  LATE_WINDOW,
  PERMANENT_TIMEOUT,
  Refusal,
  RENEWAL_GRACE,
  Turn,
  type Model,
  type User,
  type Visit,
} from './model.js';
import type { World } from './world.js';

type Command = fc.AsyncCommand<Model, World>;

/** Who sends a request, and with which key. */
interface Sender {
  readonly browser?: number;
  readonly keyAmong: (model: Model) => string | undefined;
  readonly toString: () => string;
}

const BROWSERS = 3;

const anyBrowser = fc.constantFrom(0, 0, 0, 1, 1, 2).map((number): Sender => ({
  browser: number,
  keyAmong: ({ cookies }) => cookies[number],
  toString: () => `browser ${number}`,
}));

const latest = (words: string, from: (model: Model) => readonly string[], max: number): fc.Arbitrary<Sender> =>
  fc.nat({ max }).map((age) => ({
    keyAmong: (model) => {
      const keys = from(model);
      return keys.at(-1 - (age % Math.max(1, keys.length)));
    },
    toString: () => `a stranger with the key that was ${words} last${age === 0 ? '' : ` but ${age}`}`,
  }));

const stranger = latest('given out', ({ keys }) => keys, 15);

/** The ones whose time is just over. */
const latecomer = latest('replaced or ended', ({ formerKeys }) => formerKeys, 2);

const forger = fc.nat({ max: 7 }).map((pick): Sender => ({
  // Past the visits that there are, the id is made up as well.
  keyAmong: ({ visits }) => VisitKey.create(visits[pick]?.id).text,
  toString: () => `a forger of a key to visit ${pick}`,
}));

const anySender = fc.oneof(
  { weight: 16, arbitrary: anyBrowser },
  { weight: 3, arbitrary: stranger },
  { weight: 4, arbitrary: latecomer },
  { weight: 1, arbitrary: forger },
);

interface RequestParts {
  readonly sender: Sender;
  readonly process: number;
  readonly acts: readonly Act[];
  /** Whether it asks for the session, besides what the acts do. */
  readonly looks: boolean;
  readonly passive: boolean;
}

interface Look {
  readonly userId: string | null;
  readonly entries?: Record<string, unknown>;
}

class Request implements Command {
  constructor(private readonly parts: RequestParts) {}

  /** Without a key there is only one stranger: a browser that has just been installed. */
  check(model: Model): boolean {
    const { browser: number, keyAmong } = this.parts.sender;
    return number !== undefined || keyAmong(model) !== undefined;
  }

  async run(model: Model, world: World): Promise<void> {
    const { sender, looks, passive } = this.parts;
    await world.next(model);
    const key = sender.keyAmong(model);
    const process = world.processes[this.parts.process]!;
    const deeds = this.parts.acts.map((act) => act.among(model));

    const turn = new Turn(model, model.judge(key), passive);
    const lookOf = (): Look => ({ userId: turn.userId, ...(looks && { entries: Object.fromEntries(turn.session) }) });
    const seen = { ...lookOf(), isNew: turn.isNew };
    const values: (() => unknown)[] = [];
    const visitsAfter: (Visit | undefined)[] = [];
    let refusal: Refusal | undefined;
    const attempt = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        refusal = error;
      }
    };
    attempt(() => {
      for (const deed of deeds) {
        values.push(deed.expect(turn));
        visitsAfter.push(turn.visit);
      }
    });
    const left = lookOf();
    attempt(() => turn.close());

    const found: { seen?: object; values: unknown[]; ids: string[]; left?: object } = { values: [], ids: [] };
    const lookAt = (): Look => ({
      userId: process.identity.userId,
      ...(looks && { entries: Object.fromEntries(process.session.entries()) }),
    });
    const answer = await process.request({ ...(key !== undefined && { key }), passive }, async () => {
      found.seen = structuredClone({ ...lookAt(), isNew: process.visits.current().isNew });
      for (const deed of deeds) {
        found.values.push(await deed.run(process));
        found.ids.push(process.visits.current().id);
      }
      found.left = structuredClone(lookAt());
    });

    const { status, error } = answer;
    expectSame({ status, error }, { status: refusal?.status ?? 200, error: refusal?.code }, 'the answer');
    expectSame(found.seen, seen, 'what the request sees at first');
    visitsAfter.forEach((visit, index) => visit && learnId(visit, found.ids[index]));
    const told = world.takeTold();
    learnFromPlugins(turn, told);
    if (turn.visit) learnId(turn.visit, answer.visitId);
    expectSame(
      found.values,
      values.map((value) => value()),
      'what the acts give',
    );
    if (found.left) expectSame(found.left, left, 'what the request sees at last');
    learnKey(model, turn, answer);
    if (sender.browser !== undefined && answer.key !== undefined)
      model.cookies[sender.browser] = answer.key ?? undefined;
    expectTold(told, turn.events);
  }

  toString(): string {
    const { sender, process, acts, looks, passive } = this.parts;
    const deeds = [...(looks ? ['look'] : []), ...acts.map(String)].join(', ') || 'nothing';
    return `${sender.toString()} at process ${process}${passive ? ', passively' : ''}: ${deeds}`;
  }
}

function learnId(visit: Visit, id: string | undefined): void {
  visit.id ??= id;
  expectSame(id, visit.id, 'the visit of the request');
}

/** A visit that begins and ends among writes that are called at once, no look shows. */
function learnFromPlugins({ events }: Turn, told: readonly Told[]): void {
  const begun = told.filter(({ event }) => event === 'new');
  events.filter(({ event }) => event === 'new').forEach(({ visit }, place) => (visit.id ??= begun[place]?.visitId));
}

function learnKey(model: Model, { visit, cookie, repeatsKey }: Turn, { key }: Answer): void {
  if (cookie === 'cleared') {
    expectSame(key, null, 'R40: the cookie is cleared');
  } else if (cookie === 'key') {
    expectSame(VisitKey.parse(key)?.id, visit!.id, 'R1: the cookie has a key to the visit');
    expectSame(model.keys.includes(key!), false, 'R39: the key was given before');
    visit!.current.text = key!;
    model.keys.push(key!);
  } else if (key === undefined || repeatsKey === 'never' || !visit) {
    expectSame(key, undefined, 'B17: no cookie is sent');
    expectSame(
      repeatsKey === 'surely' && visit !== undefined,
      false,
      'R17: the cookie of a permanent visit must be sent again',
    );
  } else {
    expectSame(key, visit.current.text, 'R17: the cookie is the one that was sent before');
  }
}

class Elsewhere implements Command {
  constructor(
    private readonly process: number,
    private readonly act: Act,
  ) {}

  check(): boolean {
    return true;
  }

  async run(model: Model, world: World): Promise<void> {
    await world.next(model);
    const deed = this.act.among(model);
    const turn = new Turn(model, 'elsewhere');
    const value = deed.expect(turn);
    expectSame(await deed.run(world.processes[this.process]!), value(), 'what it gives');
    expectTold(world.takeTold(), turn.events);
  }

  toString(): string {
    return `process ${this.process}, outside of requests: ${this.act.toString()}`;
  }
}

/** A visit is made on the server side, and a browser gets its key. */
class HandOver implements Command {
  constructor(
    private readonly process: number,
    private readonly browser: number,
    private readonly user: User | undefined,
    private readonly permanent: boolean,
  ) {}

  check(): boolean {
    return true;
  }

  async run(model: Model, world: World): Promise<void> {
    const { user, permanent } = this;
    await world.next(model);
    const visit = model.begin(user ?? null, permanent);
    const made = await world.processes[this.process]!.visits.create({ permanent, ...(user && { userId: user }) });
    visit.id = made.visit.id;
    visit.current.text = made.key;
    model.keys.push(made.key);
    model.cookies[this.browser] = made.key;
    expectSame(made.visit.userId, visit.user, 'R33: whose the visit is');
    expectTold(world.takeTold(), [{ event: 'new', visit }]);
  }

  toString(): string {
    return (
      `process ${this.process} makes a ${this.permanent ? 'permanent ' : ''}visit of ${this.user ?? 'nobody'} for ` +
      `browser ${this.browser}`
    );
  }
}

class Wait implements Command {
  constructor(private readonly milliseconds: number) {}

  check(): boolean {
    return true;
  }

  run(model: Model, world: World): Promise<void> {
    return world.wait(model, this.milliseconds);
  }

  toString(): string {
    return `${this.milliseconds / 1000} s go by`;
  }
}

class Flush implements Command {
  constructor(private readonly process: number) {}

  check(): boolean {
    return true;
  }

  run(_model: Model, world: World): Promise<void> {
    return world.processes[this.process]!.visits.flush();
  }

  toString(): string {
    return `process ${this.process} writes the touches that wait`;
  }
}

class Expunge implements Command {
  constructor(private readonly process: number) {}

  check(): boolean {
    return true;
  }

  async run(model: Model, world: World): Promise<void> {
    await world.next(model);
    const stale = model.expunge();
    const counts = { visits: stale.length, identities: stale.filter(({ user }) => user !== null).length };
    expectSame(await world.processes[this.process]!.expunge.run({ keepDays: 0 }), counts, 'R61: what is expunged');
  }

  toString(): string {
    return `process ${this.process} expunges`;
  }
}

class Wipe implements Command {
  constructor(private readonly process: number) {}

  check(): boolean {
    return true;
  }

  async run(model: Model, world: World): Promise<void> {
    await world.next(model);
    const wiped = model.wipe(model.now - 2 * TOUCH_INTERVAL);
    expectSame(await world.processes[this.process]!.expunge.wipeExpired(), wiped, 'R62: how many are wiped');
  }

  toString(): string {
    return `process ${this.process} wipes what has expired`;
  }
}

const anyProcess = fc.nat({ max: 1 });

const anyRequest = fc
  .record({
    sender: anySender,
    process: anyProcess,
    acts: fc.oneof(
      { weight: 2, arbitrary: fc.constant<Act[]>([]) },
      { weight: 6, arbitrary: anyAct.map((one) => [one]) },
      { weight: 2, arbitrary: fc.array(anyAct, { minLength: 2, maxLength: 3 }) },
      { weight: 1, arbitrary: writesAtOnce.map((one) => [one]) },
      { weight: 1, arbitrary: fc.tuple(anyAct, writesAtOnce) },
    ),
    looks: fc.boolean(),
    passive: fc.constantFrom(false, false, false, true),
  })
  .map((parts) => new Request(parts));

/** Each command takes a millisecond, so that the last of two steps is before, at or after the limit. */
const around = (limit: number): number[] => [limit - 2, limit - 1, limit];

const anyWait = fc
  .oneof(
    { weight: 3, arbitrary: fc.constantFrom(1000, ...around(LATE_WINDOW)) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(...around(RENEWAL_GRACE), ...around(RENEWAL_GRACE + LATE_WINDOW), RENEWAL_GRACE / 2),
    },
    {
      weight: 3,
      arbitrary: fc.constantFrom(
        70_000,
        TIMEOUT / 2,
        TIMEOUT - 3 * TOUCH_INTERVAL,
        TIMEOUT - TOUCH_INTERVAL,
        ...around(TIMEOUT),
      ),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(...around(PERMANENT_TIMEOUT / 2), ...around(PERMANENT_TIMEOUT), ABSOLUTE_TIMEOUT),
    },
  )
  .map((milliseconds) => new Wait(milliseconds));

/** What may happen next. */
const anyCommand: readonly { readonly weight: number; readonly arbitrary: fc.Arbitrary<Command> }[] = [
  { weight: 30, arbitrary: anyRequest },
  { weight: 8, arbitrary: anyWait },
  { weight: 1, arbitrary: fc.tuple(anyProcess, anyActElsewhere).map((parts) => new Elsewhere(...parts)) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(anyProcess, fc.nat({ max: BROWSERS - 1 }), fc.option(anyUser, { nil: undefined }), fc.boolean())
      .map((parts) => new HandOver(...parts)),
  },
  { weight: 1, arbitrary: anyProcess.map((process) => new Flush(process)) },
  { weight: 1, arbitrary: anyProcess.map((process) => new Expunge(process)) },
  { weight: 1, arbitrary: anyProcess.map((process) => new Wipe(process)) },
];

export const anyHistory = (replayPath: string | undefined) =>
  fc.commands<Model, World, false>([fc.oneof(...anyCommand)], {
    maxCommands: 40,
    size: 'max',
    ...(replayPath !== undefined && { replayPath }),
  });
