import { Inject, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { bindMessage, findContextIn } from '../context/request.context.js';
import { SocketOperations, type SocketOperation } from '../context/socket-operations.js';
import { readHandlerPolicy } from './handler-policy.js';
import { RequestStory } from './request.story.js';

/**
 * Runs before all other guards. Here, the handler and its settings are known for the first time. It never denies
 * access. For GraphQL resolvers, which are not called as routes, it also enters the context of the request again (law
 * 8).
 */
@Injectable()
export class VisitGuard implements CanActivate {
  constructor(
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(SocketOperations) private readonly operations: SocketOperations,
  ) {}

  canActivate(execution: ExecutionContext): boolean | Promise<boolean> {
    const operation = execution.getType<string>() === 'graphql' ? this.operations.find(execution) : undefined;
    if (operation) return this.admit(operation, execution);
    const context = findContextIn(execution);
    if (!context || !this.story.owns(context)) return true;
    const policy = readHandlerPolicy(execution);
    if (execution.getType() === 'ws') bindMessage(execution, context);
    if (execution.getType() === 'http') context.isSkipped ||= policy.skip;
    else context.environment.requests.enter(policy.skip ? context.skippedScope : context.scope);
    const waiting = this.story.applyPolicy(context, policy);
    return waiting ? waiting.then(() => true) : true;
  }

  /** A socket operation is seen here for the first time. */
  private admit({ context, ready }: SocketOperation, execution: ExecutionContext): Promise<boolean> {
    const policy = readHandlerPolicy(execution);
    const scope = policy.skip ? context.skippedScope : context.scope;
    const { requests } = context.environment;
    // Immediately, so that the context also applies to the caller of the resolver, which resolves the fields of its
    // result, and of each event, afterwards.
    requests.enter(scope);
    return ready.then(async () => {
      requests.enter(scope);
      await this.story.applyPolicy(context, policy);
      return true;
    });
  }
}
