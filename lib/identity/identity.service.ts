import { Inject, Injectable } from '@nestjs/common';
import { CurrentRequest } from '../context/current-request.js';
import type { Outgoing, VisitState } from '../context/request.context.js';
import type { Turn } from '../context/turn.js';
import { IdentityRequiredError, VisitEndedError, VisitError, VisitHttpError, VisitKeyRetiredError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { RequestUser } from '../request/request-user.js';
import { FORM_TOKENS } from '../session/hidden-entries.js';
import { SessionSaver } from '../session/session.saver.js';
import { StoreAccess } from '../store/store-access.js';
import { signInInstant } from '../visit/sign-in-instant.js';
import { checkedUserId } from '../visit/user-id.js';
import { isRevokedSince } from '../visit/revocation.js';
import { VisitLimit } from '../visit/visit.limit.js';
import { failedSignIn, requireEnded, VisitWriter } from '../visit/visit.writer.js';
import { NewDeviceNotice } from './new-device.js';

export interface LoginOptions {
  /**
   * "Remember me": the visit outlives the browser's session, for `permanentTimeout`. False takes that back from a visit that had it.
   *
   * @default `cookie.permanent`
   */
  permanent?: boolean;
  /**
   * When the user proved who they are, where that was earlier and elsewhere, such as `auth_time` of an identity provider (OpenID Connect
   * Core, 2). `@RequireFresh()` and `absoluteTimeout` go by it. One that lies ahead counts as now. @default now
   */
  authenticatedAt?: Date;
}

export interface LogoutOptions {
  /** Keep the visit and its session data, with a new key and without the user. @default false: the visit ends, its data is wiped */
  keepVisit?: boolean;
}

/** What a sign-in found, to be found again if it fails. */
interface Before {
  readonly visit: VisitState;
  /** What the response was to say. */
  readonly outgoing: Readonly<Outgoing>;
  /** What the request had changed in its session. */
  readonly changes: unknown;
}

/**
 * How far a sign-in has come: it links the user to the visit of the request, or begins another visit. The former one is another user's,
 * which ends when all else is done.
 */
type Progress = { readonly is: 'linked' } | { readonly is: 'begun'; readonly former: 'none' | 'stays' | 'ended' };

/**
 * The user of the visit of the request that is being served. Each call that writes is one turn of the request: it begins when the writes
 * called before it are done, and those called after it wait for all of it.
 */
@Injectable()
export class IdentityService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(VisitLimit) private readonly limit: VisitLimit,
    @Inject(NewDeviceNotice) private readonly newDevice: NewDeviceNotice,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {}

  /**
   * The id of the user who is signed in, or null. Costs no query: it comes with the visit.
   *
   * @throws VisitNotResolvedError outside of a request and under `@SkipVisit()`, VisitStoreUnavailableError (503)
   */
  get userId(): string | null {
    return this.requests.require().visit.record.identity?.userId ?? null;
  }

  /** When the user last proved who they are, or null if nobody is signed in. @throws like `userId` */
  get authenticatedAt(): Date | null {
    const { identity } = this.requests.require().visit.record;
    return identity ? new Date(identity.authenticatedAt) : null;
  }

  /** What the option `identity.loadUser` gives for the user who is signed in, once per request; null if nobody is. @throws like `userId` */
  async user<User = unknown>(): Promise<User | null> {
    const context = this.requests.require();
    if (context.visit.record.identity && !this.options.identity.loadUser)
      throw new VisitError('VISIT_OPTION', 'user() needs the option "identity.loadUser"');
    return this.users.load(context) as Promise<User | null>;
  }

  /**
   * Signs a user in. The key is renewed in the same step: the one from before is dead for this identity at once (R39, B23,
   * B24). The session data of an anonymous visit stays; that of another user does not: the visit ends and a new one begins.
   *
   * If another request has ended the visit or changed its key meanwhile, a new visit begins, too. When anything fails, nobody is signed in,
   * no key leaves, and the client keeps the visit that it came with.
   *
   * @throws VisitEndedError (409) when all visits of this user have been ended since the request came in, VisitLimitError
   * (409) when the user has too many visits and `identity.onLimit` is `refuse`, FreshIdentityRequiredError (401) when `authenticatedAt` is
   * longer ago than `absoluteTimeout`, VisitStoreUnavailableError (503), what a plugin with `onError: 'throw'` throws
   */
  login(userId: string | number, options: LoginOptions = {}): Promise<void> {
    return this.requests.take('identity.login()', async (turn) => this.signIn(turn, checkedUserId(userId), options));
  }

  /**
   * Signs out. By default the visit ends and the cookie is cleared.
   *
   * @throws VisitKeyRetiredError (409) when another request has changed the key of the visit just now, by a sign-in for example, so that this
   * one may not end it: whoever is signed in by then still is
   */
  logout({ keepVisit = false }: LogoutOptions = {}): Promise<void> {
    return this.requests.take('identity.logout()', async (turn) => {
      const { context } = turn;
      if (!keepVisit) return this.endCurrent(turn, 'logout');
      if (context.visit.is === 'late') return requireEnded(context);
      if (!context.visit.record.identity) return;
      try {
        await this.saver.drop(turn, FORM_TOKENS);
        await this.writer.rekey(turn, { identity: null });
        context.outgoing.clearSiteData = true;
      } finally {
        await this.users.forget(context);
      }
    });
  }

  /** The user has proved again who they are: the key is renewed and `authenticatedAt` is now. @throws IdentityRequiredError (401) */
  reauthenticate(): Promise<void> {
    return this.requests.take('identity.reauthenticate()', async (turn) => {
      const { identity } = turn.context.visit.record;
      if (!identity) throw new IdentityRequiredError();
      await this.writer.rekey(turn, { identity: { ...identity, authenticatedAt: this.options.clock.now() } });
    });
  }

  /** Whatever fails, `request.user` is whoever the visit belongs to then. */
  private async endCurrent(turn: Turn, reason: string): Promise<void> {
    try {
      await this.writer.endCurrent(turn, reason);
    } finally {
      await this.users.forget(turn.context);
    }
  }

  private async signIn(
    turn: Turn,
    userId: string,
    { permanent = this.options.cookie.permanent, authenticatedAt }: LoginOptions,
  ): Promise<void> {
    const { context } = turn;
    context.requireHeaders('Nobody can sign in');
    const proved = signInInstant(authenticatedAt, this.options);
    const before: Before = { visit: context.visit, outgoing: { ...context.outgoing }, changes: context.heldSession?.mark() ?? null };
    const signedIn = context.visit.record.identity;
    const isSame = signedIn?.userId === userId;
    if (!isSame) await this.limit.admit(userId, context.visit.record.id);
    const now = this.options.clock.now();
    const identity = { userId, created: isSame ? signedIn.created : now, authenticatedAt: proved };
    const change = { identity, permanent };
    const isOthers = signedIn !== null && !isSame;
    let progress: Progress = { is: 'linked' };
    try {
      const isLinked = context.visit.is === 'stored' && !isOthers && (await this.link(turn, change));
      if (!isLinked) {
        progress = { is: 'begun', former: isOthers ? 'stays' : 'none' };
        // To sign in is an act of the user: also a request whose key has been replaced begins a visit with it.
        if (context.visit.is !== 'unsaved') this.writer.replaceCurrent(turn);
        await this.writer.storeCurrent(turn, change, 'withhold');
      }
      await this.requireNotRevoked(userId, context.began);
      if (await this.limit.isSurplus(userId, context.visit.record.id)) throw this.limit.error();
      await this.users.forget(context);
      if (!isSame) await this.newDevice.give(context.visit.record, identity);
      // Last: until here, all can be taken back.
      if (isOthers) await this.endFormer(before.visit, context.outgoing, () => (progress = { is: 'begun', former: 'ended' }));
    } catch (error) {
      // What has failed to change the key has changed nothing.
      if (progress.is === 'begun' || context.visit.key !== before.visit.key) await this.takeBack(turn, error, before, progress);
      throw error;
    }
    context.sendKey();
  }

  /** Another user's visit that the request came with. What a plugin throws that hears of it comes after it has ended. */
  private async endFormer({ record: { id } }: VisitState, outgoing: Outgoing, noteEnded: () => void): Promise<void> {
    const ending = { reason: 'replaced', at: this.options.clock.now() };
    const ended = await this.store.end([id], { ...ending, retiresKey: true });
    noteEnded();
    outgoing.clearSiteData = true;
    await this.writer.announceEnd(ended, ending.reason, ending.at);
  }

  /** Looked up after the link is stored: either ending all visits saw the link, or this sees that all were ended (B7). */
  private async requireNotRevoked(userId: string, began: number): Promise<void> {
    const endedAll = await this.store.read((store) => store.endedAllAt(userId));
    if (isRevokedSince(endedAll, began, this.options)) throw new VisitEndedError();
  }

  /**
   * Nothing of the sign-in remains, whose key has not left. What the client came with is there still: the visit with its key, or that of
   * another user. Only where the sign-in was refused, a visit that has been linked ends.
   */
  private async takeBack(turn: Turn, reason: unknown, before: Before, progress: Progress): Promise<void> {
    const { context } = turn;
    const { visit, outgoing, changes } = before;
    const isRefused = reason instanceof VisitHttpError && reason.getStatus() < 500;
    const isUndone = progress.is === 'linked' && !isRefused && (await this.undoLink(turn, visit));
    if (!isUndone) await this.discard(turn, reason);
    const isBack = progress.is === 'begun' && progress.former === 'stays';
    if (isBack) context.visit = visit;
    // What the handler has changed belongs to the visit that is back, or to none yet.
    if (isBack || visit.is !== 'stored') context.heldSession?.restore(changes);
    const isGone = progress.is === 'linked' || visit.is === 'unsaved' ? isRefused : progress.former === 'ended';
    // Where the client may try again its cookie stays; and it may have a better one than the one that this request came with.
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

  /** Whether the visit now belongs to the user; not if another request has ended it or changed its key: a second click on "Sign in", for example. */
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
