import { Inject, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { findContextIn } from '../context/request.context.js';
import { readHandlerPolicy } from './handler-policy.js';
import { RequestStory } from './request.story.js';

/**
 * Before all other guards: here the handler is known for the first time, and so is what it asks for. Lets everything through.
 *
 * A resolver of GraphQL is not called as a route is: there it also enters the request's context anew (law 8).
 */
@Injectable()
export class VisitGuard implements CanActivate {
  constructor(@Inject(RequestStory) private readonly story: RequestStory) {}

  canActivate(execution: ExecutionContext): boolean | Promise<boolean> {
    const context = findContextIn(execution);
    if (!context || !this.story.owns(context)) return true;
    const policy = readHandlerPolicy(execution);
    if (execution.getType() === 'http') context.isSkipped ||= policy.skip;
    else context.environment.requests.enter(policy.skip ? context.skippedScope : context.scope);
    const waiting = this.story.applyPolicy(context, policy);
    return waiting ? waiting.then(() => true) : true;
  }
}
