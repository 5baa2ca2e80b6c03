import { Logger } from '@nestjs/common';
import { VisitNestedCallError } from '../errors/visit.error.js';
import type { RequestContext } from './request.context.js';
import { reasonOf } from '../errors/failure.js';

/**
 * The right to write for a request, while its work is running. The writes of one request take turns, in the order of
 * the calls (law 6). Code that writes takes a turn as an argument, so a write without one does not compile.
 */
export class Turn {
  private isOver = false;

  private constructor(
    readonly context: RequestContext,
    /** The call of the application, such as `session.save()`. */
    readonly act: string,
  ) {}

  /**
   * Runs the work after all earlier turns. Its callbacks run within it: a call of the same request inside them would
   * wait for itself.
   *
   * @returns a promise that does not end the process if it is not awaited: its failure fails the request
   * @throws VisitNestedCallError inside a turn of the same request; VisitNotResolvedError after the end of the request
   */
  static take<T>(context: RequestContext, act: string, work: (turn: Turn) => Promise<T>): Promise<T> {
    const { requests } = context.environment;
    const { turns } = context;
    const { scope } = requests;
    const outer = scope?.turn;
    const own = scope?.context === context ? scope : context.scope;
    // The response waits for it, even if the caller does not (law 7).
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
    // It fails immediately, because otherwise it would wait for the turn that waits for it.
    if (outer && outer.context === context && !outer.isOver) return turns.note(start());
    return turns.add(start);
  }
}

/** A promise that knows whether it is awaited. */
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

  /** Whether a write is running, or one that was not awaited has failed. */
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

  /** If the promise is not awaited, keeps the process alive and remembers the failure. */
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

  /**
   * Resolves after all turns.
   *
   * @throws the failure of one that was not awaited, once
   */
  async settle(): Promise<void> {
    while (this.last) await this.last;
    const failures = this.failures?.filter(({ promise }) => !promise.isWatched);
    this.failures = undefined;
    if (failures && failures.length > 0) throw failures[0]!.error;
  }
}

const ignore = (): void => {};
