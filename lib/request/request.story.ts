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
 * 1. `open`: it arrives, and gets its context.
 * 2. `find`: whose visit is it? Reads only. A failure is kept for whoever needs the visit.
 * 3. `applyPolicy`: the handler is known, before all guards. Where it wants the key from elsewhere, the visit is found
 *   anew.
 * 4. `begin`: the handler is about to run. The visit is recorded as used; exclusive access is waited for.
 * 5. The handler runs, with `@Session()`, `@CurrentVisit()` and the injected services.
 * 6. `save` or `fail`: what the handler has changed is stored, or forgotten.
 * 7. The response leaves, whoever sends it; it waits for whatever is still unsaved (`OutgoingResponse`).
 *
 * Each step gives a promise, or undefined when there is nothing to wait for: most requests wait for the look-up alone.
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

  /**
   * Opens the context of a request and looks for its visit; `proceed` is called when that is done, within the context.
   */
  enter(request: FrameworkRequest, response: FrameworkResponse, proceed: () => void): void {
    const context = new RequestContext(this.environment, new Exchange(request, response), this.options.clock.now());
    attachContext(request, context);
    this.requests.run(context.scope, () => {
      const finding = this.finder.find(context);
      if (finding) void finding.then(() => proceed());
      else proceed();
    });
  }

  /** Whether this application has opened the context: several in one process do not share any. */
  owns(context: RequestContext): boolean {
    return context.environment === this.environment;
  }

  /**
   * The body has been parsed: a key may be in it. Proceeds in the context of this request, whatever the one is in which
   * this is called: middleware may have been called back in that of another request.
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
   * Does the work in the context of this request, and in whatever it was called when it is done: another request may
   * have called it back.
   */
  within<T>(request: FrameworkRequest, work: () => T): T {
    const context = findContext(request);
    if (!context || !this.owns(context) || this.requests.scope?.context === context) return work();
    return this.requests.run(context.scope, work);
  }

  /** The handler is known: called by the first of all guards, and again by whoever relies on it. */
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
   * The handler is about to run.
   *
   * @throws VisitStoreUnavailableError (503) when the visit could not be looked for; VisitLockedError (423)
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
   * The handler answers with a stream: it ends with the visit.
   *
   * @param end called once then
   * @returns what ends that, when the stream is over
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
   * A message has come that has no response of its own, on a connection: it is served like a request from here on.
   * `find` comes next.
   */
  open(exchange: MessageExchange): RequestContext {
    return new RequestContext(this.environment, exchange, this.options.clock.now());
  }

  /** Finds the visit of a message. @param keys those that the connection was opened with, as far as they are good */
  find(context: RequestContext, keys: readonly VisitKey[]): Promise<void> | undefined {
    return this.requests.run(context.scope, () => this.finder.findBy(context, keys));
  }

  /** Whether the store knows visits only by what comes with a request. */
  get clientsKeepVisits(): boolean {
    return this.environment.clientsKeepVisits;
  }

  /** Reports keys that open nothing, where no handler will do it. */
  reportRefusals(context: RequestContext): Promise<void> | undefined {
    return this.recorder.reportRefusals(context);
  }

  /** A request is not served, because of this. Only what the library itself has thrown is counted. */
  noteRefusal(error: unknown): void {
    if (error instanceof VisitError) this.options.telemetry?.count({ is: 'refused', code: error.code });
  }

  /** The handler is done, whatever became of it. @param lock the exclusive access that it had */
  end(context: RequestContext, lock: HeldLock | undefined): Promise<void> | undefined {
    return lock && this.lock.leave(context, lock);
  }

  /**
   * The handler has succeeded. What it has changed is stored when this resolves; undefined: there was nothing.
   *
   * @throws VisitHeadersSentError when its response has left before the change
   */
  save(context: RequestContext): Promise<void> | undefined {
    if (context.haveHeadersLeft && !context.exchange.isMessage && !context.isWriting && this.unsaved.isIn(context)) {
      this.unsaved.forget(context);
      throw new VisitHeadersSentError('The session was changed');
    }
    return this.unsaved.save(context);
  }

  /**
   * The handler has failed. An answer meant for the client (4xx) is an end like another one; after anything else
   * nothing that the handler has changed is saved, whoever saves later.
   *
   * @param mark what had been changed before the handler ran
   */
  fail(context: RequestContext, error: unknown, mark: unknown): Promise<void> | undefined {
    if (error instanceof HttpException && error.getStatus() < 500) return this.save(context);
    this.unsaved.forget(context, mark);
    return undefined;
  }
}

/** Takes the steps one after the other, and waits only for those that have something to wait for. */
function inOrder(steps: readonly (() => Promise<void> | undefined)[], from = 0): Promise<void> | undefined {
  for (let index = from; index < steps.length; index++) {
    const step = steps[index]!();
    if (step) return step.then(() => inOrder(steps, index + 1));
  }
  return undefined;
}
