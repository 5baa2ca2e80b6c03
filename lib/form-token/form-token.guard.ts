import { Inject, Injectable, UseGuards, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { FormTokenError } from '../errors/visit.error.js';
import { contextOf, requireContext } from '../context/request.context.js';
import { readHandlerPolicy } from '../request/handler-policy.js';
import { RequestStory } from '../request/request.story.js';
import { FormTokens } from './form-tokens.js';

/**
 * The guard behind `@RequireFormToken()`. It is exported only so that tests can replace it with
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
 * Requires a form token of the visit and consumes it, so a form that is submitted twice is processed once. The token is
 * read from the form field `formTokens.field` or the header `x-form-token`. Other requests get 403.
 */
export const RequireFormToken = (): MethodDecorator & ClassDecorator => UseGuards(FormTokenGuard);
