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

/** Who signs in, and how. */
export interface NewIdentity {
  readonly userId: string;
  readonly permanent: boolean;
  /** When they proved who they are. Undefined: now. */
  readonly authenticatedAt?: Date | undefined;
}

/** What a sign-in found, to be found again if it fails. */
interface Before {
  readonly visit: VisitState;
  /** What the response was to say. */
  readonly outgoing: Readonly<Outgoing>;
  /** What the request had changed in its session. */
  readonly changes: unknown;
}

const foundIn = ({ visit, outgoing, heldSession }: RequestContext): Before => ({
  visit,
  outgoing: { ...outgoing },
  changes: heldSession?.mark() ?? null,
});

/**
 * How far a sign-in has come: it links the user to the visit of the request, or begins another visit. The former one is
 * another user's, which ends when all else is done. A link is alone if nothing of the session is stored with it.
 */
type Progress =
  | { readonly is: 'linked'; readonly isAlone: boolean }
  | { readonly is: 'begun'; readonly former: 'none' | 'stays' | 'ended' };

/**
 * What is stored in the same turn as a sign-in. @param first what the visit begins with, if it begins: its key is to be
 * withheld
 */
export type StoredWithSignIn = (turn: Turn, first?: FirstContent) => Promise<void>;

/** Links visits to users, whoever asks for it: `IdentityService`, or the session of a library that signs users in. */
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

  /** Ends the visit of the request. Whatever fails, `request.user` is whoever the visit belongs to then. */
  async endCurrent(turn: Turn, reason: string): Promise<void> {
    try {
      await this.writer.endCurrent(turn, reason);
    } finally {
      await this.users.forget(turn.context);
    }
  }

  /**
   * The visit of the request belongs to the user from here on, with a new key. When anything fails, nobody is signed in
   * and no key leaves.
   *
   * @param store stores what else comes with it: with the visit where one begins, or else when all checks have passed
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
        // To sign in is an act of the user: also a request whose key has been replaced begins a visit with it.
        if (context.visit.is !== 'unsaved') this.writer.replaceCurrent(turn);
        await (store ? store(turn, change) : this.writer.storeCurrent(turn, change, 'withhold'));
      }
      await this.requireNotRevoked(userId, context.began);
      if (await this.limit.isSurplus(userId, context.visit.record.id)) throw this.limit.error();
      await this.users.forget(context);
      if (!isSame) await this.newDevice.give(context.visit.record, identity);
      if (progress.is === 'linked') await store?.(turn);
      // Last: until here, all can be taken back.
      if (isOthers)
        await this.endFormer(before.visit, context.outgoing, () => (progress = { is: 'begun', former: 'ended' }));
    } catch (error) {
      // What has failed to change the key has changed nothing.
      if (progress.is === 'begun' || context.visit.key !== before.visit.key)
        await this.takeBack(turn, error, before, progress);
      throw error;
    }
    context.sendKey();
  }

  /** The user of the visit has proved again who they are. When it fails, it is as if they had not. */
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
   * Nobody is signed in any more; the visit goes on with a new key, and with what its session has. The key leaves also
   * where a plugin throws that hears of it. What else a sign-out stores comes before: with an answer that is lost, the
   * client gets its key back, and finds all of that.
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

  /**
   * Another user's visit that the request came with. What a plugin throws that hears of it comes after it has ended.
   */
  private async endFormer({ record: { id } }: VisitState, outgoing: Outgoing, noteEnded: () => void): Promise<void> {
    const ending = { reason: 'replaced', at: this.options.clock.now() };
    const ended = await this.store.end([id], { ...ending, retiresKey: true });
    noteEnded();
    outgoing.clearSiteData = true;
    await this.writer.announceEnd(ended, ending.reason, ending.at);
  }

  /**
   * Looked up after the link is stored: either ending all visits saw the link, or this sees that all were ended.
   */
  private async requireNotRevoked(userId: string, began: number): Promise<void> {
    const endedAll = await this.store.revokedAt(userId);
    if (isRevokedSince(endedAll, began, this.options)) throw new VisitEndedError();
  }

  /**
   * Nothing of the sign-in remains, whose key has not left. What the client came with is there still: the visit with
   * its key, or that of another user. Only where the sign-in was refused, a visit that has been linked ends.
   */
  private async takeBack(turn: Turn, reason: unknown, before: Before, progress: Progress): Promise<void> {
    const { context } = turn;
    const { visit, outgoing, changes } = before;
    const isRefused = reason instanceof VisitHttpError && reason.getStatus() < 500;
    // What has been stored with it would be found by the key from before.
    const isUndone = progress.is === 'linked' && progress.isAlone && !isRefused && (await this.undoLink(turn, visit));
    if (!isUndone) await this.discard(turn, reason);
    const isBack = progress.is === 'begun' && progress.former === 'stays';
    if (isBack) context.visit = visit;
    // What the handler has changed belongs to the visit that is back, or to none yet.
    if (isBack || visit.is !== 'stored') context.heldSession?.restore(changes);
    const isGone = progress.is === 'linked' || visit.is === 'unsaved' ? isRefused : progress.former === 'ended';
    // Where the client may try again its cookie stays; and it may have a better one than the one that this request came
    // with.
    if (!isGone) Object.assign(context.outgoing, { cookie: outgoing.cookie, clearSiteData: outgoing.clearSiteData });
    // Whoever is at `request.user` by now does not stay there, and a failure to say so is not the one that counts.
    await this.users.forget(context);
  }

  /** Whether the visit is what it was before. What a plugin throws that hears of it is not the failure that counts. */
  private async undoLink(turn: Turn, before: VisitState): Promise<boolean> {
    try {
      return await this.writer.undoRekey(turn, before);
    } catch {
      return turn.context.visit.key === before.key;
    }
  }

  /** The visit ends, and the request goes on with another one. */
  private async discard(turn: Turn, reason: unknown): Promise<void> {
    const { context } = turn;
    const { id } = context.visit.record;
    // It may have come into being, and the answer was lost.
    context.amend({}, { is: 'stored' });
    try {
      await this.writer.endCurrent(turn, failedSignIn(reason));
    } catch {
      // The store is away, which is what the client hears of. Nobody has the key of this visit.
      if (context.visit.record.id === id) {
        this.store.finishLater(id, () => this.writer.end([id], failedSignIn(reason)));
        this.writer.replaceCurrent(turn);
      }
    }
  }

  /**
   * Whether the visit now belongs to the user; not if another request has ended it or changed its key: a second click
   * on "Sign in", for example.
   */
  private async link(turn: Turn, change: Parameters<VisitWriter['rekey']>[1]): Promise<boolean> {
    try {
      // Those who held the visit before may hold it again, and their form tokens shall not live again with that.
      await this.saver.drop(turn, FORM_TOKENS);
      await this.writer.rekey(turn, change, 'withhold');
      return true;
    } catch (error) {
      if (error instanceof VisitKeyRetiredError || error instanceof VisitEndedError) return false;
      throw error;
    }
  }
}
