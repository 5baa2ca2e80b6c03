import { Logger } from '@nestjs/common';
import { VisitNestedCallError } from '../errors/visit.error.js';
import type { RequestContext } from './request.context.js';
import { reasonOf } from '../errors/failure.js';

/**
 * The right to write for a request, as long as its work runs. The writes of one request take turns, in the order in
 * which they were called (law 6); what writes takes a turn as its argument, so that a write without one does not
 * compile.
 */
export class Turn {
  private isOver = false;

  private constructor(
    readonly context: RequestContext,
    /** What the application called, such as `session.save()`. */
    readonly act: string,
  ) {}

  /**
   * Does the work when all turns before it are over. Its callbacks run within it: what they call of the same request
   * would wait for itself.
   *
   * @returns a promise that does not end the process if nobody awaits it: its failure fails the request
   * @throws VisitNestedCallError from within a turn of the same request; VisitNotResolvedError when the request is over
   */
  static take<T>(context: RequestContext, act: string, work: (turn: Turn) => Promise<T>): Promise<T> {
    const { requests } = context.environment;
    const { turns } = context;
    const { scope } = requests;
    const outer = scope?.turn;
    const own = scope?.context === context ? scope : context.scope;
    // The response waits for it, even if nobody else does (law 7).
    context.watchResponse();
    const start = async (): Promise<T> => {
      if (outer && outer.context === context && !outer.isOver) throw new VisitNestedCallError(act, outer.act);
      context.requireOpen();
      const turn = new Turn(context, act);
      try {
        return await requests.run({ context, isSkipped: own.isSkipped, turn }, () => work(turn));
      } catch (error) {
        context.noteFailure(error);
        throw error;
      } finally {
        turn.isOver = true;
      }
    };
    // It fails at once and not in the end, where it would wait for the turn that waits for it.
    if (outer && outer.context === context && !outer.isOver) return turns.note(start());
    return turns.add(start);
  }
}

/** A promise that knows whether anybody waits for it. */
class WatchedPromise<T> extends Promise<T> {
  isWatched = false;

  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  // oxlint-disable-next-line unicorn/no-thenable -- it is a promise; `await` calls this
  override then<A = T, B = never>(
    fulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.isWatched = true;
    return super.then(fulfilled, rejected);
  }
}

const logger = new Logger('Visit');

/** The turns of one request. */
export class TurnQueue {
  private last: Promise<unknown> | undefined;
  private failures: { readonly error: unknown; readonly promise: WatchedPromise<unknown> }[] | undefined;

  constructor(private readonly context: RequestContext) {}

  /** Whether a write is under way, or one has failed that nobody waited for. */
  get isBusy(): boolean {
    return this.last !== undefined || this.failures !== undefined;
  }

  add<T>(start: () => Promise<T>): Promise<T> {
    const result = this.last ? this.last.then(start) : start();
    const over = result.then(ignore, ignore).then(() => {
      if (this.last === over) this.last = undefined;
    });
    this.last = over;
    return this.note(result);
  }

  /** Keeps the process alive and the failure in mind, if nobody waits for this promise. */
  note<T>(result: Promise<T>): Promise<T> {
    const promise = new WatchedPromise<T>((resolve, reject) => void result.then(resolve, reject));
    void Promise.prototype.then.call(promise, undefined, (error: unknown) => {
      if (promise.isWatched) return;
      const { isOver, haveHeadersLeft, handlers } = this.context;
      if (isOver || (haveHeadersLeft && handlers === 0))
        logger.error(`A write that was not awaited failed after the response: ${reasonOf(error)}`);
      else (this.failures ??= []).push({ error, promise });
    });
    return promise;
  }

  /** Resolves when all turns are over. @throws the failure of one that nobody waited for, once */
  async settle(): Promise<void> {
    while (this.last) await this.last;
    const failures = this.failures?.filter(({ promise }) => !promise.isWatched);
    this.failures = undefined;
    if (failures && failures.length > 0) throw failures[0]!.error;
  }
}

const ignore = (): void => {};
