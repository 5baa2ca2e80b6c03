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
   * "Remember me": the visit outlives the browser's session, for `permanentTimeout`. False takes that back from a visit
   * that had it.
   *
   * @default `cookie.permanent`
   */
  permanent?: boolean;
  /**
   * When the user proved who they are, where that was earlier and elsewhere, such as `auth_time` of an identity
   * provider (OpenID Connect Core, 2). `@RequireFresh()` and `absoluteTimeout` go by it. One that lies ahead counts as
   * now. @default now
   */
  authenticatedAt?: Date;
}

/** Options of `IdentityService.logout()`. */
export interface LogoutOptions {
  /**
   * Keep the visit and its session data, with a new key and without the user.
   *
   * @default false: the visit ends, its data is wiped
   */
  keepVisit?: boolean;
}

/**
 * The user of the visit of the request that is being served. Each call that writes is one turn of the request: it
 * begins when the writes called before it are done, and those called after it wait for all of it.
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

  /**
   * What the option `identity.loadUser` gives for the user who is signed in, once per request; null if nobody is.
   *
   * @throws like `userId`
   */
  async user<User = unknown>(): Promise<User | null> {
    const context = this.requests.require();
    if (context.visit.record.identity && !this.options.identity.loadUser)
      throw new VisitError('VISIT_OPTION', 'user() needs the option "identity.loadUser"');
    return this.users.load(context) as Promise<User | null>;
  }

  /**
   * Signs a user in. The key is renewed in the same step: the one from before is dead at once. The session data of an
   * anonymous visit stays; that of another user does not: their visit ends and a new one begins.
   *
   * If another request has ended the visit or changed its key meanwhile, a new visit begins, too. When anything fails,
   * nobody is signed in, no key leaves, and the client keeps the visit that it came with.
   *
   * @throws VisitEndedError (409) when all visits of this user have been ended since the request came in,
   * VisitLimitError (409) when the user has too many visits and `identity.onLimit` is `refuse`,
   * FreshIdentityRequiredError (401) when `authenticatedAt` is longer ago than `absoluteTimeout`,
   * VisitStoreUnavailableError (503), what a plugin with `onError: 'throw'` throws
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
   * Signs out. By default the visit ends and the cookie is cleared.
   *
   * @throws VisitKeyRetiredError (409) when another request has changed the key of the visit just now, by a sign-in for
   * example, so that this one may not end it: whoever is signed in by then still is
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
   * The user has proved again who they are: the key is renewed and `authenticatedAt` is now. Limits hold as for a
   * sign-in, also those that are new since then.
   *
   * @throws IdentityRequiredError (401); VisitLimitError (409) when the user has too many visits and `identity.onLimit`
   * is `refuse`: the visit ends then
   */
  reauthenticate(): Promise<void> {
    return this.requests.take('identity.reauthenticate()', (turn) => this.identities.reauthenticate(turn));
  }
}
