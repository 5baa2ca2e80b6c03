import { Inject, Injectable, UseGuards, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { FormTokenError } from '../errors/visit.error.js';
import { contextOf } from '../visit.context.js';
import { VisitLifecycle } from '../visit.lifecycle.js';
import { FormTokens } from './form-tokens.js';

@Injectable()
export class FormTokenGuard implements CanActivate {
  constructor(
    @Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle,
    @Inject(FormTokens) private readonly tokens: FormTokens,
  ) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    const context = contextOf(execution);
    await this.lifecycle.resolveEarly(context, this.lifecycle.policyOf(execution));
    if (await this.tokens.accept(context)) return true;
    throw new FormTokenError();
  }
}

/**
 * Lets only requests through that bring a form token of their visit, and uses it up: a form that is sent twice is done
 * once (R59, B13). The token is in the field `formTokens.field` of the body or in the header `x-form-token`; others get 403.
 */
export const RequireFormToken = (): MethodDecorator & ClassDecorator => UseGuards(FormTokenGuard);
