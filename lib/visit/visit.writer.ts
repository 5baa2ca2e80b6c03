import { Inject, Injectable } from '@nestjs/common';
import {
  VisitEndedError,
  VisitHttpError,
  VisitKeyRetiredError,
  VisitLockLostError,
  VisitStoreUnavailableError,
} from '../errors/visit.error.js';
import { VisitKey } from '../key/visit-key.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import type { Exchange } from '../platform/exchange.js';
import { StoreAccess } from '../store/store-access.js';
import { created as createdVisit } from '../store/visit.record.js';
import {
  UNSEEN,
  type IdentityRecord,
  type Refusal,
  type Rekey,
  type RekeyResult,
  type VisitRecord,
} from '../store/visit.store.js';
import type { RequestContext, VisitState } from '../context/request.context.js';
import { VisitView } from '../context/visit-view.js';
import type { Turn } from '../context/turn.js';
import { truncateAddress } from './remote-address.js';
import { OpenStreams } from './open-streams.js';
import { TouchQueue } from './touch.queue.js';
import { undoing, undone } from './undoing.js';

/**
 * How long the old key works after the client first used the new one, in milliseconds: longer than a request takes,
 * shorter than an attacker would like. If a renewed key is not used within this time, it counts as lost and the renewal
 * is repeated.
 */
export const RENEWAL_GRACE = 30_000;

export function refusalError(reason: Refusal): VisitEndedError | VisitKeyRetiredError | VisitLockLostError {
  if (reason === 'unlocked') return new VisitLockLostError();
  return reason === 'retired' ? new VisitKeyRetiredError() : new VisitEndedError();
}

/** The end reason of a visit whose sign-in has failed. */
export function failedSignIn(error: unknown): string {
  if (error instanceof VisitEndedError) return 'revoked';
  return error instanceof VisitHttpError && error.code === 'VISIT_LIMIT' ? 'limit' : 'failed';
}

/**
 * Requires that the visit of a late request has ended, so that nothing is left to do.
 *
 * @throws VisitKeyRetiredError if it continues with another key
 */
export function requireEnded({ lookup }: RequestContext): void {
  if (lookup.is !== 'done' || lookup.resolution.outcome !== 'late' || !lookup.resolution.hasEnded)
    throw new VisitKeyRetiredError();
}

/** The initial content of a visit. */
export type FirstContent = Partial<Pick<VisitRecord, 'sessionData' | 'identity' | 'permanent'>>;

/** Creates visits, changes their keys and ends them: all writes except those of session data. */
@Injectable()
export class VisitWriter {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
    @Inject(OpenStreams) private readonly streams: OpenStreams,
  ) {}

  /** Creates a visit that is not stored yet. */
  prepare(exchange: Exchange | null, permanent = this.options.cookie.permanent): VisitState {
    const now = this.options.clock.now();
    const key = VisitKey.create();
    const absoluteExpiry = this.absoluteExpiry(now);
    const { remoteAddress, userAgent } = this.options.record;
    // A server that listens on IPv6 shows IPv4 addresses within it.
    const address = exchange?.remoteAddress?.replace(/^::ffff:(?=\d+\.)/i, '');
    const record = createdVisit({
      id: key.id,
      keyHash: key.hash,
      created: now,
      expiry: this.expiry(now, permanent, absoluteExpiry),
      absoluteExpiry,
      permanent,
      remoteAddress:
        address === undefined || remoteAddress === false
          ? null
          : remoteAddress === 'truncated'
            ? truncateAddress(address)
            : address.slice(0, 45),
      userAgent: userAgent ? (exchange?.userAgent?.slice(0, 255) ?? null) : null,
    });
    return { is: 'unsaved', record, key, isNew: true, isWanted: false };
  }

  /** The expiry of a visit that is used now. */
  expiry(now: number, permanent: boolean, absoluteExpiry: number | null, timeout?: number): number {
    const idle = timeout ?? (permanent ? this.options.permanentTimeout : this.options.timeout);
    return Math.min(now + idle, absoluteExpiry ?? Infinity);
  }

  /** Authentication restarts the absolute timeout (NIST SP 800-63B-4, 2.1.3). Null: there is no limit. */
  private absoluteExpiry(authenticatedAt: number): number | null {
    const { absoluteTimeout } = this.options;
    return absoluteTimeout === false ? null : authenticatedAt + absoluteTimeout;
  }

  /**
   * The absolute expiry after a change of rights, according to the current options, so that a new or stricter limit
   * applies from then on. A sign-out is not an authentication and does not extend it.
   */
  private absoluteExpiryAfter(
    identity: IdentityRecord | null | undefined,
    { absoluteExpiry: before }: VisitRecord,
    now: number,
  ): number | null {
    if (identity) return this.absoluteExpiry(identity.authenticatedAt);
    const latest = this.absoluteExpiry(now);
    return latest === null ? before : Math.min(before ?? Infinity, latest);
  }

  /** Inserts a visit with its initial content. Returns it as stored. */
  async insert(state: VisitState, content: FirstContent = {}): Promise<VisitState> {
    const { created: now, permanent, identity } = { ...state.record, ...content };
    const absoluteExpiry = identity ? this.absoluteExpiry(identity.authenticatedAt) : state.record.absoluteExpiry;
    const record: VisitRecord = {
      ...state.record,
      ...content,
      absoluteExpiry,
      expiry: this.expiry(now, permanent, absoluteExpiry),
    };
    await this.store.create(record);
    return { ...state, is: 'stored', record };
  }

  /**
   * Stores the unsaved visit of a request.
   *
   * @param key when the client receives the key: with the response, or only after `sendKey()`
   * @throws VisitHeadersSentError if the client can no longer receive the key
   */
  async storeCurrent({ context }: Turn, content: FirstContent = {}, key: 'send' | 'withhold' = 'send'): Promise<void> {
    context.requireHeaders('A visit cannot begin');
    const { visit } = context;
    if (context.clientStorage) await context.clientStorage.load([visit.record.id], []);
    context.visit = await this.insert(visit, content);
    if (key === 'send') context.sendKey();
    await this.announceBeginning(context.visit, context.current, context.exchange.request);
  }

  /** Calls plugins after a visit was inserted, with or without a request. */
  async announceBeginning(
    state: VisitState,
    view = new VisitView({
      environment: { options: this.options },
      requireVisit: () => state,
      noteKeyInPage: () => {},
    }),
    request?: unknown,
  ): Promise<void> {
    const { id, created, identity } = state.record;
    await runAll([
      () => this.plugins.emit('onNewVisit', view, request),
      () =>
        identity &&
        this.plugins.emit('onIdentityLinked', { visitId: id, userId: identity.userId, at: new Date(created) }),
    ]);
  }

  /**
   * Gives the visit of a request a new key. In a renewal, which changes no rights, the old key works until a while
   * after the client first used the new one. Otherwise the old key has no rights from then on, and the time limits are
   * set again, possibly to less (law 4).
   *
   * @param key when the client receives the key: with the response, or only after `sendKey()`
   * @throws VisitEndedError, VisitKeyRetiredError if another request was faster; VisitHeadersSentError
   */
  async rekey(
    { context }: Turn,
    { isRenewal = false, ...change }: { identity?: IdentityRecord | null; permanent?: boolean; isRenewal?: boolean },
    key: 'send' | 'withhold' = 'send',
  ): Promise<void> {
    context.requireHeaders('A key cannot be renewed');
    const state = context.visit;
    const now = this.options.clock.now();
    const newKey = VisitKey.create(state.record.id);
    const permanent = change.permanent ?? state.record.permanent;
    const absoluteExpiry = isRenewal
      ? state.record.absoluteExpiry
      : this.absoluteExpiryAfter(change.identity, state.record, now);
    const used = this.expiry(now, permanent, absoluteExpiry, context.policy?.timeout);
    const expiry = isRenewal ? Math.max(state.record.expiry, used) : used;
    // A lost renewal is repeated for a client with the previous key, but only if the lost key is still the current one.
    const isAgain = isRenewal && !state.key.matches(state.record.keyHash);
    const guard = { id: state.record.id, keyHash: isAgain ? state.record.keyHash : state.key.hash, now };
    const previousKeyUntil = isRenewal ? UNSEEN : null;
    const began = performance.now();
    let result;
    try {
      result = await this.store.rekey({
        ...guard,
        newKeyHash: newKey.hash,
        previousKeyUntil,
        expiry,
        ...(isAgain ? { previousKeyHash: state.key.hash } : {}),
        ...change,
        ...(absoluteExpiry === state.record.absoluteExpiry ? {} : { absoluteExpiry }),
      });
    } catch (error) {
      // It may have been made. A renewal is found again by the previous key.
      if (!isRenewal && error instanceof VisitStoreUnavailableError) {
        const isQuick = performance.now() - began < this.options.storeTimeout / 2;
        // A sign-out is not undone later, because that would give rights back.
        const left =
          change.identity === null ? { ...state.record, identity: null, expiry, absoluteExpiry } : state.record;
        await this.giveBack(context, left, newKey.hash, isQuick ? 'now' : 'later');
      }
      throw error;
    }
    if (result.outcome === 'refused') throw refusalError(result.reason);
    const before = state.record.identity?.userId;
    // It may have been made for the visit's longer lifetime.
    if (!isRenewal) this.touches.forget(state.record.id);
    context.amend(
      {
        keyHash: newKey.hash,
        previousKeyHash: state.key.hash,
        previousKeyUntil,
        keyChanged: now,
        permanent,
        expiry,
        absoluteExpiry,
        ...(change.identity === undefined ? {} : { identity: change.identity }),
      },
      { key: newKey },
    );
    if (key === 'send') context.sendKey();
    if (!isRenewal) this.streams.rightsChanged(context.visit.record);
    await this.announceIdentity(context.visit, before, now);
  }

  /**
   * Undoes a sign-in by `rekey` whose key has not been sent: the visit becomes what it was before, with the key that
   * its client has, immediately or as soon as the store answers. Returns whether it does; another request may have
   * ended it or changed its key.
   *
   * @throws errors of plugins, after it is done
   */
  async undoRekey({ context }: Turn, before: VisitState): Promise<boolean> {
    const { keyHash, identity, sessionData, sessionVersion } = context.visit.record;
    const { record } = before;
    const now = this.options.clock.now();
    // It has been used since, and pending updates were discarded with the change.
    const used = this.expiry(now, record.permanent, record.absoluteExpiry, context.policy?.timeout);
    const change = undoing({ ...record, expiry: Math.max(record.expiry, used) }, keyHash, now);
    if ((await this.undo(change, 'now')) === 'refused') return false;
    context.visit = { ...before, record: { ...undone(record, change), sessionData, sessionVersion } };
    this.streams.rightsChanged(context.visit.record);
    await this.announceIdentity(context.visit, identity?.userId, now);
    return true;
  }

  /**
   * Handles a change of key with an unknown outcome: if it was made, the client gets its previous key back, immediately
   * or when the store answers.
   */
  private async giveBack(
    context: RequestContext,
    left: VisitRecord,
    newKeyHash: string,
    when: 'now' | 'later',
  ): Promise<void> {
    const { record } = context.visit;
    const change = undoing(left, newKeyHash, this.options.clock.now());
    const noteDone = async (): Promise<void> => {
      if (left.identity || !record.identity) return;
      // The sign-out was made after all.
      this.touches.forget(record.id);
      if (context.visit.record === record) context.amend(undone(left, change));
      this.streams.rightsChanged(left);
      await this.announceIdentity({ ...context.visit, record: left }, record.identity.userId, change.now);
    };
    if ((await this.undo(change, when, noteDone)) === 'done') await noteDone();
  }

  private async undo(
    change: Rekey,
    when: 'now' | 'later',
    noteDoneLater: () => Promise<void> = async () => {},
  ): Promise<RekeyResult['outcome'] | 'later'> {
    try {
      if (when === 'now') return (await this.store.rekey(change)).outcome;
    } catch {
      // No client can use the visit until this is done.
    }
    this.store.finishLater(change.id, async () => {
      const { outcome } = await this.store.rekey(change, true);
      if (outcome === 'done') await noteDoneLater();
    });
    return 'later';
  }

  /** Calls plugins after a visit was linked to another user, or to none. */
  private async announceIdentity(
    { record: { id, identity } }: VisitState,
    before: string | undefined,
    now: number,
  ): Promise<void> {
    const after = identity?.userId;
    if (before === after) return;
    const payload = { visitId: id, at: new Date(now) };
    await runAll([
      () => before !== undefined && this.plugins.emit('onIdentityUnlinked', { ...payload, userId: before }),
      () => after !== undefined && this.plugins.emit('onIdentityLinked', { ...payload, userId: after }),
    ]);
  }

  /**
   * Renews the key of a visit. Requests in flight with the old key are still served for a while. Does nothing if the
   * key has just been changed.
   *
   * @throws VisitEndedError if another request has ended the visit
   */
  async renew(turn: Turn): Promise<void> {
    const { is, record } = turn.context.visit;
    const { previousKeyUntil, keyChanged } = record;
    const settled = previousKeyUntil === UNSEEN ? keyChanged + RENEWAL_GRACE : (previousKeyUntil ?? 0);
    if (is !== 'stored' || settled > this.options.clock.now()) return;
    try {
      await this.rekey(turn, { isRenewal: true });
    } catch (error) {
      if (!(error instanceof VisitKeyRetiredError)) throw error;
    }
  }

  /** Called when the client has used its current key: from then on, the grace period of the previous key ends. */
  async noteKeySeen(context: RequestContext): Promise<void> {
    const { record } = context.visit;
    const { id, keyHash, previousKeyHash } = record;
    const now = this.options.clock.now();
    const seen = { keyHash, previousKeyHash: previousKeyHash!, previousKeyUntil: now + RENEWAL_GRACE };
    const { outcome } = await this.store.rekey({ id, now, newKeyHash: keyHash, ...seen });
    if (outcome === 'done') context.amend({ ...seen, keyChanged: now });
  }

  /**
   * Ends the visit of a request. The request continues with a new, unsaved one; unless that is stored, the cookie is
   * cleared.
   *
   * @param noteEnded called if this call has ended it, before plugins are called
   */
  async endCurrent(turn: Turn, reason: string, noteEnded?: () => void): Promise<void> {
    const { context } = turn;
    const { is, record } = context.visit;
    if (is === 'late') return requireEnded(context);
    const at = this.options.clock.now();
    const ended = is === 'stored' ? await this.store.end([record.id], { reason, at, retiresKey: true }) : [];
    if (ended.length > 0) noteEnded?.();
    this.replaceCurrent(turn);
    context.outgoing.cookie = 'clear';
    context.outgoing.clearSiteData = true;
    context.watchResponse();
    // Last, so that the request does not continue as the user of an ended visit, even if a plugin throws.
    await this.announceEnd(ended, reason, at);
  }

  /** Continues the request with a new, unsaved visit that contains nothing of the old one. */
  replaceCurrent({ context }: Turn): void {
    // A late request has seen nothing of its visit: its changes are its own.
    const isOwn = context.visit.is === 'late';
    context.visit = this.prepare(context.exchange);
    context.user = undefined;
    if (!isOwn) context.heldSession?.revert();
  }

  /** Ends visits, immediately and for every process. Returns the ids that this call has ended. */
  async end(ids: readonly string[], reason: string): Promise<string[]> {
    const at = this.options.clock.now();
    const ended = await this.store.end(ids, { reason, at, retiresKey: false });
    await this.announceEnd(ended, reason, at);
    return ended;
  }

  /**
   * Emits the end of each visit.
   *
   * @throws errors of plugins, after all have been emitted
   */
  async announceEnd(ids: readonly string[], reason: string, at: number): Promise<void> {
    this.streams.visitsEnded(ids);
    for (const id of ids) this.touches.forget(id);
    await runAll(ids.map((id) => () => this.plugins.emit('onVisitEnded', { id, reason, endedAt: new Date(at) })));
  }
}

/**
 * Runs all steps one after the other, even if one fails.
 *
 * @throws the error of the first one that failed, after all have run
 */
export async function runAll(steps: readonly (() => unknown)[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure) throw failure.error;
}
