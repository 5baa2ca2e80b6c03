import { AsyncLocalStorage } from 'node:async_hooks';
import { Injectable } from '@nestjs/common';
import { VisitNotResolvedError } from '../errors/visit.error.js';
import { skipped, type RequestContext } from './request.context.js';
import { Turn } from './turn.js';

/** For which request code runs, and as what. */
export interface Scope {
  readonly context: RequestContext;
  /** Within a handler with `@SkipVisit()`. */
  readonly isSkipped: boolean;
  /** Within a write of the request, and what is called back by it. */
  readonly turn: Turn | undefined;
}

/**
 * The request that code runs for, where it has no request at hand: in services and the injected session.
 *
 * The asynchronous context alone does not say that. It follows from whoever registered a callback, and a pool of
 * connections or an event emitter may call back in that of another request. So it is entered anew wherever the request
 * itself is known, and it ends with the response (law 8).
 */
@Injectable()
export class CurrentRequest {
  private readonly running = new AsyncLocalStorage<Scope>();

  get scope(): Scope | undefined {
    return this.running.getStore();
  }

  run<T>(scope: Scope, work: () => T): T {
    return this.running.run(scope, work);
  }

  /**
   * From here on, for the rest of what runs now and whatever awaits it. For guards, which cannot call what comes after
   * them.
   */
  enter(scope: Scope): void {
    if (this.running.getStore() !== scope) this.running.enterWith(scope);
  }

  /**
   * No request runs any more. Node carries each storage that is in use along with every promise, also after the end of
   * its application.
   */
  close(): void {
    this.running.disable();
  }

  /** The request, if there is one and it is not over. */
  get context(): RequestContext | undefined {
    const context = this.running.getStore()?.context;
    return context?.isOver ? undefined : context;
  }

  /**
   * The request, which must have a visit.
   *
   * @throws VisitNotResolvedError outside of a request, after it, and under `@SkipVisit()`; VisitStoreUnavailableError
   * when the store could not be asked
   */
  require(): RequestContext {
    const scope = this.running.getStore();
    if (!scope) throw new VisitNotResolvedError('there is no request here, so there is no visit, session or user');
    return this.requireIn(scope.context);
  }

  /** The same for the request itself: within a handler that wants no visit, it has none. */
  requireIn(context: RequestContext): RequestContext {
    const scope = this.running.getStore();
    context.requireOpen();
    if (context.isSkipped || (scope?.context === context && scope.isSkipped)) throw skipped();
    context.requireVisit();
    return context;
  }

  /** A write of the request, in its turn. @throws like `require`; what the work throws */
  take<T>(act: string, work: (turn: Turn) => Promise<T>): Promise<T> {
    return this.write((context) => Turn.take(context, act, work));
  }

  /**
   * A call that may write. What it cannot do ends no process either, if nobody awaits it.
   *
   * @throws like `require`; what the work throws
   */
  write<T>(work: (context: RequestContext) => Promise<T>): Promise<T> {
    try {
      return work(this.require());
    } catch (error) {
      return this.refuse(error);
    }
  }

  /** A call that may write cannot be done. Ends no process if nobody awaits it. */
  refuse<T>(error: unknown): Promise<T> {
    return this.watch(Promise.reject(error));
  }

  /** If nobody awaits the call and it fails, it fails its request, and no process. */
  watch<T>(call: Promise<T>): Promise<T> {
    return this.scope ? this.scope.context.turns.note(call) : call;
  }
}
