import { Inject, Injectable, type ExecutionContext } from '@nestjs/common';
import { VisitNotResolvedError } from '../errors/visit.error.js';
import { VisitKey } from '../key/visit-key.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { FrameworkRequest } from '../platform/exchange.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import { StoreAccess } from '../store/store-access.js';
import { checkedUserId } from '../identity/user-id.js';
import { VisitLimit } from '../identity/visit.limit.js';
import type { VisitRecord } from '../store/visit.store.js';
import { contextOf, requestOf, type VisitContext } from '../visit.context.js';
import { VisitLifecycle } from '../visit.lifecycle.js';
import type { CurrentVisit } from './current-visit.js';
import { deviceOf } from './device.js';
import { describePolicy, type DescribedPolicy } from './described-policy.js';
import { TouchQueue } from './touch.queue.js';
import { VisitKeeper } from './visit.keeper.js';

/** A visit as it may be listed: without anything its client holds. */
export interface VisitSummary {
  readonly id: string;
  readonly created: Date;
  readonly accessed: Date;
  readonly expiry: Date;
  readonly permanent: boolean;
  readonly remoteAddress: string | null;
  readonly userAgent: string | null;
  /** What the user agent says of itself, such as "Firefox on Windows"; null if that is nothing known. */
  readonly device: string | null;
  readonly userId: string | null;
  /** When the user of this visit last proved who they are. */
  readonly authenticatedAt: Date | null;
  readonly endedAt: Date | null;
  readonly endReason: string | null;
  /** Whether it is the visit of the request that is being served. */
  readonly isCurrent: boolean;
}

export interface CreateVisitOptions {
  /** Whose the visit is from the start. @default nobody's */
  userId?: string | number;
  /** @default `cookie.permanent` */
  permanent?: boolean;
}

export interface EndVisitOptions {
  /** In a request, end a visit of another user too, as an administrator does. @default false */
  anybodys?: boolean;
}

/** Visits, in requests and outside of them. */
@Injectable()
export class VisitService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle,
    @Inject(VisitKeeper) private readonly keeper: VisitKeeper,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(VisitLimit) private readonly limit: VisitLimit,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
  ) {}

  /** The visit of the request that is being served. @throws VisitNotResolvedError outside of a request or before its visit is resolved */
  current(): CurrentVisit {
    return this.context().current;
  }

  /**
   * Resolves the visit of a request, if that has not happened yet: for guards, which run before the interceptor.
   *
   * @throws VisitStoreUnavailableError (503) when the store cannot be asked
   */
  async resolve(source: FrameworkRequest | ExecutionContext): Promise<CurrentVisit> {
    const context = contextOf(requestOf(source));
    await this.lifecycle.resolveEarly(context, 'getHandler' in source ? this.lifecycle.policyOf(source) : undefined);
    return context.current;
  }

  /** The visit with this public id, also if it has expired or ended, or null if there is none. */
  async find(id: string): Promise<VisitSummary | null> {
    if (!VisitKey.isId(id)) return null;
    const record = await this.store.find(id);
    return record ? this.summary(record) : null;
  }

  /**
   * Makes a visit on the server side: for a hand-over sign-in, or for tests. The key is to be given to its client and nobody else.
   *
   * @throws VisitLimitError (409) when the user has too many visits and `identity.onLimit` is `refuse`
   */
  async create({ userId, permanent }: CreateVisitOptions = {}): Promise<{ visit: VisitSummary; key: string }> {
    const state = this.keeper.prepare(null, permanent);
    const now = state.record.created;
    const identity = userId === undefined ? null : { userId: checkedUserId(userId), created: now, authenticatedAt: now };
    if (identity) await this.limit.admit(identity.userId, state.record.id);
    await this.keeper.insert(state, { identity });
    if (identity && (await this.limit.isSurplus(identity.userId, state.record.id))) {
      await this.keeper.end([state.record.id], 'limit');
      throw this.limit.error();
    }
    return { visit: this.summary(state.record), key: state.key.text };
  }

  /**
   * Gives the current visit a new key. Nothing else changes, so requests that are on their way with the old one are served
   * as ever for half a minute. When rights change, `IdentityService` renews the key by itself, and without such a grace.
   *
   * If the key has been changed a moment ago, nothing is left to do.
   *
   * @throws VisitEndedError (409) when another request has ended the visit meanwhile
   */
  async renew(): Promise<void> {
    await this.keeper.renew(this.context());
  }

  /**
   * Ends a visit, by default the current one, whose cookie is then cleared. Its data is wiped, its key never works again.
   *
   * In a request, only visits of the user who is signed in can be ended, unless `anybodys` says that the caller has
   * checked who may do this. Outside of requests, in a job for example, any visit can.
   *
   * @throws VisitStoreCannotError when the store is not `revocable` and it is not the current visit
   * @param reason a short word for the record, at most 32 characters
   * @returns whether this call ended it; false if it had ended, there is none, or it is somebody else's
   */
  async end(id?: string, reason = id === undefined ? 'ended' : 'revoked', { anybodys = false }: EndVisitOptions = {}): Promise<boolean> {
    const context = this.lifecycle.current;
    if (id === undefined || (context?.visit && context.visit.record.id === id)) {
      const own = this.context();
      const stored = own.state.standing === 'stored';
      await this.keeper.endCurrent(own, reason);
      return stored;
    }
    if (!VisitKey.isId(id)) return false;
    if (context && !anybodys) {
      const userId = context.visit?.record.identity?.userId;
      const owner = (await this.store.find(id))?.identity?.userId;
      if (userId === undefined || owner !== userId) return false;
    }
    this.store.need('end', 'revocable');
    return (await this.keeper.end([id], reason)).length > 0;
  }

  /** The live visits of a user, the most recently used first. @throws VisitStoreCannotError when the store is not `listable` */
  async listForUser(userId: string | number): Promise<VisitSummary[]> {
    this.store.need('listForUser', 'listable');
    const records = await this.store.call((store) => store.listForUser(checkedUserId(userId), this.options.clock.now()));
    return records.map((record) => this.summary(record));
  }

  /**
   * Ends all visits of the current user but the current one. How many. 0 if nobody is signed in.
   *
   * @throws VisitStoreCannotError when the store is not `listable` and `revocable`
   */
  async endOthers(reason = 'revoked'): Promise<number> {
    this.store.need('endOthers', 'listable', 'revocable');
    const { record } = this.context().state;
    return record.identity ? this.endAll(record.identity.userId, reason, record.id) : 0;
  }

  /**
   * Ends all visits of a user, at once and for every process; the current one too, if it is theirs. How many.
   *
   * @throws VisitStoreCannotError when the store is not `listable` and `revocable`
   */
  async endAllForUser(userId: string | number, reason = 'revoked'): Promise<number> {
    this.store.need('endAllForUser', 'listable', 'revocable');
    const checked = checkedUserId(userId);
    const context = this.lifecycle.current;
    if (context?.visit?.record.identity?.userId !== checked) return this.endAll(checked, reason);
    const others = await this.endAll(checked, reason, context.visit.record.id);
    await this.keeper.endCurrent(context, reason);
    return others + 1;
  }

  /** Ends every visit there is. How many. @throws VisitStoreCannotError when the store is not `listable` and `revocable` */
  async endEverything(reason = 'revoked'): Promise<number> {
    this.store.need('endEverything', 'listable', 'revocable');
    const context = this.lifecycle.current;
    const own = context?.visit?.standing === 'stored' ? 1 : 0;
    if (context && own) await this.keeper.endCurrent(context, reason);
    const at = this.options.clock.now();
    const visits = own + (await this.store.call((store) => store.endEverything({ reason, at })));
    this.beginAgain(at);
    await this.plugins.tell('onEverythingEnded', { visits, reason, endedAt: new Date(at) });
    return visits;
  }

  /** What holds for all visits here: time limits, renewal, the limit per user, the cookie (ASVS 7.1.1). */
  describePolicy(): DescribedPolicy {
    return describePolicy(this.options);
  }

  /** Writes the expiry updates that wait. It is done by itself, also at shutdown. */
  flush(): Promise<void> {
    return this.touches.flush();
  }

  private async endAll(userId: string, reason: string, except?: string): Promise<number> {
    const at = this.options.clock.now();
    const ended = await this.store.call((store) => store.endAllForUser(userId, { reason, at, except }));
    this.beginAgain(at);
    await this.keeper.announceEnd(ended, reason, at);
    return ended.length;
  }

  /** The request that has ended all visits may sign in afterwards: after a change of password, for example. */
  private beginAgain(at: number): void {
    const context = this.lifecycle.current;
    if (context) context.began = at + 1;
  }

  private context(): VisitContext {
    const context = this.lifecycle.current;
    if (!context) throw new VisitNotResolvedError('there is no request here');
    return context;
  }

  private summary(record: VisitRecord): VisitSummary {
    const { id, permanent, remoteAddress, userAgent, endReason } = record;
    return {
      id,
      created: new Date(record.created),
      accessed: new Date(record.accessed),
      expiry: new Date(Math.max(record.expiry, this.touches.waiting(id) ?? 0)),
      permanent,
      remoteAddress,
      userAgent,
      device: deviceOf(userAgent),
      userId: record.identity?.userId ?? null,
      authenticatedAt: record.identity ? new Date(record.identity.authenticatedAt) : null,
      endedAt: record.endedAt === null ? null : new Date(record.endedAt),
      endReason,
      isCurrent: this.lifecycle.current?.visit?.record.id === id,
    };
  }
}
