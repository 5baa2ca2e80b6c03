import { Inject, Injectable, UseGuards, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { FormTokenError } from '../errors/visit.error.js';
import { contextOf, requireContext } from '../context/request.context.js';
import { readHandlerPolicy } from '../request/handler-policy.js';
import { RequestStory } from '../request/request.story.js';
import { FormTokens } from './form-tokens.js';

/**
 * What `@RequireFormToken()` puts before a handler. Named only to be replaced in tests, by
 * `overrideGuard(FormTokenGuard)`.
 *
 * @throws FormTokenError (403); VisitStoreUnavailableError (503)
 */
@Injectable()
export class FormTokenGuard implements CanActivate {
  constructor(
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(FormTokens) private readonly tokens: FormTokens,
  ) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    try {
      await this.story.applyPolicy(contextOf(execution), readHandlerPolicy(execution));
      const outcome = await this.tokens.accept(requireContext(execution));
      if (outcome === 'accepted') return true;
      throw new FormTokenError(outcome);
    } catch (error) {
      this.story.noteRefusal(error);
      throw error;
    }
  }
}

/**
 * Lets only requests through that bring a form token of their visit, and uses it up: a form that is sent twice is done
 * once. The token is in the field `formTokens.field` of the body or in the header `x-form-token`; others get 403.
 */
export const RequireFormToken = (): MethodDecorator & ClassDecorator => UseGuards(FormTokenGuard);
