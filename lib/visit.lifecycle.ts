import { AsyncLocalStorage } from 'node:async_hooks';
import { HttpException, Inject, Injectable, Logger, type ExecutionContext } from '@nestjs/common';
import { SessionDataError } from './errors/visit.error.js';
import { VisitHeaders } from './http/visit-headers.js';
import { readVisitPolicy } from './http/visit-policy.js';
import { RequestUser } from './identity/request-user.js';
import { VisitResolver } from './key/visit.resolver.js';
import { VISIT_OPTIONS } from './options/tokens.js';
import type { ResolvedVisitOptions } from './options/visit-options.interface.js';
import { Exchange, type FrameworkRequest, type FrameworkResponse } from './platform/exchange.js';
import { PluginRegistry } from './plugin/plugin.registry.js';
import { SessionLock } from './session/session.lock.js';
import { SessionSaver } from './session/session.saver.js';
import { attachContext, contextOf, findContext, VisitContext, type VisitPolicy } from './visit.context.js';
import { TouchQueue } from './visit/touch.queue.js';
import { VisitKeeper } from './visit/visit.keeper.js';
import { VisitView } from './visit/visit-view.js';

/**
 * The story of a request.
 *
 * 1. `open`: the request arrives; its context is made and entered. Nothing asynchronous.
 * 2. `resolve`: whose visit is it? Once per request, by whoever asks first: the interceptor, or a guard before it.
 * 3. `record`: the visit is in use; its expiry goes into the touch queue, plugins see it.
 * 4. The handler runs, with `@Session()`, `@CurrentVisit()` and the injected services.
 * 5. `close` or `fail`: what the session has changed is saved, before the response leaves.
 *
 * Doors (middleware, interceptor, guards, decorators, services) call this; no step asks an earlier one.
 */
@Injectable()
export class VisitLifecycle {
  private readonly logger = new Logger('Visit');
  private readonly running = new AsyncLocalStorage<VisitContext>();

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(VisitKeeper) private readonly keeper: VisitKeeper,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
    @Inject(VisitHeaders) private readonly headers: VisitHeaders,
    @Inject(SessionLock) private readonly lock: SessionLock,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
    @Inject(RequestUser) private readonly users: RequestUser,
  ) {
    headers.lateSave = (context) => this.saver.save(context);
  }

  open(request: FrameworkRequest, response: FrameworkResponse, next: () => void): void {
    const context = new VisitContext(
      new Exchange(request, response),
      this.options.clock.now(),
      this,
      (own) => this.saver.actionsOf(own),
      (own) => this.viewOf(own),
    );
    attachContext(request, context);
    this.running.run(context, next);
  }

  /** The context of the request that is being served, wherever its code runs. */
  get current(): VisitContext | undefined {
    return this.running.getStore();
  }

  /** The context of a request that this lifecycle has opened. */
  contextOf(request: FrameworkRequest): VisitContext | undefined {
    const context = findContext(request);
    return context?.owner === this ? context : undefined;
  }

  /** What the handler that is to be called asks for. */
  policyOf(execution: ExecutionContext): VisitPolicy {
    return readVisitPolicy(execution);
  }

  /**
   * Finds the visit of the request, or makes a new one.
   *
   * @param policy what the handler asks for; who has no handler at hand leaves it out
   * @throws VisitStoreUnavailableError when the store cannot be asked: that is never "no visit" (B18)
   */
  resolve(context: VisitContext, policy: VisitPolicy = readVisitPolicy()): Promise<void> {
    context.policy ??= policy;
    return (context.resolving ??= this.resolveOnce(context, context.policy));
  }

  /** The same for who comes before the interceptor: the request may be denied and never reach it, so the response is watched. */
  resolveEarly(context: VisitContext, policy?: VisitPolicy): Promise<void> {
    this.headers.watch(context);
    return this.resolve(context, policy);
  }

  private async resolveOnce(context: VisitContext, policy: VisitPolicy): Promise<void> {
    const sources = policy.source ?? this.options.source;
    if (this.headers.clientsKeepVisits) this.headers.attend(context);
    try {
      const resolution = await this.resolver.resolve(context.exchange, sources, context.attendance);
      if (resolution.outcome === 'found') {
        const { record, key } = resolution;
        context.visit = { record, key, isNew: false, standing: 'stored', sendKey: false, kept: true };
        const recorded = this.record(context, policy);
        if (recorded) await recorded;
      } else {
        context.visit = this.keeper.prepare(context.exchange);
        if (resolution.outcome === 'late') context.visit.standing = 'late';
        else this.headers.watch(context);
        if (resolution.outcome === 'none' && resolution.presented !== 'nothing') {
          for (const { reason, key } of resolution.refused) {
            await this.plugins.tell('onKeyRefused', { reason, visitId: key.id, remoteAddress: context.exchange.remoteAddress });
            if (reason === 'retired' && this.options.onRetiredKey === 'end') await this.keeper.end([key.id], 'retired-key');
          }
        }
        // A forged key makes no row, whatever the policy (B35).
        if (resolution.outcome === 'none' && resolution.presented !== 'forged' && this.options.creation === 'immediate') {
          await this.keeper.storeCurrent(context);
        }
      }
      const shown = this.users.show(context);
      if (shown) await shown;
      if (this.plugins.has('onRecordRequest')) await this.plugins.tell('onRecordRequest', context.current, context.exchange.request);
    } catch (error) {
      this.noteFailure(context, error);
      throw error;
    } finally {
      this.resolver.strip(context.exchange, sources);
    }
  }

  /** The handler wants no visit. The key's parameter is taken out all the same. */
  skip(context: VisitContext): void {
    this.resolver.strip(context.exchange, this.options.source);
  }

  /** Undefined: there is nothing to wait for. */
  private record(context: VisitContext, policy: VisitPolicy): Promise<void> | undefined {
    if (policy.passive) return undefined;
    const touched = this.touch(context, policy);
    return this.isKeyOld(context, policy) ? this.renew(context, touched) : touched;
  }

  private isKeyOld({ state: { record, key } }: VisitContext, { source }: VisitPolicy): boolean {
    const { renewAfter } = this.options;
    if (renewAfter === false || this.options.clock.now() - record.keyChanged < renewAfter) return false;
    // Only a cookie can be replaced, and only the current key is.
    return (source ?? this.options.source).includes('cookie') && key.matches(record.keyHash);
  }

  /** A key is renewed for its age (S6): the request goes on, whatever comes of it. */
  private async renew(context: VisitContext, touched: Promise<void> | undefined): Promise<void> {
    await touched;
    try {
      await this.keeper.renew(context);
    } catch (error) {
      this.logger.warn(`The key of visit ${context.state.record.id} could not be renewed: ${(error as Error).message}`);
    }
  }

  private touch(context: VisitContext, policy: VisitPolicy): Promise<void> | undefined {
    const state = context.state;
    const { id, permanent, absoluteExpiry, accessed, created } = state.record;
    const now = this.options.clock.now();
    const expiry = this.keeper.expiry(now, permanent, absoluteExpiry, policy.timeout);
    const written = state.record.expiry;
    const gain = expiry - Math.max(written, this.touches.waiting(id) ?? 0);
    // The browser's copy of a permanent cookie is renewed in the first request of each half of its life (R17).
    const half = this.options.permanentTimeout / 2;
    const newHalf = permanent && Math.floor((now - created) / half) !== Math.floor((accessed - created) / half);
    // A key in its grace is not sent again: the browser has the new one, or will have it in a moment (B17).
    if (newHalf && state.key.matches(state.record.keyHash)) {
      state.sendKey = true;
      this.headers.watch(context);
    }
    if (gain < this.options.touch.resolution && !(newHalf && gain > 0)) return undefined;
    this.touches.add({ id, accessed: now, expiry });
    state.record = { ...state.record, expiry: Math.max(written, expiry) };
    // Other processes do not see our queue: what they could take for expired before it is flushed is written at once (R27).
    // Nor does a store that forgets the visit with its request.
    return context.attendance || written - now <= 2 * this.options.touch.interval ? this.touches.flush() : undefined;
  }

  /** Gives the handler what it asks for besides the visit: exclusive access to the session. */
  async enter(context: VisitContext, policy: VisitPolicy): Promise<void> {
    if (policy.exclusive === undefined || context.lock) return;
    try {
      await this.lock.enter(context, policy.exclusive);
    } catch (error) {
      this.noteFailure(context, error);
      throw error;
    }
  }

  /** The request is over, whatever became of it. */
  leave(context: VisitContext): Promise<void> | undefined {
    return context.lock?.release();
  }

  /** The handler has succeeded. What is to be saved is saved when this resolves; undefined: there was nothing. */
  close(context: VisitContext): Promise<void> | undefined {
    const state = context.visit;
    if (!state || context.finished) return undefined;
    const nothing = !context.sessionUsed && !(state.standing === 'unsaved' && state.kept);
    if (nothing) {
      context.finished = true;
      return undefined;
    }
    return this.saver.save(context).then(
      () => {
        context.finished = true;
      },
      (error: unknown) => {
        // Who answers the error sees what is stored, not what was refused.
        context.dictionary.revert();
        this.noteFailure(context, error);
        throw error;
      },
    );
  }

  /** The handler has failed. An answer meant for the client (4xx) is an end like another one; after anything else nothing is saved (R48). */
  fail(context: VisitContext, error: unknown): Promise<void> | undefined {
    if (error instanceof HttpException && error.getStatus() < 500) return this.close(context);
    this.noteFailure(context, error);
    return undefined;
  }

  private noteFailure(context: VisitContext, error: unknown): void {
    context.finished = true;
    if (error instanceof HttpException && [423, 503].includes(error.getStatus())) {
      context.retryLater = true;
      this.headers.watch(context);
    }
  }

  /** `request.session = value`: null empties the session, an object takes the place of what was in it. */
  assignSession(request: FrameworkRequest, value: unknown): void {
    const session = contextOf(request).session;
    if (value === session) return;
    if (value !== null && value !== undefined && typeof value !== 'object') {
      throw new SessionDataError('SESSION_VALUE', `request.session takes an object or null, got ${typeof value}`);
    }
    session.clear();
    for (const [key, entry] of Object.entries(value ?? {})) session.set(key, entry);
  }

  private viewOf(context: VisitContext): VisitView {
    return new VisitView({
      state: () => context.state,
      now: () => this.options.clock.now(),
      paramName: this.options.paramName,
      source: this.options.source,
      keyInPage: () => {
        context.state.kept = true;
        context.keyInPage = true;
        this.headers.watch(context);
      },
    });
  }
}
