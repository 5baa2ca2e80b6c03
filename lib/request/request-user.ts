import { Inject, Injectable } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/** The user object of a request: loaded once, and shown at `request.user` to those who look there. */
@Injectable()
export class RequestUser {
  constructor(@Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'identity'>) {}

  /**
   * What `identity.loadUser` gives, or null for nobody; without `loadUser`, the id in an object. Rejected as `loadUser`
   * is.
   */
  load(context: RequestContext): Promise<unknown> {
    const userId = context.visit.record.identity?.userId;
    if (userId === undefined) return Promise.resolve(null);
    const { loadUser = (id: string) => ({ id }) } = this.options.identity;
    return (context.user ??= (async () => (await loadUser(userId)) ?? null)());
  }

  /**
   * Sets `request.user`, as the option `identity.requestUser` wants it. What somebody else has put there stays: their
   * guard knows of a user that we do not. Undefined: there is nothing to wait for.
   */
  show(context: RequestContext): Promise<void> | undefined {
    if (!this.options.identity.requestUser) return undefined;
    // Who looks there cannot be seen.
    if (!context.isRead) context.noteRead();
    const request = context.exchange.request as { user?: unknown };
    const isOurs = (): boolean => isRefusal(request) || request.user == null || request.user === context.shownUser;
    if (!isOurs()) return undefined;
    if (context.visit.record.identity === null) {
      if (context.shownUser !== undefined || isRefusal(request)) request.user = context.shownUser = undefined;
      return undefined;
    }
    return this.load(context).then((user) => {
      if (isOurs()) request.user = context.shownUser = user ?? undefined;
    });
  }

  /**
   * The same before a handler, which runs also when the user cannot be loaded: it may be the one that signs them out.
   * Whoever looks at `request.user` then gets what `loadUser` threw.
   */
  showBefore(context: RequestContext): Promise<void> | undefined {
    return this.show(context)?.catch((error: unknown) => refuse(context.exchange.request, error));
  }

  /** The visit belongs to somebody else now, or to nobody. */
  forget(context: RequestContext): Promise<void> | undefined {
    context.user = undefined;
    return this.show(context);
  }
}

/** Requests at whose `user` there is nothing to read but an error. */
const refusing = new WeakSet<object>();

const isRefusal = (request: object): boolean => refusing.has(request);

/** Reading throws; assigning puts a value there. */
function refuse(request: object, error: unknown): void {
  refusing.add(request);
  Object.defineProperty(request, 'user', {
    get(): never {
      throw error;
    },
    set(value: unknown): void {
      refusing.delete(request);
      Object.defineProperty(request, 'user', { value, writable: true, enumerable: true, configurable: true });
    },
    // Who prints a request does not read it.
    enumerable: false,
    configurable: true,
  });
}
