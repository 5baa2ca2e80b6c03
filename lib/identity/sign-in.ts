import { Inject, Injectable } from '@nestjs/common';
import type { Outgoing, RequestContext, VisitState } from '../context/request.context.js';
import type { Turn } from '../context/turn.js';
import { IdentityRequiredError, VisitEndedError, VisitHttpError, VisitKeyRetiredError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { RequestUser } from '../request/request-user.js';
import { FORM_TOKENS } from '../session/hidden-entries.js';
import { SessionSaver } from '../session/session.saver.js';
import { StoreAccess } from '../store/store-access.js';
import { isRevokedSince } from '../visit/revocation.js';
import { signInInstant } from '../visit/sign-in-instant.js';
import { VisitLimit } from '../visit/visit.limit.js';
import { failedSignIn, VisitWriter, type FirstContent } from '../visit/visit.writer.js';
import { NewDeviceNotice } from './new-device.js';

/** The user of a sign-in, and its circumstances. */
export interface NewIdentity {
  readonly userId: string;
  readonly permanent: boolean;
  /** When the user authenticated. Undefined: now. */
  readonly authenticatedAt?: Date | undefined;
}

/** The state before a sign-in, to restore it after a failure. */
interface Before {
  readonly visit: VisitState;
  /** The headers of the response at that time. */
  readonly outgoing: Readonly<Outgoing>;
  /** The changes of the session at that time. */
  readonly changes: unknown;
}

const foundIn = ({ visit, outgoing, heldSession }: RequestContext): Before => ({
  visit,
  outgoing: { ...outgoing },
  changes: heldSession?.mark() ?? null,
});

/**
 * The progress of a sign-in: it links the user to the visit of the request, or begins another visit. `former` is the
 * visit of another user, which ends when everything else is done. A link is alone if no session data is stored with it.
 */
type Progress =
  | { readonly is: 'linked'; readonly isAlone: boolean }
  | { readonly is: 'begun'; readonly former: 'none' | 'stays' | 'ended' };

/**
 * Stores more in the same turn as a sign-in.
 *
 * @param first the initial content of the visit, if one begins: its key must be withheld
 */
export type StoredWithSignIn = (turn: Turn, first?: FirstContent) => Promise<void>;

/** Links visits to users, for `IdentityService` and for the session of a library that signs users in. */
@Injectable()
export class SignIn {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(VisitLimit) private readonly limit: VisitLimit,
    @Inject(NewDeviceNotice) private readonly newDevice: NewDeviceNotice,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {}

  /** Ends the visit of the request. After a failure, `request.user` is the user of the visit at that time. */
  async endCurrent(turn: Turn, reason: string): Promise<void> {
    try {
      await this.writer.endCurrent(turn, reason);
    } finally {
      await this.users.forget(turn.context);
    }
  }

  /**
   * Links the visit of the request to the user, with a new key. If anything fails, the user is not signed in, and no
   * key is sent.
   *
   * @param store stores what else belongs to it: together with a new visit, or otherwise after all checks have passed
   */
  async signIn(
    turn: Turn,
    { userId, permanent, authenticatedAt }: NewIdentity,
    store?: StoredWithSignIn,
  ): Promise<void> {
    const { context } = turn;
    context.requireHeaders('Nobody can sign in');
    const proved = signInInstant(authenticatedAt, this.options);
    const before = foundIn(context);
    const signedIn = context.visit.record.identity;
    const isSame = signedIn?.userId === userId;
    if (!isSame) await this.limit.admit(userId, context.visit.record.id);
    const now = this.options.clock.now();
    const identity = { userId, created: isSame ? signedIn.created : now, authenticatedAt: proved };
    const change = { identity, permanent };
    const isOthers = signedIn !== null && !isSame;
    let progress: Progress = { is: 'linked', isAlone: store === undefined };
    try {
      const isLinked = context.visit.is === 'stored' && !isOthers && (await this.link(turn, change));
      if (!isLinked) {
        progress = { is: 'begun', former: isOthers ? 'stays' : 'none' };
        // A sign-in is an action of the user, so even a request whose key has been replaced begins a visit with it.
        if (context.visit.is !== 'unsaved') this.writer.replaceCurrent(turn);
        await (store ? store(turn, change) : this.writer.storeCurrent(turn, change, 'withhold'));
      }
      await this.requireNotRevoked(userId, context.began);
      if (await this.limit.isSurplus(userId, context.visit.record.id)) throw this.limit.error();
      await this.users.forget(context);
      if (!isSame) await this.newDevice.give(context.visit.record, identity);
      if (progress.is === 'linked') await store?.(turn);
      // Last, because everything before it can be undone.
      if (isOthers)
        await this.endFormer(before.visit, context.outgoing, () => (progress = { is: 'begun', former: 'ended' }));
    } catch (error) {
      // If the change of key has failed, nothing has changed.
      if (progress.is === 'begun' || context.visit.key !== before.visit.key)
        await this.takeBack(turn, error, before, progress);
      throw error;
    }
    context.sendKey();
  }

  /** Records that the user has authenticated again. After a failure, nothing has changed. */
  async reauthenticate(turn: Turn): Promise<void> {
    const { context } = turn;
    const { identity, id } = context.visit.record;
    if (!identity) throw new IdentityRequiredError();
    const before = foundIn(context);
    await this.writer.rekey(turn, { identity: { ...identity, authenticatedAt: this.options.clock.now() } }, 'withhold');
    try {
      if (await this.limit.isSurplus(identity.userId, id)) throw this.limit.error();
    } catch (error) {
      await this.takeBack(turn, error, before, { is: 'linked', isAlone: true });
      throw error;
    }
    context.sendKey();
  }

  /**
   * Signs the user out. The visit continues with a new key and with its session data. The key is also sent if a plugin
   * throws. Everything else that a sign-out stores is stored before that: if the answer is lost, the client gets its
   * key back and finds all of it.
   */
  async signOut(turn: Turn): Promise<void> {
    const { context } = turn;
    try {
      await this.saver.drop(turn, FORM_TOKENS);
      await this.writer.rekey(turn, { identity: null });
      context.outgoing.clearSiteData = true;
    } finally {
      await this.users.forget(context);
    }
  }

  /** Ends the visit of another user that the request came with. An error of a plugin is thrown after it has ended. */
  private async endFormer({ record: { id } }: VisitState, outgoing: Outgoing, noteEnded: () => void): Promise<void> {
    const ending = { reason: 'replaced', at: this.options.clock.now() };
    const ended = await this.store.end([id], { ...ending, retiresKey: true });
    noteEnded();
    outgoing.clearSiteData = true;
    await this.writer.announceEnd(ended, ending.reason, ending.at);
  }

  /**
   * Checked after the link is stored: either the end of all visits has seen the link, or this check sees that all
   * visits were ended.
   */
  private async requireNotRevoked(userId: string, began: number): Promise<void> {
    const endedAll = await this.store.revokedAt(userId);
    if (isRevokedSince(endedAll, began, this.options)) throw new VisitEndedError();
  }

  /**
   * Undoes a sign-in whose key has not been sent. The client keeps what it came with: the visit with its key, or the
   * visit of another user. Only if the sign-in was refused, a visit that has already been linked ends.
   */
  private async takeBack(turn: Turn, reason: unknown, before: Before, progress: Progress): Promise<void> {
    const { context } = turn;
    const { visit, outgoing, changes } = before;
    const isRefused = reason instanceof VisitHttpError && reason.getStatus() < 500;
    // Data that was stored with it would be found with the previous key.
    const isUndone = progress.is === 'linked' && progress.isAlone && !isRefused && (await this.undoLink(turn, visit));
    if (!isUndone) await this.discard(turn, reason);
    const isBack = progress.is === 'begun' && progress.former === 'stays';
    if (isBack) context.visit = visit;
    // The handler's changes belong to the restored visit, or to a visit that does not exist yet.
    if (isBack || visit.is !== 'stored') context.heldSession?.restore(changes);
    const isGone = progress.is === 'linked' || visit.is === 'unsaved' ? isRefused : progress.former === 'ended';
    // If the client may try again, its cookie is kept. It may also have a newer one than the one that this request came
    // with.
    if (!isGone) Object.assign(context.outgoing, { cookie: outgoing.cookie, clearSiteData: outgoing.clearSiteData });
    // `request.user` is reset, and a failure to do so does not replace the original error.
    await this.users.forget(context);
  }

  /** Returns whether the visit is as it was before. An error of a plugin does not replace the original error. */
  private async undoLink(turn: Turn, before: VisitState): Promise<boolean> {
    try {
      return await this.writer.undoRekey(turn, before);
    } catch {
      return turn.context.visit.key === before.key;
    }
  }

  /** Ends the visit, and continues the request with another one. */
  private async discard(turn: Turn, reason: unknown): Promise<void> {
    const { context } = turn;
    const { id } = context.visit.record;
    // The visit may exist although the answer was lost.
    context.amend({}, { is: 'stored' });
    try {
      await this.writer.endCurrent(turn, failedSignIn(reason));
    } catch {
      // The store is unavailable, and the client gets that error. No client has the key of this visit.
      if (context.visit.record.id === id) {
        this.store.finishLater(id, () => this.writer.end([id], failedSignIn(reason)));
        this.writer.replaceCurrent(turn);
      }
    }
  }

  /**
   * Returns whether the visit now belongs to the user. It does not if another request has ended it or changed its key,
   * for example by a second click on "Sign in".
   */
  private async link(turn: Turn, change: Parameters<VisitWriter['rekey']>[1]): Promise<boolean> {
    try {
      // A client that had the visit before may have it again, but its form tokens must not become valid again.
      await this.saver.drop(turn, FORM_TOKENS);
      await this.writer.rekey(turn, change, 'withhold');
      return true;
    } catch (error) {
      if (error instanceof VisitKeyRetiredError || error instanceof VisitEndedError) return false;
      throw error;
    }
  }
}
