import { Inject, Injectable } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/** The user object of a request: loaded once, and available at `request.user`. */
@Injectable()
export class RequestUser {
  constructor(@Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'identity'>) {}

  /**
   * The result of `identity.loadUser`, or null if no user is signed in; without `loadUser`, an object with the id.
   * Rejects if `loadUser` does.
   */
  load(context: RequestContext): Promise<unknown> {
    const userId = context.visit.record.identity?.userId;
    if (userId === undefined) return Promise.resolve(null);
    const { loadUser = (id: string) => ({ id }) } = this.options.identity;
    return (context.user ??= (async () => (await loadUser(userId)) ?? null)());
  }

  /**
   * Sets `request.user` according to the option `identity.requestUser`. A value that other code has set is kept,
   * because its guard knows a user that we do not. Undefined: there is nothing to wait for.
   */
  show(context: RequestContext): Promise<void> | undefined {
    if (!this.options.identity.requestUser) return undefined;
    // Reads of `request.user` cannot be observed.
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
   * The same before a handler, which also runs if the user cannot be loaded: it may be the one that signs them out.
   * Reading `request.user` then throws the error of `loadUser`.
   */
  showBefore(context: RequestContext): Promise<void> | undefined {
    return this.show(context)?.catch((error: unknown) => refuse(context.exchange.request, error));
  }

  /** Called when the user of the visit has changed, or it has none any more. */
  forget(context: RequestContext): Promise<void> | undefined {
    context.user = undefined;
    return this.show(context);
  }
}

/** Requests whose `user` throws when it is read. */
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
    // Printing a request does not read it.
    enumerable: false,
    configurable: true,
  });
}
