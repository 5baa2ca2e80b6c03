import { Inject, Injectable, type CallHandler, type ExecutionContext, type NestInterceptor } from '@nestjs/common';
import { map, Observable, type Observer, type Subscriber, type Subscription } from 'rxjs';
import type { HandlerPolicy } from '../context/handler-policy.js';
import { findContextIn, type HeldLock, type RequestContext } from '../context/request.context.js';
import { SocketOperations } from '../context/socket-operations.js';
import { readHandlerPolicy } from './handler-policy.js';
import { RequestStory } from './request.story.js';

/** Runs around the handler: records the visit before it, and saves the session after it and before the response. */
@Injectable()
export class VisitInterceptor implements NestInterceptor {
  constructor(
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(SocketOperations) private readonly operations: SocketOperations,
  ) {}

  intercept(execution: ExecutionContext, next: CallHandler): Observable<unknown> {
    const context = findContextIn(execution);
    if (!context || !this.story.owns(context)) return next.handle();
    // Since NestJS 12, it runs twice for gateways.
    if (execution.getType() === 'ws' && context.handlers > 0) return next.handle();
    const policy = readHandlerPolicy(execution);
    const operation = execution.getType<string>() === 'graphql' ? this.operations.find(execution) : undefined;
    const handler = operation ? { handle: () => next.handle().pipe(map((result) => operation.watch(result))) } : next;
    // A custom Observable: an async interceptor, or operators, would cost several promises per request.
    return new Observable((subscriber) =>
      policy.skip ? runAside(context, handler, subscriber) : this.run(context, policy, handler, subscriber),
    );
  }

  private run(
    context: RequestContext,
    policy: HandlerPolicy,
    next: CallHandler,
    subscriber: Subscriber<unknown>,
  ): () => void {
    const { story } = this;
    let handler: Subscription | undefined;
    let mark: unknown;
    let lock: HeldLock | undefined;
    let isDone = false;
    let unfollow: (() => void) | undefined;
    let isGivenUp = false;
    const end = (): void => void story.end(context, lock);
    const leave = (): void => {
      handler?.unsubscribe();
      context.handlers--;
      end();
    };
    const run = (): void => {
      if (policy.exclusive !== undefined) lock = context.lock;
      // Aborted while it waited: the lock is released as soon as it is acquired.
      if (subscriber.closed) return end();
      mark = context.heldSession?.mark() ?? null;
      const observe = policy.events ? observeEvents : context.exchange.isMessage ? observeAnswers : observeResult;
      const observer = observe(
        story,
        context,
        subscriber,
        (error) => story.fail(context, error, mark),
        () => (isDone = true),
        // Exclusive access ends with the handler, so its changes must be saved by then.
        policy.sends && policy.exclusive === undefined,
      );
      if (policy.events) {
        unfollow = story.follow(context, () => {
          isDone = true;
          subscriber.complete();
        });
      }
      const kept = lock ? untilGivenUp(observer, () => isGivenUp, leave) : observer;
      handler = context.environment.requests.run(context.scope, () => next.handle().subscribe(kept));
    };
    const refuse = (error: unknown): void => {
      story.noteRefusal(error);
      subscriber.error(context.exchange.errorFor(error));
    };
    context.handlers++;
    try {
      const beginning = story.begin(context, policy);
      if (beginning) beginning.then(run).catch(refuse);
      else run();
    } catch (error) {
      refuse(error);
    }
    return () => {
      unfollow?.();
      // Aborted from outside, by a timeout or because the client has disconnected: handled as if it had failed.
      isGivenUp = handler !== undefined && !isDone;
      if (isGivenUp) void story.fail(context, undefined, mark);
      // The handler continues, even if nothing waits for it; its exclusive access ends with it.
      if (isGivenUp && lock && !policy.events) return;
      leave();
    };
  }
}

/** Passes on values until it is unsubscribed, and then waits for the first sign that the handler is done. */
function untilGivenUp(observer: Observer<unknown>, isGivenUp: () => boolean, leave: () => void): Observer<unknown> {
  return {
    next: (value) => (isGivenUp() ? leave() : observer.next(value)),
    error: (error) => (isGivenUp() ? leave() : observer.error(error)),
    complete: () => (isGivenUp() ? leave() : observer.complete()),
  };
}

/** Runs a handler without a visit. */
function runAside(context: RequestContext, next: CallHandler, subscriber: Subscriber<unknown>): () => void {
  context.handlers++;
  const answers: Observer<unknown> = {
    next: (value) => subscriber.next(value),
    error: (error) => subscriber.error(context.exchange.errorFor(error)),
    complete: () => subscriber.complete(),
  };
  const handler = context.environment.requests.run(context.skippedScope, () => next.handle().subscribe(answers));
  return () => {
    handler.unsubscribe();
    context.handlers--;
  };
}

type Observe = (
  story: RequestStory,
  context: RequestContext,
  subscriber: Subscriber<unknown>,
  fail: (error: unknown) => Promise<void> | undefined,
  done: () => void,
  sends: boolean,
) => Observer<unknown>;

/** Delays the last value until the session is saved. */
const observeResult: Observe = (story, context, subscriber, fail, done, sends) => {
  let held: { value: unknown } | undefined;
  const refuse = (error: unknown): void => subscriber.error(error);
  return {
    next(value) {
      if (held) subscriber.next(held.value);
      held = { value };
    },
    error(error) {
      done();
      after(
        () => fail(error),
        () => refuse(error),
        refuse,
      );
    },
    complete() {
      done();
      const deliver = (): void => {
        if (held) subscriber.next(held.value);
        subscriber.complete();
      };
      // An error of the library would collide with the response that the handler is still preparing: the response saves
      // when it is sent.
      if (sends && !context.haveHeadersLeft) deliver();
      else after(() => story.save(context), deliver, refuse);
    },
  };
};

/** Server-sent events: the headers are sent with the first event, so the session is saved before it. */
const observeEvents: Observe = (story, context, subscriber, fail, done) => {
  let saved: Promise<void> | undefined;
  const refuse = (error: unknown): void => subscriber.error(error);
  const save = async (): Promise<void> => story.save(context);
  const inOrder = (emit: () => void): void => {
    saved = (saved ?? save()).then(emit);
    saved.catch(refuse);
  };
  return {
    next: (event) => inOrder(() => subscriber.next(event)),
    error(error) {
      if (saved) inOrder(() => subscriber.error(error));
      else observeResult(story, context, subscriber, fail, done, false).error(error);
      done();
    },
    complete() {
      done();
      inOrder(() =>
        after(
          () => story.save(context),
          () => subscriber.complete(),
          refuse,
        ),
      );
    },
  };
};

/** Answers to a message: each one is sent after earlier changes were saved. Their order is kept. */
const observeAnswers: Observe = (story, context, subscriber, fail, done) => {
  let last: Promise<void> | undefined;
  const refuse = (error: unknown): void => subscriber.error(context.exchange.errorFor(error));
  const inOrder = (step: () => Promise<void> | undefined, emit: () => void): void => {
    if (!last) {
      after(step, emit, refuse, (waiting) => {
        last = waiting;
      });
      return;
    }
    last = last.then(step).then(emit);
    last.catch(refuse);
  };
  const save = (): Promise<void> | undefined => story.save(context);
  return {
    next: (value) => inOrder(save, () => subscriber.next(value)),
    error(error) {
      done();
      inOrder(
        () => fail(error),
        () => refuse(error),
      );
    },
    complete() {
      done();
      inOrder(save, () => subscriber.complete());
    },
  };
};

/** Continues immediately if there is nothing to wait for. */
function after(
  step: () => Promise<void> | undefined,
  proceed: () => void,
  refuse: (error: unknown) => void,
  note?: (waiting: Promise<void>) => void,
): void {
  let waiting: Promise<void> | undefined;
  try {
    waiting = step();
  } catch (error) {
    refuse(error);
    return;
  }
  if (!waiting) return proceed();
  const proceeded = waiting.then(() => proceed());
  note?.(proceeded);
  proceeded.catch(refuse);
}
