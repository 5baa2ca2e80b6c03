import { Inject, Injectable, type CallHandler, type ExecutionContext, type NestInterceptor } from '@nestjs/common';
import { Observable, type Observer, type Subscriber, type Subscription } from 'rxjs';
import { requestOf, type VisitContext } from '../visit.context.js';
import { VisitLifecycle } from '../visit.lifecycle.js';
import { readVisitPolicy } from './visit-policy.js';

/** The door around the handler: resolves the visit before it, saves the session after it and before the response. */
@Injectable()
export class VisitInterceptor implements NestInterceptor {
  constructor(@Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle) {}

  intercept(execution: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (execution.getType() !== 'http') return next.handle();
    const context = this.lifecycle.contextOf(requestOf(execution));
    if (!context) return next.handle();
    const policy = readVisitPolicy(execution);
    if (policy.skip) {
      context.policy = policy;
      this.lifecycle.skip(context);
      return next.handle();
    }
    const observe = policy.events ? observeEvents : observeResult;
    // An Observable of our own: an async interceptor, or operators, cost several promises per request.
    return new Observable((subscriber) => {
      let handler: Subscription | undefined;
      const run = (): void => {
        if (subscriber.closed) void this.lifecycle.leave(context);
        else handler = next.handle().subscribe(observe(this.lifecycle, context, subscriber));
      };
      const refuse = (error: unknown): void => subscriber.error(error);
      const resolved = this.lifecycle.resolve(context, policy);
      (policy.exclusive === undefined ? resolved : resolved.then(() => this.lifecycle.enter(context, policy))).then(run, refuse);
      return () => {
        handler?.unsubscribe();
        void this.lifecycle.leave(context);
      };
    });
  }
}

/** Holds the last value back until the session is saved. */
function observeResult(lifecycle: VisitLifecycle, context: VisitContext, subscriber: Subscriber<unknown>): Observer<unknown> {
  let held: { value: unknown } | undefined;
  const fail = (error: unknown): void => subscriber.error(error);
  return {
    next(value) {
      if (held) subscriber.next(held.value);
      held = { value };
    },
    error(error) {
      const saving = lifecycle.fail(context, error);
      if (saving) saving.then(() => fail(error), fail);
      else fail(error);
    },
    complete() {
      const deliver = (): void => {
        if (held) subscriber.next(held.value);
        subscriber.complete();
      };
      try {
        const saving = lifecycle.close(context);
        if (saving) saving.then(deliver, fail);
        else deliver();
      } catch (error) {
        fail(error);
      }
    },
  };
}

/** Server-sent events: headers leave with the first one, so the session is saved before it; what is changed later needs `session.save()`. */
function observeEvents(lifecycle: VisitLifecycle, context: VisitContext, subscriber: Subscriber<unknown>): Observer<unknown> {
  let saved: Promise<void> | undefined;
  const inOrder = (emit: () => void): void => {
    saved = (saved ?? Promise.resolve(lifecycle.close(context))).then(emit);
    saved.catch((error: unknown) => subscriber.error(error));
  };
  return {
    next: (event) => inOrder(() => subscriber.next(event)),
    error: (error) => (saved ? inOrder(() => subscriber.error(error)) : observeResult(lifecycle, context, subscriber).error(error)),
    complete: () => inOrder(() => subscriber.complete()),
  };
}
