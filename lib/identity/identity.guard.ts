import {
  applyDecorators,
  createParamDecorator,
  Inject,
  Injectable,
  SetMetadata,
  UseGuards,
  type CanActivate,
  type ExecutionContext,
} from '@nestjs/common';
import { FreshIdentityRequiredError, IdentityRequiredError, VisitOptionError } from '../errors/visit.error.js';
import { LONGEST_DURATION, parseDuration, type Duration } from '../options/duration.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { contextOf, requireContext } from '../context/request.context.js';
import { readHandlerPolicy } from '../request/handler-policy.js';
import { RequestStory } from '../request/request.story.js';

const FRESH = 'nest-visit:fresh';

/**
 * The guard behind `@RequireIdentity()` and `@RequireFresh()`. It is exported only so that tests can replace it with
 * `overrideGuard(IdentityGuard)`.
 *
 * @throws IdentityRequiredError, FreshIdentityRequiredError (401); VisitStoreUnavailableError (503)
 */
@Injectable()
export class IdentityGuard implements CanActivate {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(RequestStory) private readonly story: RequestStory,
  ) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    const context = contextOf(execution);
    try {
      await this.story.applyPolicy(context, readHandlerPolicy(execution));
      return this.isIdentified(execution);
    } catch (error) {
      this.story.noteRefusal(error);
      throw context.exchange.errorFor(error);
    }
  }

  private isIdentified(execution: ExecutionContext): boolean {
    const { identity } = requireContext(execution).visit.record;
    if (!identity) throw new IdentityRequiredError();
    const maxAge = (Reflect.getMetadata(FRESH, execution.getHandler()) ??
      Reflect.getMetadata(FRESH, execution.getClass())) as number | undefined;
    if (maxAge !== undefined && this.options.clock.now() - identity.authenticatedAt > maxAge)
      throw new FreshIdentityRequiredError();
    return true;
  }
}

/** Allows only requests of signed-in users; others get 401. */
export const RequireIdentity = (): MethodDecorator & ClassDecorator => UseGuards(IdentityGuard);

/**
 * Allows only requests of users who have authenticated within `maxAge`; others get 401.
 *
 * @param options `maxAge`: a duration such as `'15m'`, at most 36500 days
 * @throws VisitOptionError immediately, for an invalid duration
 */
export function RequireFresh({ maxAge }: { maxAge: Duration }): MethodDecorator & ClassDecorator {
  const parsed = parseDuration(maxAge);
  if (parsed === null || parsed > LONGEST_DURATION)
    throw new VisitOptionError(
      `@RequireFresh() "maxAge" must be a duration such as "15m", at most 36500 days, got ${JSON.stringify(maxAge)}`,
    );
  return applyDecorators(SetMetadata(FRESH, parsed), UseGuards(IdentityGuard));
}

/** Parameter decorator: the id of the user who is signed in, or null. @throws like `IdentityService.userId` */
export const CurrentUserId = createParamDecorator(
  (_: unknown, execution: ExecutionContext) => requireContext(execution).visit.record.identity?.userId ?? null,
);
