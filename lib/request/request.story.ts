import { HttpException, Inject, Injectable } from '@nestjs/common';
import { CurrentRequest } from '../context/current-request.js';
import type { HandlerPolicy } from '../context/handler-policy.js';
import { SessionLife } from '../context/session-life.js';
import {
  attachContext,
  findContext,
  RequestContext,
  type HeldLock,
  type RequestEnvironment,
} from '../context/request.context.js';
import { VisitError, VisitHeadersSentError } from '../errors/visit.error.js';
import type { VisitKey } from '../key/visit-key.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { Exchange, type FrameworkRequest, type FrameworkResponse } from '../platform/exchange.js';
import type { MessageExchange } from '../platform/handshake.js';
import { SessionLock } from '../session/session.lock.js';
import { SessionSaver } from '../session/session.saver.js';
import type { VisitRecord } from '../store/visit.store.js';
import { OpenStreams } from '../visit/open-streams.js';
import { OutgoingResponse } from './outgoing.response.js';
import { UnsavedWork } from './unsaved.work.js';
import { VisitFinder } from './visit.finder.js';
import { VisitRecorder } from './visit.recorder.js';

/**
 * The story of a request.
 *
 * 1. `open`: the request arrives and gets its context.
 * 2. `find`: its visit is looked up. This only reads. An error is kept for the code that needs the visit.
 * 3. `applyPolicy`: the handler is known, before all guards. If it reads keys from another source, the visit is looked
 *    up again.
 * 4. `begin`: the handler is about to run. The visit is recorded as used, and exclusive access is acquired.
 * 5. The handler runs, with `@Session()`, `@CurrentVisit()` and the injected services.
 * 6. `save` or `fail`: the changes of the handler are stored or discarded.
 * 7. The response is sent, by any code. It waits for unsaved changes (`OutgoingResponse`).
 *
 * Each step returns a promise, or undefined if there is nothing to wait for: most requests only wait for the look-up.
 */
@Injectable()
export class RequestStory {
  private readonly environment: RequestEnvironment;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(VisitFinder) private readonly finder: VisitFinder,
    @Inject(VisitRecorder) private readonly recorder: VisitRecorder,
    @Inject(UnsavedWork) private readonly unsaved: UnsavedWork,
    @Inject(SessionLock) private readonly lock: SessionLock,
    @Inject(OpenStreams) private readonly streams: OpenStreams,
    @Inject(SessionSaver) saver: SessionSaver,
    @Inject(SessionLife) life: SessionLife,
    @Inject(OutgoingResponse) responses: OutgoingResponse,
  ) {
    this.environment = {
      options,
      requests,
      life,
      clientsKeepVisits: responses.clientsKeepVisits,
      sessionOf: (context) => saver.sessionOf(context),
      watchResponse: (context) => responses.watch(context, () => unsaved.save(context)),
    };
  }

  /** Opens the context of a request and looks up its visit. Then calls `proceed` within the context. */
  enter(request: FrameworkRequest, response: FrameworkResponse, proceed: () => void): void {
    const context = new RequestContext(this.environment, new Exchange(request, response), this.options.clock.now());
    attachContext(request, context);
    this.requests.run(context.scope, () => {
      const finding = this.finder.find(context);
      if (finding) void finding.then(() => proceed());
      else proceed();
    });
  }

  /** Whether this application has opened the context. Several applications in one process do not share contexts. */
  owns(context: RequestContext): boolean {
    return context.environment === this.environment;
  }

  /**
   * Called after the body has been parsed, because it may contain a key. Proceeds in the context of this request:
   * middleware may have been called back in the context of another request.
   */
  reenter(request: FrameworkRequest, proceed: () => void): void {
    const context = findContext(request);
    if (!context || !this.owns(context)) return proceed();
    if (this.requests.scope === context.scope && !this.finder.readsBodies) return proceed();
    this.requests.run(context.scope, () => {
      const finding = this.finder.findInBody(context);
      if (finding) void finding.then(() => proceed());
      else proceed();
    });
  }

  /**
   * Runs the work in the context of this request, and restores the caller's context afterwards, because another request
   * may have called back.
   */
  within<T>(request: FrameworkRequest, work: () => T): T {
    const context = findContext(request);
    if (!context || !this.owns(context) || this.requests.scope?.context === context) return work();
    return this.requests.run(context.scope, work);
  }

  /** Called when the handler is known: by the first of all guards, and again by code that relies on it. */
  applyPolicy(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    if (context.policy === policy) return context.applyingPolicy;
    context.policy = policy;
    context.applyingPolicy = undefined;
    const { lookup } = context;
    const isSettled = lookup.is === 'failed' || (lookup.is === 'done' && lookup.resolution.outcome === 'found');
    if (policy.skip || (isSettled && !policy.source && !this.finder.readsBodies)) return undefined;
    return (context.applyingPolicy = inOrder([
      () => this.finder.findInBody(context),
      () => this.finder.findFor(context, policy, () => this.unsaved.save(context)),
      () => this.recorder.reportRefusals(context),
    ]));
  }

  /**
   * Called before the handler runs.
   *
   * @throws VisitStoreUnavailableError (503) if the look-up of the visit failed; VisitLockedError (423)
   */
  begin(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    const { exclusive } = policy;
    const applying = this.applyPolicy(context, policy);
    if (!applying && exclusive === undefined) return this.recorder.record(context, policy);
    return inOrder([
      () => applying,
      () => this.recorder.record(context, policy),
      () => (exclusive === undefined ? undefined : this.lock.enter(context, exclusive)),
    ]);
  }

  /**
   * Called when the handler answers with a stream, which must end with the visit.
   *
   * @param end called once when the visit ends
   * @returns a function to call when the stream is over
   */
  follow(context: RequestContext, end: () => void): () => void {
    const userOf = ({ identity }: VisitRecord): string | undefined => identity?.userId;
    const { resolvedVisit } = context;
    if (!resolvedVisit) return () => undefined;
    return this.streams.add({
      visitId: resolvedVisit.record.id,
      get storedIn() {
        return context.visit.is !== 'stored' ? 'nowhere' : context.clientStorage ? 'client' : 'store';
      },
      get record() {
        return context.visit.record;
      },
      isForeign: (record) => userOf(context.visit.record) !== userOf(record),
      end,
    });
  }

  /**
   * Opens the context of a message on a connection, which has no response of its own. From here on, it is served like a
   * request. `find` comes next.
   */
  open(exchange: MessageExchange): RequestContext {
    return new RequestContext(this.environment, exchange, this.options.clock.now());
  }

  /**
   * Finds the visit of a message.
   *
   * @param keys the keys that the connection was opened with, as far as they are still valid
   */
  find(context: RequestContext, keys: readonly VisitKey[]): Promise<void> | undefined {
    return this.requests.run(context.scope, () => this.finder.findBy(context, keys));
  }

  /** Whether the store knows visits only from the data of a request. */
  get clientsKeepVisits(): boolean {
    return this.environment.clientsKeepVisits;
  }

  /** Reports refused keys if no handler will do so. */
  reportRefusals(context: RequestContext): Promise<void> | undefined {
    return this.recorder.reportRefusals(context);
  }

  /** Called when a request is not served because of this error. Only errors of the library are counted. */
  noteRefusal(error: unknown): void {
    if (error instanceof VisitError) this.options.telemetry?.count({ is: 'refused', code: error.code });
  }

  /**
   * Called when the handler is done, with any result.
   *
   * @param lock the exclusive access that the handler had
   */
  end(context: RequestContext, lock: HeldLock | undefined): Promise<void> | undefined {
    return lock && this.lock.leave(context, lock);
  }

  /**
   * Called when the handler has succeeded. When the promise resolves, its changes are stored; undefined: there were
   * none.
   *
   * @throws VisitHeadersSentError if the response was sent before the change
   */
  save(context: RequestContext): Promise<void> | undefined {
    if (context.haveHeadersLeft && !context.exchange.isMessage && !context.isWriting && this.unsaved.isIn(context)) {
      this.unsaved.forget(context);
      throw new VisitHeadersSentError('The session was changed');
    }
    return this.unsaved.save(context);
  }

  /**
   * Called when the handler has failed. A 4xx counts as a normal result. After any other error, the handler's changes
   * are never saved, not even later.
   *
   * @param mark the changes from before the handler ran
   */
  fail(context: RequestContext, error: unknown, mark: unknown): Promise<void> | undefined {
    if (error instanceof HttpException && error.getStatus() < 500) return this.save(context);
    this.unsaved.forget(context, mark);
    return undefined;
  }
}

/** Runs the steps one after the other, and waits only for those that return a promise. */
function inOrder(steps: readonly (() => Promise<void> | undefined)[], from = 0): Promise<void> | undefined {
  for (let index = from; index < steps.length; index++) {
    const step = steps[index]!();
    if (step) return step.then(() => inOrder(steps, index + 1));
  }
  return undefined;
}
