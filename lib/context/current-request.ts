import { AsyncLocalStorage } from 'node:async_hooks';
import { Injectable } from '@nestjs/common';
import { VisitNotResolvedError } from '../errors/visit.error.js';
import { skipped, type RequestContext } from './request.context.js';
import { Turn } from './turn.js';

/** The request that code runs for, and its role. */
export interface Scope {
  readonly context: RequestContext;
  /** Within a handler with `@SkipVisit()`. */
  readonly isSkipped: boolean;
  /** The write of the request that is running, and its callbacks. */
  readonly turn: Turn | undefined;
}

/**
 * The request that code runs for, for services and the injected session, which have no request as an argument. The
 * asynchronous context alone does not identify it: a callback runs in the context in which it was registered, and a
 * connection pool or an event emitter may call back in the context of another request. So the context is entered again
 * wherever the request itself is known, and it ends with the response (law 8).
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
   * Enters the context for all following code of the current call. For guards, which cannot call the code that comes
   * after them.
   */
  enter(scope: Scope): void {
    if (this.running.getStore() !== scope) this.running.enterWith(scope);
  }

  /**
   * Called when no request runs any more. Otherwise Node would keep the storage in every promise, even after the end of
   * the application.
   */
  close(): void {
    this.running.disable();
  }

  /** The current request, if there is one and it is not over. */
  get context(): RequestContext | undefined {
    const context = this.running.getStore()?.context;
    return context?.isOver ? undefined : context;
  }

  /**
   * The current request, which must have a visit.
   *
   * @throws VisitNotResolvedError outside of a request, after its end, and under `@SkipVisit()`;
   * VisitStoreUnavailableError if the look-up failed
   */
  require(): RequestContext {
    const scope = this.running.getStore();
    if (!scope) throw new VisitNotResolvedError('there is no request here, so there is no visit, session or user');
    return this.requireIn(scope.context);
  }

  /** The same for a given request: in a handler without a visit, it throws. */
  requireIn(context: RequestContext): RequestContext {
    const scope = this.running.getStore();
    context.requireOpen();
    if (context.isSkipped || (scope?.context === context && scope.isSkipped)) throw skipped();
    context.requireVisit();
    return context;
  }

  /**
   * Runs a write of the request as one of its turns.
   *
   * @throws like `require`; errors of the work
   */
  take<T>(act: string, work: (turn: Turn) => Promise<T>): Promise<T> {
    return this.write((context) => Turn.take(context, act, work));
  }

  /**
   * Runs a call that may write. If it fails and is not awaited, the process does not end.
   *
   * @throws like `require`; errors of the work
   */
  write<T>(work: (context: RequestContext) => Promise<T>): Promise<T> {
    try {
      return work(this.require());
    } catch (error) {
      return this.refuse(error);
    }
  }

  /** Rejects a call that may write. If it is not awaited, the process does not end. */
  refuse<T>(error: unknown): Promise<T> {
    return this.watch(Promise.reject(error));
  }

  /** If the call fails and is not awaited, its request fails, but the process does not end. */
  watch<T>(call: Promise<T>): Promise<T> {
    return this.scope ? this.scope.context.turns.note(call) : call;
  }
}
