import { Inject, Injectable, type ExecutionContext } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { VisitEndedError, VisitError, VisitNotResolvedError } from './errors/visit.error.js';
import { VisitKey } from './key/visit-key.js';
import { VISIT_OPTIONS } from './options/tokens.js';
import type { ResolvedVisitOptions } from './options/visit-options.interface.js';
import type { FrameworkRequest } from './platform/exchange.js';
import type { Handshake } from './platform/handshake.js';
import { PluginRegistry } from './plugin/plugin.registry.js';
import { requireClock } from './store/clock-skew.js';
import { StoreAccess } from './store/store-access.js';
import { EndInBatches } from './visit/end-in-batches.js';
import { checkedReason } from './visit/end-reason.js';
import { signInInstant } from './visit/sign-in-instant.js';
import { checkedUserId } from './visit/user-id.js';
import { isRevokedSince } from './visit/revocation.js';
import { VisitLimit } from './visit/visit.limit.js';
import type { EndedBatch, EndingBatch, ListPosition, UserList, VisitPage } from './store/visit.facets.js';
import type { ListedVisit } from './store/visit.store.js';
import { CurrentRequest } from './context/current-request.js';
import { contextOf, type RequestContext } from './context/request.context.js';
import { Turn } from './context/turn.js';
import { readHandlerPolicy } from './request/handler-policy.js';
import { describedHandlers, handlersOf } from './request/unsupported-handlers.js';
import { RequestStory } from './request/request.story.js';
import { RequestUser } from './request/request-user.js';
import { VisitVerifier } from './request/visit.verifier.js';
import type { DefaultData } from './session/session.js';
import type { CurrentVisit } from './visit/current-visit.js';
import { deviceOf } from './visit/device.js';
import { describePolicy, type DescribedPolicy } from './options/described-policy.js';
import { TimeLimits } from './visit/time-limits.js';
import { TouchQueue } from './visit/touch.queue.js';
import { OpenStreams } from './visit/open-streams.js';
import { failedSignIn, runAll, VisitWriter } from './visit/visit.writer.js';

/** A visit as lists show it, without anything secret. */
export interface VisitSummary {
  readonly id: string;
  readonly created: Date;
  readonly accessed: Date;
  readonly expiry: Date;
  readonly permanent: boolean;
  readonly remoteAddress: string | null;
  readonly userAgent: string | null;
  /** The browser and operating system, such as "Firefox on Windows", or null if the user agent is unknown. */
  readonly device: string | null;
  readonly userId: string | null;
  /** When the user of this visit last authenticated. */
  readonly authenticatedAt: Date | null;
  readonly endedAt: Date | null;
  readonly endReason: string | null;
  /** Whether this is the visit of the current request. */
  readonly isCurrent: boolean;
}

/** Options of `VisitService.create()`. */
export interface CreateVisitOptions {
  /** The id of the visit's user. @default no user */
  userId?: string | number;
  /** @default `cookie.permanent` */
  permanent?: boolean;
  /**
   * When the user authenticated. `@RequireFresh()` and `absoluteTimeout` use it. An instant in the future counts as
   * now.
   *
   * @default in a request of the same user, the instant of their sign-in there; otherwise now
   */
  authenticatedAt?: Date;
}

/** A visit and its user at the time of the look-up. */
export interface VerifiedVisit<T extends object = DefaultData> {
  readonly visit: VisitSummary;
  /** The id of the signed-in user, or null. */
  readonly userId: string | null;
  /** A copy of the session data. Changes to it are not stored. */
  readonly session: Partial<T>;
}

/** The default number of visits in a list. */
const USUAL_LIMIT = 1000;

/** Options of `VisitService.listForUser()`. */
export interface ListVisitsOptions {
  /** The maximum number of visits: a whole number, 1 or more. @default 1000 */
  limit?: number;
  /**
   * The last visit of the previous page, or its `id` and `accessed`.
   *
   * @default the list begins with the visit that was used most recently
   */
  after?: Pick<VisitSummary, 'id' | 'accessed'>;
}

/** Restricts which visit `VisitService.end()` may end. */
export interface EndVisitOptions {
  /**
   * Ends the visit regardless of its user, for administrators and jobs. The caller must check who may do this.
   *
   * @default false
   */
  anyUser?: boolean;
  /** Ends the visit only if it belongs to this user. @default the user of the request */
  userId?: string | number;
}

/** Finds, lists, creates and ends visits, in requests and outside of them. */
@Injectable()
export class VisitService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(TimeLimits) private readonly limits: TimeLimits,
    @Inject(VisitLimit) private readonly limit: VisitLimit,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
    @Inject(DiscoveryService) private readonly discovery: DiscoveryService,
    @Inject(OpenStreams) private readonly streams: OpenStreams,
    @Inject(VisitVerifier) private readonly verifier: VisitVerifier,
    @Inject(EndInBatches) private readonly ends: EndInBatches,
  ) {}

  /**
   * The visit of the current request.
   *
   * @throws VisitNotResolvedError outside of a request, after its end, and under `@SkipVisit()`;
   * VisitStoreUnavailableError (503)
   */
  current(): CurrentVisit {
    return this.requests.require().current;
  }

  /**
   * The visit of a request. It is found before any code of the application runs, so you rarely need this method. Call
   * it first in a callback of another library, such as a connection pool or an event emitter, with the request that the
   * callback belongs to. The code after it then runs in the context of that request.
   *
   * @throws VisitNotResolvedError; VisitStoreUnavailableError (503) if the look-up failed
   */
  resolve(source: FrameworkRequest | ExecutionContext): Promise<CurrentVisit> {
    try {
      const context = contextOf(source);
      const policy = 'getHandler' in source ? readHandlerPolicy(source) : undefined;
      // Before anything is awaited: so it holds for whoever awaits this.
      this.requests.enter(policy?.skip ? context.skippedScope : context.scope);
      const waiting = policy && this.story.applyPolicy(context, policy);
      const current = (): CurrentVisit => this.requests.requireIn(context).current;
      return waiting ? waiting.then(current) : Promise.resolve(current());
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Identifies a client outside of the application's requests: by the handshake of a socket, in a job, or on another
   * server. It only reads: it stores nothing, emits no event, sets no cookie, and does not extend the visit.
   *
   * @param credential a key; a `Cookie` header; or a handshake: the request that opened a socket, or the socket that a
   * gateway receives. The keys of a handshake are read according to the option `source`. If a page of another site
   * opened it with the visitor's cookie, the result is null, unless `csrf.trustedOrigins` contains that site (RFC 6455,
   * 10.2)
   * @returns null if there is no key, if it has expired, ended or was replaced, or if cookies belong to different users
   * @throws VisitStoreUnavailableError (503): a failed look-up never returns null; SessionDataError with
   * `session.onUnreadable: 'throw'`
   */
  async verify<T extends object = DefaultData>(
    credential: string | Handshake | null | undefined,
  ): Promise<VerifiedVisit<T> | null> {
    const verified = await this.verifier.verify(credential);
    if (!verified) return null;
    const visit = this.summary(verified.record);
    return { visit, userId: visit.userId, session: verified.session as Partial<T> };
  }

  /** The visit with this public id, even if it has expired or ended, or null if there is none. */
  async find(id: string): Promise<VisitSummary | null> {
    if (!VisitKey.isId(id)) return null;
    const record = await this.store.find(id);
    return record ? this.summary(record) : null;
  }

  /**
   * Creates a visit on the server, for a hand-over sign-in or for tests. Give the key only to its client.
   *
   * With a user, this is a sign-in: plugins are called, and the visit does not survive if all visits of the user are
   * ended while it is created. In a request of the same user, it is as old as their sign-in there.
   *
   * @throws VisitLimitError (409) if the user has too many visits and `identity.onLimit` is `refuse`; VisitEndedError
   * (409) if all visits of the user have been ended in the meantime; FreshIdentityRequiredError (401) if
   * `authenticatedAt` is longer ago than `absoluteTimeout`; errors of plugins with `onError: 'throw'`. In each case,
   * the visit is removed again
   */
  create(options: CreateVisitOptions = {}): Promise<{ visit: VisitSummary; key: string }> {
    return this.requests.watch(this.make(options));
  }

  private async make({
    userId,
    permanent,
    authenticatedAt,
  }: CreateVisitOptions): Promise<{ visit: VisitSummary; key: string }> {
    const user = userId === undefined ? undefined : checkedUserId(userId);
    const state = this.writer.prepare(null, permanent);
    if (user === undefined) {
      const made = await this.writer.insert(state);
      await this.writer.announceBeginning(made);
      return { visit: this.summary(made.record), key: made.key.text };
    }
    const { context } = this.requests;
    const own = context?.resolvedVisit?.record.identity;
    const origin = own?.userId === user ? { context: context!, identity: own } : undefined;
    const now = state.record.created;
    const proved =
      authenticatedAt === undefined
        ? (origin?.identity.authenticatedAt ?? now)
        : signInInstant(authenticatedAt, this.options);
    await this.limit.admit(user, state.record.id);
    const endedBefore = await this.revokedAt(user);
    const requireNotRevoked = async (): Promise<void> => {
      const endedAll = await this.revokedAt(user);
      // Compared with what was known before, and not with a clock: in a job this may come right after such an end.
      const isNew = endedAll !== null && endedAll !== endedBefore;
      if (isNew || (origin && isRevokedSince(endedAll, origin.context.began, this.options)))
        throw new VisitEndedError();
    };
    const made = await this.writer.insert(state, { identity: { userId: user, created: now, authenticatedAt: proved } });
    try {
      await this.writer.announceBeginning(made);
      await requireNotRevoked();
      if (await this.limit.isSurplus(user, made.record.id)) throw this.limit.error();
    } catch (error) {
      // Where the store is away, nobody has the key of this visit, and it expires.
      await this.writer.end([made.record.id], failedSignIn(error)).catch(() => {});
      throw error;
    }
    return { visit: this.summary(made.record), key: made.key.text };
  }

  /**
   * Gives the current visit a new key. Requests in flight with the previous key are still served, until half a minute
   * after the client first used the new one. When the rights of a visit change, `IdentityService` renews the key
   * automatically, without this grace period.
   *
   * If the key has just been changed, this method does nothing.
   *
   * @throws VisitEndedError (409) if another request has ended the visit in the meantime
   */
  renew(): Promise<void> {
    return this.requests.take('visits.renew()', (turn) => this.writer.renew(turn));
  }

  /**
   * Ends a visit, by default the current one, whose cookie is then cleared. Its data is wiped, and its key never works
   * again.
   *
   * Only visits of the signed-in user can be ended. Jobs, and work that continues after the response, have no request
   * and therefore no user. There, and for administrators, specify `anyUser` or `userId`.
   *
   * @throws VisitStoreUnsupportedError if the store is not `revocable` and it is not the current visit;
   * VisitNotResolvedError if there is no user, outside of a request and under `@SkipVisit()`, unless `anyUser` or
   * `userId` is given; VisitKeyRetiredError (409) if the current visit should end, but another request has replaced its
   * key: it has not ended; VisitError `VISIT_END_REASON`
   * @param reason a short reason to record, at most 32 characters
   * @returns whether this call ended the visit; false if it had already ended, does not exist, or belongs to another
   * user
   */
  end(
    id?: string,
    reason = id === undefined ? 'ended' : 'revoked',
    { anyUser = false, userId }: EndVisitOptions = {},
  ): Promise<boolean> {
    try {
      checkedReason(reason);
    } catch (error) {
      return this.requests.refuse(error);
    }
    if (id === undefined) return this.requests.take('visits.end()', (turn) => this.endOwn(turn, reason));
    if (anyUser) return this.write('visits.end()', (turn) => this.endAny(turn, id, reason));
    if (userId !== undefined)
      return this.write('visits.end()', async (turn) => this.endOf(checkedUserId(userId), turn, id, reason));
    if (!this.requests.context) {
      const refused = new VisitNotResolvedError(
        'visits.end(id) outside of a request needs to know whose visit it may end: pass { userId }, or { ' +
          'anyUser: true } to allow any visit',
      );
      return this.requests.refuse(refused);
    }
    return this.requests.take('visits.end()', async (turn) => {
      const { record } = turn.context.visit;
      return record.id === id ? this.endAny(turn, id, reason) : this.endOf(record.identity?.userId, turn, id, reason);
    });
  }

  /**
   * The live visits of a user, the most recently used first.
   *
   * @example
   * const page = await visits.listForUser(userId, { limit: 50 });
   * const next = await visits.listForUser(userId, { limit: 50, after: page.at(-1) });
   *
   * @param options which of them, where there may be many. A visit that is used between two pages moves to the front,
   * and so may be missing or come twice
   * @throws VisitStoreUnsupportedError when the store has no `users`; VisitError `VISIT_USER_ID`; VisitError
   *   `VISIT_OPTION`
   */
  async listForUser(userId: string | number, options: ListVisitsOptions = {}): Promise<VisitSummary[]> {
    const users = this.store.facet('users', 'listForUser');
    const checked = checkedUserId(userId);
    const { limit, after } = checkedList(options);
    const now = this.options.clock.now();
    // Otherwise the store has left out what has expired.
    const isListed = (record: ListedVisit): boolean =>
      !this.options.shortenExisting || now < this.limits.endOf(this.limits.applyTo(record));
    const found: ListedVisit[] = [];
    for (let position: ListPosition | null | undefined = after; position !== null && found.length < limit;) {
      const list: UserList = { userId: checked, now, limit: limit - found.length, after: position };
      const page: VisitPage<ListPosition> = await this.store.read(() => users.listForUser(list));
      found.push(...page.visits.filter(isListed));
      position = page.next;
    }
    return found.map((record) => this.summary(record));
  }

  /**
   * Ends all other visits of the current user, and returns their number. 0 if no user is signed in.
   *
   * @param reason a short reason to record, at most 32 characters
   * @throws VisitStoreUnsupportedError if the store has no `users`; VisitError `VISIT_END_REASON`
   */
  endOthers(reason = 'revoked'): Promise<number> {
    return this.write('visits.endOthers()', async () => {
      checkedReason(reason);
      this.store.need('endOthers', 'users');
      const context = this.requests.require();
      const { record } = context.visit;
      return record.identity ? this.endAllOf(record.identity.userId, reason, context, record.id) : 0;
    });
  }

  /**
   * Ends all visits of a user immediately and for every process, and returns their number. This includes the current
   * visit if it belongs to the user.
   *
   * @param reason a short reason to record, at most 32 characters
   * @throws VisitStoreUnsupportedError if the store has no `users`; VisitError `VISIT_USER_ID`, `VISIT_END_REASON`
   */
  endAllForUser(userId: string | number, reason = 'revoked'): Promise<number> {
    return this.write('visits.endAllForUser()', async (turn) => {
      const checked = checkedUserId(userId);
      checkedReason(reason);
      this.store.need('endAllForUser', 'users');
      const current = turn?.context.resolvedVisit?.record;
      if (!turn || current?.identity?.userId !== checked) return this.endAllOf(checked, reason, turn?.context);
      let visits = 0;
      await runAll([
        async () => (visits += await this.endAllOf(checked, reason, turn.context, current.id)),
        // Also when a plugin throws that is told of the others.
        () => this.endCurrent(turn, reason, () => visits++),
      ]);
      return visits;
    });
  }

  /**
   * Ends all visits of all users, including anonymous ones, and returns their number.
   *
   * @param reason a short reason to record, at most 32 characters
   * @throws VisitStoreUnsupportedError if the store has no `users`; VisitError `VISIT_END_REASON`
   */
  endAll(reason = 'revoked'): Promise<number> {
    return this.write('visits.endAll()', async (turn) => {
      checkedReason(reason);
      const users = this.store.facet('users', 'endAll');
      await this.store.call((store) => requireClock(store, this.options, 'the end of all visits'));
      let visits = 0;
      await runAll([
        () => turn?.context.resolvedVisit?.is === 'stored' && this.endCurrent(turn, reason, () => visits++),
        // Also when a plugin throws that is told of this one.
        async () => {
          const at = this.options.clock.now();
          const ending = { reason, at };
          visits += await this.ends.run({ ending, end: (batch) => users.endAll(batch), announce: async () => {} });
          beginAgain(turn?.context, at);
          this.streams.allEnded();
          await this.plugins.emit('onAllVisitsEnded', { visits, reason, endedAt: new Date(at) });
        },
      ]);
      return visits;
    });
  }

  /**
   * The settings in effect for all visits: time limits, renewal, the limit per user, the cookie, and the settings of
   * handlers (ASVS 7.1.1).
   */
  describePolicy(): DescribedPolicy {
    return describePolicy(this.options, describedHandlers(handlersOf(this.discovery)));
  }

  /** Writes pending expiry updates now. They are also written periodically and at shutdown. */
  flush(): Promise<void> {
    return this.touches.flush();
  }

  /** In a request, the work is one of its turns. Outside of a request, for example in a job, there are no turns. */
  // No `async` around it, nor in the methods that return it: that would hear of a failure in the place of a caller who
  // does not wait.
  private write<T>(act: string, work: (turn: Turn | undefined) => Promise<T>): Promise<T> {
    const { context } = this.requests;
    return context ? Turn.take(context, act, work) : work(undefined);
  }

  private revokedAt(userId: string): Promise<number | null> {
    return this.store.revokedAt(userId);
  }

  private async endOf(
    userId: string | undefined,
    turn: Turn | undefined,
    id: string,
    reason: string,
  ): Promise<boolean> {
    const owner = VisitKey.isId(id) ? (await this.store.find(id))?.identity?.userId : undefined;
    return owner !== undefined && owner === userId ? this.endAny(turn, id, reason) : false;
  }

  private async endAny(turn: Turn | undefined, id: string, reason: string): Promise<boolean> {
    if (turn && turn.context.resolvedVisit?.record.id === id) return this.endOwn(turn, reason);
    if (!VisitKey.isId(id)) return false;
    this.store.need('end', 'revocable');
    return (await this.writer.end([id], reason)).length > 0;
  }

  /** Whether this call ended the visit. */
  private async endOwn(turn: Turn, reason: string): Promise<boolean> {
    let isEnded = false;
    await this.endCurrent(turn, reason, () => (isEnded = true));
    return isEnded;
  }

  private async endCurrent(turn: Turn, reason: string, noteEnded: () => void): Promise<void> {
    try {
      await this.writer.endCurrent(turn, reason, noteEnded);
    } finally {
      await this.users.forget(turn.context);
    }
  }

  private async endAllOf(userId: string, reason: string, context?: RequestContext, except?: string): Promise<number> {
    const at = this.options.clock.now();
    const users = this.store.facet('users', 'endAllForUser');
    const end = (batch: EndingBatch): Promise<EndedBatch> => users.endAllForUser({ ...batch, userId, except });
    const announce = (ids: readonly string[]): Promise<void> => this.writer.announceEnd(ids, reason, at);
    // Also when a plugin throws that hears of it.
    try {
      return await this.ends.run({ ending: { reason, at }, end, announce });
    } finally {
      beginAgain(context, at);
    }
  }

  private summary(record: ListedVisit): VisitSummary {
    const { id, permanent, remoteAddress, userAgent, endReason } = record;
    const { expiry } = this.limits.applyTo(record);
    return {
      id,
      created: new Date(record.created),
      accessed: new Date(record.accessed),
      expiry: new Date(Math.max(expiry, this.touches.waiting(id) ?? 0)),
      permanent,
      remoteAddress,
      userAgent,
      device: deviceOf(userAgent),
      userId: record.identity?.userId ?? null,
      authenticatedAt: record.identity ? new Date(record.identity.authenticatedAt) : null,
      endedAt: record.endedAt === null ? null : new Date(record.endedAt),
      endReason,
      isCurrent: this.requests.context?.resolvedVisit?.record.id === id,
    };
  }
}

/** @throws VisitError `VISIT_OPTION` */
function checkedList({ limit = USUAL_LIMIT, after }: ListVisitsOptions): {
  limit: number;
  after: ListPosition | undefined;
} {
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw new VisitError('VISIT_OPTION', `"limit" of a list must be a whole number, 1 or more, got ${String(limit)}`);
  if (after === undefined) return { limit, after };
  const accessed = after?.accessed instanceof Date ? after.accessed.getTime() : Number.NaN;
  if (!VisitKey.isId(after?.id) || Number.isNaN(accessed))
    throw new VisitError('VISIT_OPTION', '"after" of a list must be a visit with its "id" and "accessed", a Date');
  return { limit, after: { id: after.id, accessed } };
}

/** The request that has ended all visits may sign in afterwards: after a change of password, for example. */
function beginAgain(context: RequestContext | undefined, at: number): void {
  if (context) context.began = at + 1;
}
