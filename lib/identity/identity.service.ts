import { Inject, Injectable } from '@nestjs/common';
import { IdentityRequiredError, VisitEndedError, VisitError, VisitKeyRetiredError, VisitNotResolvedError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { StoreAccess } from '../store/store-access.js';
import type { VisitContext } from '../visit.context.js';
import { VisitLifecycle } from '../visit.lifecycle.js';
import { VisitKeeper } from '../visit/visit.keeper.js';
import { NewDeviceNotice } from './new-device.js';
import { RequestUser } from './request-user.js';
import { checkedUserId } from './user-id.js';
import { VisitLimit } from './visit.limit.js';

export interface LoginOptions {
  /** "Remember me": the visit outlives the browser's session, for `permanentTimeout`. @default as the visit is */
  permanent?: boolean;
}

export interface LogoutOptions {
  /** Keep the visit and its session data, with a new key and without the user. @default false: the visit ends, its data is wiped */
  keepVisit?: boolean;
}

/** Who is there: the user of the visit of the request that is being served. */
@Injectable()
export class IdentityService {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle,
    @Inject(VisitKeeper) private readonly keeper: VisitKeeper,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(VisitLimit) private readonly limit: VisitLimit,
    @Inject(NewDeviceNotice) private readonly newDevice: NewDeviceNotice,
  ) {}

  /** The id of the user who is signed in, or null. Costs no query: it comes with the visit. */
  get userId(): string | null {
    return this.context().state.record.identity?.userId ?? null;
  }

  /** When the user last proved who they are, or null if nobody is signed in. */
  get authenticatedAt(): Date | null {
    const identity = this.context().state.record.identity;
    return identity ? new Date(identity.authenticatedAt) : null;
  }

  /** What the option `identity.loadUser` gives for the user who is signed in, once per request; null if nobody is. */
  async user<User = unknown>(): Promise<User | null> {
    const context = this.context();
    if (this.userId !== null && !this.options.identity.loadUser)
      throw new VisitError('VISIT_OPTION', 'user() needs the option "identity.loadUser"');
    return this.users.load(context) as Promise<User | null>;
  }

  /**
   * Signs a user in. The key is renewed in the same step: the one from before is dead for this identity at once (R39, B23,
   * B24). The session data of an anonymous visit stays; that of another user does not: the visit ends and a new one begins.
   *
   * If another request has ended the visit or changed its key meanwhile, a new visit begins, too.
   *
   * @throws VisitEndedError (409) when all visits of this user have been ended since the request came in, VisitLimitError
   * (409) when the user has too many visits and `identity.onLimit` is `refuse`; nobody is signed in then
   */
  async login(userId: string | number, { permanent }: LoginOptions = {}): Promise<void> {
    const checked = checkedUserId(userId);
    const context = this.context();
    const signedIn = context.state.record.identity;
    const isSame = signedIn?.userId === checked;
    if (!isSame) await this.limit.admit(checked, context.state.record.id);
    if (signedIn && !isSame) await this.keeper.endCurrent(context, 'replaced');
    const now = this.options.clock.now();
    const identity = { userId: checked, created: isSame ? signedIn.created : now, authenticatedAt: now };
    const { standing } = context.state;
    const linked = standing === 'stored' && (await this.link(context, { identity, permanent }));
    // To sign in is an act of the user: also a request whose key has been replaced begins a visit with it.
    const isReplacing = !linked && standing !== 'unsaved';
    if (isReplacing) this.keeper.replaceCurrent(context);
    if (!linked) await this.keeper.storeCurrent(context, { identity, ...(permanent === undefined ? {} : { permanent }) });
    // Looked up after the link is stored: either ending all visits saw the link, or this sees that all were ended (B7).
    const endedAll = await this.store.call((store) => store.endedAllAt(checked));
    if (endedAll !== null && endedAll >= context.began) {
      await this.takeBack(context, 'revoked', isReplacing);
      throw new VisitEndedError();
    }
    if (await this.limit.isSurplus(checked, context.state.record.id)) {
      await this.takeBack(context, 'limit', isReplacing);
      throw this.limit.error();
    }
    await this.users.forget(context);
    if (!isSame) await this.newDevice.give(context.state.record, identity);
  }

  private async takeBack(context: VisitContext, reason: string, isReplacing: boolean): Promise<void> {
    await this.keeper.endCurrent(context, reason);
    // The browser has a better key than the one that this request came with.
    if (isReplacing) context.clearCookie = context.clearSiteData = false;
    await this.users.forget(context);
  }

  /** Whether the visit now belongs to the user; not if another request has ended it or changed its key: a second click on "Sign in", for example. */
  private async link(context: VisitContext, change: Parameters<VisitKeeper['rekey']>[1]): Promise<boolean> {
    try {
      await this.keeper.rekey(context, change);
      return true;
    } catch (error) {
      if (error instanceof VisitKeyRetiredError || error instanceof VisitEndedError) return false;
      throw error;
    }
  }

  /** Signs out. By default the visit ends and the cookie is cleared. */
  async logout({ keepVisit = false }: LogoutOptions = {}): Promise<void> {
    const context = this.context();
    if (!keepVisit) await this.keeper.endCurrent(context, 'logout');
    else if (context.state.record.identity) {
      await this.keeper.rekey(context, { identity: null });
      context.clearSiteData = true;
    }
    await this.users.forget(context);
  }

  /** The user has proved again who they are: the key is renewed and `authenticatedAt` is now. @throws IdentityRequiredError (401) */
  async reauthenticate(): Promise<void> {
    const context = this.context();
    const { identity } = context.state.record;
    if (!identity) throw new IdentityRequiredError();
    await this.keeper.rekey(context, { identity: { ...identity, authenticatedAt: this.options.clock.now() } });
  }

  private context(): VisitContext {
    const context = this.lifecycle.current;
    if (context) return context;
    throw new VisitNotResolvedError('there is no request here, so nobody is signed in');
  }
}
