import { Inject, Injectable } from '@nestjs/common';
import { CurrentRequest } from '../context/current-request.js';
import { VisitError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { RequestUser } from '../request/request-user.js';
import { SessionSaver } from '../session/session.saver.js';
import { checkedUserId } from '../visit/user-id.js';
import { requireEnded } from '../visit/visit.writer.js';
import { PASSPORT } from './passport-entry.js';
import { SignIn } from './sign-in.js';

/** Options of `IdentityService.login()`. */
export interface LoginOptions {
  /**
   * "Remember me": the visit outlives the browser session and lasts for `permanentTimeout`. `false` turns a permanent
   * visit into a normal one.
   *
   * @default `cookie.permanent`
   */
  permanent?: boolean;
  /**
   * When the user authenticated, if that was earlier and elsewhere, such as `auth_time` of an identity provider (OpenID
   * Connect Core, 2). `@RequireFresh()` and `absoluteTimeout` use it. An instant in the future counts as now.
   *
   * @default now
   */
  authenticatedAt?: Date;
}

/** Options of `IdentityService.logout()`. */
export interface LogoutOptions {
  /**
   * Keeps the visit and its session data, with a new key and without the user.
   *
   * @default false: the visit ends, and its data is wiped
   */
  keepVisit?: boolean;
}

/**
 * The user of the current request. Methods that write run one after the other, in the order of the calls: each one
 * begins after the earlier writes of the request are done.
 */
@Injectable()
export class IdentityService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
    @Inject(SignIn) private readonly identities: SignIn,
  ) {}

  /**
   * The id of the signed-in user, or null. It needs no query, because it is loaded with the visit.
   *
   * @throws VisitNotResolvedError outside of a request and under `@SkipVisit()`; VisitStoreUnavailableError (503)
   */
  get userId(): string | null {
    return this.requests.require().visit.record.identity?.userId ?? null;
  }

  /** When the user last authenticated, or null if no user is signed in. @throws like `userId` */
  get authenticatedAt(): Date | null {
    const { identity } = this.requests.require().visit.record;
    return identity ? new Date(identity.authenticatedAt) : null;
  }

  /**
   * The signed-in user, loaded by the option `identity.loadUser` once per request, or null if no user is signed in.
   *
   * @throws like `userId`; VisitError `VISIT_OPTION` if `identity.loadUser` is not set
   */
  async user<User = unknown>(): Promise<User | null> {
    const context = this.requests.require();
    if (context.visit.record.identity && !this.options.identity.loadUser)
      throw new VisitError('VISIT_OPTION', 'user() needs the option "identity.loadUser"');
    return this.users.load(context) as Promise<User | null>;
  }

  /**
   * Signs a user in. The key is renewed in the same step, and the previous key stops working immediately. The session
   * data of an anonymous visit is kept. If the visit belongs to another user, it ends, and a new visit begins.
   *
   * A new visit also begins if another request has ended the visit or changed its key in the meantime. If anything
   * fails, the user is not signed in, no key is sent, and the client keeps its previous visit.
   *
   * @throws VisitEndedError (409) if all visits of this user have been ended since the request arrived; VisitLimitError
   * (409) if the user has too many visits and `identity.onLimit` is `refuse`; FreshIdentityRequiredError (401) if
   * `authenticatedAt` is longer ago than `absoluteTimeout`; VisitStoreUnavailableError (503); errors of plugins with
   * `onError: 'throw'`
   */
  login(
    userId: string | number,
    { permanent = this.options.cookie.permanent, authenticatedAt }: LoginOptions = {},
  ): Promise<void> {
    return this.requests.take('identity.login()', async (turn) =>
      this.identities.signIn(turn, { userId: checkedUserId(userId), permanent, authenticatedAt }),
    );
  }

  /**
   * Signs the user out. By default, the visit ends and the cookie is cleared.
   *
   * @throws VisitKeyRetiredError (409) if another request has just changed the key of the visit, for example by a
   * sign-in. The visit does not end, and that user stays signed in
   */
  logout({ keepVisit = false }: LogoutOptions = {}): Promise<void> {
    return this.requests.take('identity.logout()', async (turn) => {
      const { context } = turn;
      if (!keepVisit) return this.identities.endCurrent(turn, 'logout');
      if (context.visit.is === 'late') return requireEnded(context);
      if (!context.visit.record.identity) return;
      // Or Passport would go on knowing them.
      if (this.options.identity.passportUserId !== false) await this.saver.drop(turn, PASSPORT);
      await this.identities.signOut(turn);
    });
  }

  /**
   * Records that the user has authenticated again: renews the key and sets `authenticatedAt` to now. The limits of a
   * sign-in apply, including those that were introduced since then.
   *
   * @throws IdentityRequiredError (401); VisitLimitError (409) if the user has too many visits and `identity.onLimit`
   * is `refuse`; the visit then ends
   */
  reauthenticate(): Promise<void> {
    return this.requests.take('identity.reauthenticate()', (turn) => this.identities.reauthenticate(turn));
  }
}
