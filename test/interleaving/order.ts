import type { DatabaseName } from '../support/databases.js';
import { PATIENCE } from '../support/patience.js';
import type { Gate } from './gate.js';
import type { Monitor } from './monitor.js';

/** What sends statements: one process, in one order. */
export interface Part {
  readonly gate: Gate;
  readonly connection: number;
  run(): Promise<void>;
}

/** A moment at which somebody could go on. */
export interface Crossing {
  /** Who could, by number. */
  readonly able: readonly number[];
  /** Whom of them it is worth to let go. */
  readonly choices: readonly number[];
  readonly chosen: number;
}

export interface Step {
  readonly actor: number;
  readonly sql: string;
  /** Who may have changed something since the step before: the actor, and those whom it released from a lock. */
  readonly moved: readonly number[];
}

export interface Course {
  readonly crossings: readonly Crossing[];
  readonly steps: readonly Step[];
}

export interface CourseOptions {
  readonly database: DatabaseName;
  readonly monitor: Monitor;
  /** Who goes first, second … */
  readonly schedule: readonly number[];
  /** Decides where the schedule is silent. */
  readonly choose: (choices: readonly number[]) => number;
  /** Leaves out orders that differ from another one only in which of two neighboring reads comes first. */
  readonly skipReads: boolean;
  readonly rewrite: (sql: string) => string;
  readonly onStep: (step: Step) => Promise<void>;
  /** Ends the run: nobody waits for it any more. */
  readonly signal: AbortSignal;
}

/**
 * Begins a transaction, which holds and sees nothing before its first real statement. So it goes together with that
 * one.
 */
const PRELUDE = /^(START TRANSACTION|SET TRANSACTION|SAVEPOINT)\b/;
const BEGIN = /^(START TRANSACTION|BEGIN|SAVEPOINT)\b/;
const IMMEDIATE = 'BEGIN IMMEDIATE';
const END = /^(COMMIT|ROLLBACK(?! TO)|RELEASE)\b/;
const READ = /^SELECT\b(?!.*FOR UPDATE)/s;
const NO_WRITE = /^(SELECT|COMMIT|ROLLBACK|RELEASE)\b/;

/**
 * Most statements are answered before this many milliseconds; after them the database is asked whether it waits for a
 * lock, and again and again.
 */
const FIRST_LOOK = 2;
const LONGEST_LOOK = 50;

/**
 * A schedule that cannot be kept. A database may refuse a statement for reasons of its own, as SQLite does while it
 * tidies its log, and the library tries it again: orders with such a step are not there a second time.
 */
export class OffCourse extends Error {}

class Actor {
  /**
   * `computing`: between two statements. `waiting`: at the gate. `sending`: a statement is with the database.
   * `blocked`: there, at a lock.
   */
  state: 'computing' | 'waiting' | 'sending' | 'blocked' | 'done' = 'computing';
  sql = '';
  inTransaction = false;
  hasWritten = false;
  go: () => void = () => {};

  constructor(
    readonly number: number,
    readonly part: Part,
  ) {}
}

/**
 * Runs parts side by side, one statement at a time, in an order of our choice. A part that waits for a lock of another
 * one is left there; when it gets the lock its statement ends by itself, as a consequence of the other's step.
 */
export class Conductor {
  private readonly actors: readonly Actor[];
  private readonly crossings: Crossing[] = [];
  private readonly steps: Step[] = [];
  private changed: () => void = () => {};
  private failure: unknown;

  constructor(
    parts: readonly Part[],
    private readonly options: CourseOptions,
  ) {
    this.actors = parts.map((part, number) => new Actor(number, part));
  }

  async run(): Promise<Course> {
    const { schedule, choose, onStep } = this.options;
    for (const actor of this.actors) this.start(actor);
    try {
      await this.settle();
      let isTwin = false;
      while (this.actors.some(({ state }) => state !== 'done')) {
        const able = this.actors.filter((actor) => this.isAble(actor)).map(({ number }) => number);
        if (able.length === 0) throw this.stuck();
        const fresh = able.filter((number) => !this.isTwin(number));
        if (fresh.length === 0) isTwin = true;
        const planned = schedule[this.crossings.length];
        if (planned !== undefined && !able.includes(planned)) {
          throw new OffCourse(`step ${this.crossings.length}: ${planned} cannot go on, only ${able.join(', ')} can`);
        }
        const choices = isTwin ? able.slice(0, 1) : fresh;
        const chosen = planned ?? choose(choices);
        this.crossings.push({ able, choices, chosen });
        const actor = this.actors[chosen]!;
        const { sql } = actor;
        const blocked = this.actors.filter(({ state }) => state === 'blocked');
        actor.state = 'sending';
        actor.go();
        await this.settle();
        const released = blocked.filter(({ state }) => state !== 'blocked');
        const step = { actor: chosen, sql, moved: [chosen, ...released.map(({ number }) => number)] };
        this.steps.push(step);
        await onStep(step);
      }
      return { crossings: this.crossings, steps: this.steps };
    } finally {
      await this.release();
    }
  }

  private start(actor: Actor): void {
    const { rewrite } = this.options;
    actor.part.gate.pass = async (sql, execute) => {
      // On SQLite nobody else can write after this, so what follows may as well go with it.
      const isSecond = actor.sql.startsWith(IMMEDIATE) && actor.inTransaction;
      if (isSecond) actor.sql = sql;
      else if (!PRELUDE.test(sql)) {
        actor.sql = sql;
        actor.state = 'waiting';
        await new Promise<void>((resolve) => {
          actor.go = resolve;
          this.changed();
        });
      }
      try {
        const result = await execute(rewrite(sql));
        if (BEGIN.test(sql)) actor.inTransaction = true;
        if (!PRELUDE.test(sql) && !NO_WRITE.test(sql)) actor.hasWritten = actor.inTransaction;
        return result;
      } finally {
        if (END.test(sql)) actor.inTransaction = actor.hasWritten = false;
        actor.state = 'computing';
      }
    };
    actor.part
      .run()
      .catch((error: unknown) => (this.failure ??= error))
      .finally(() => {
        actor.state = 'done';
        this.changed();
      });
  }

  /** Lets all go who are still on their way, however this run came to an end. */
  private async release(): Promise<void> {
    for (const { part } of this.actors) delete part.gate.pass;
    while (this.actors.some(({ state }) => state !== 'done')) {
      const change = this.change();
      for (const actor of this.actors) if (actor.state === 'waiting') actor.go();
      if (!(await isWithin(change, PATIENCE))) throw this.stuck();
    }
  }

  private change(): Promise<void> {
    return new Promise((resolve) => (this.changed = resolve));
  }

  /**
   * Until everybody waits at a gate or a lock, or is done. A statement may take its time, as long as the database works
   * on it.
   */
  private async settle(): Promise<void> {
    for (const actor of this.actors) if (actor.state === 'blocked') actor.state = 'sending';
    let nextLook = FIRST_LOOK;
    let quietSince = performance.now();
    for (;;) {
      const change = this.change();
      const busy = this.actors.filter(({ state }) => state === 'computing' || state === 'sending');
      if (this.failure) throw this.failure;
      this.options.signal.throwIfAborted();
      if (busy.length === 0) return;
      const mayBeHeld = this.mayAllBeHeld(busy);
      if (await isWithin(change, mayBeHeld ? nextLook : PATIENCE)) {
        [nextLook, quietSince] = [FIRST_LOOK, performance.now()];
        continue;
      }
      const connections = busy.map(({ part }) => part.connection);
      // All of them, in one look, and nobody has gone on meanwhile: only then is it not just the moment before one
      // does.
      if (
        mayBeHeld &&
        (await this.options.monitor.areHeld(connections)) &&
        busy.every(({ state }) => state === 'sending')
      ) {
        for (const actor of busy) actor.state = 'blocked';
        return;
      }
      nextLook = Math.min(2 * nextLook, LONGEST_LOOK);
      if (performance.now() - quietSince < PATIENCE) continue;
      if (!(await this.options.monitor.isAtWork(connections)) || (await this.options.monitor.areHeld(connections)))
        throw this.stuck();
      quietSince = performance.now();
    }
  }

  /**
   * Somebody else has to go on before these do. If nobody can, they wait for each other, and the database will see that
   * it is a deadlock.
   */
  private mayAllBeHeld(busy: readonly Actor[]): boolean {
    if (this.options.database === 'sqlite' || busy.some(({ state }) => state === 'computing')) return false;
    return this.actors.some((other) => !busy.includes(other) && other.inTransaction);
  }

  /** Whoever is left neither goes on, nor waits at a gate, nor does the database work for them. */
  private stuck(): Error {
    const states = this.actors.map(({ number, state, sql }) => `${number} is ${state}: ${sql}`);
    return new Error(`nobody goes on; ${states.join('; ')}`);
  }

  private isAble(actor: Actor): boolean {
    if (actor.state !== 'waiting') return false;
    if (this.options.database !== 'sqlite' || NO_WRITE.test(actor.sql)) return true;
    // SQLite has one writer; a second one waits until the first one's transaction is over.
    return !this.actors.some((other) => other !== actor && other.hasWritten);
  }

  /**
   * Whether this one could as well have gone before the last one, to the same effect; the order where it did is another
   * one of ours.
   */
  private isTwin(number: number): boolean {
    const last = this.crossings.at(-1);
    const { sql } = this.actors[number]!;
    return (
      this.options.skipReads &&
      last !== undefined &&
      number < last.chosen &&
      last.able.includes(number) &&
      READ.test(sql) &&
      READ.test(this.steps.at(-1)!.sql)
    );
  }
}

/** Whether it happens within so many milliseconds. */
async function isWithin(event: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, milliseconds, false)));
  try {
    return await Promise.race([event.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
