import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitContext } from '../visit.context.js';

/** The user object of a request: loaded once, and shown at `request.user` to those who look there. */
@Injectable()
export class RequestUser {
  constructor(@Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'identity'>) {}

  /** What `identity.loadUser` gives, or null for nobody; without `loadUser`, the id in an object. Rejected as `loadUser` is. */
  load(context: VisitContext): Promise<unknown> {
    const userId = context.state.record.identity?.userId;
    if (userId === undefined) return Promise.resolve(null);
    const { loadUser = (id: string) => ({ id }) } = this.options.identity;
    return (context.user ??= (async () => (await loadUser(userId)) ?? null)());
  }

  /** Sets `request.user`, as the option `identity.requestUser` wants it. Undefined: there is nothing to wait for. */
  show(context: VisitContext): Promise<void> | undefined {
    if (!this.options.identity.requestUser) return undefined;
    const request = context.exchange.request as { user?: unknown };
    return this.load(context).then((user) => {
      request.user = user ?? undefined;
    });
  }

  /** The visit belongs to somebody else now, or to nobody. */
  forget(context: VisitContext): Promise<void> | undefined {
    context.user = undefined;
    return this.show(context);
  }
}
