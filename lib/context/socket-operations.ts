import type { ExecutionContext } from '@nestjs/common';
import type { RequestContext } from './request.context.js';

/** A GraphQL operation over a socket, such as a subscription. Its resolvers share one context. */
export interface SocketOperation {
  readonly context: RequestContext;
  /** Resolves when the visit is known. Rejects with `VisitEndedError` if it has ended. */
  readonly ready: Promise<void>;
  /**
   * The result of a resolver. For a stream, each event is passed on after the visit has been looked up again, and none
   * after its end.
   */
  watch(result: unknown): unknown;
}

/** A contract, because the code that knows connections is above the folders that serve requests. */
export abstract class SocketOperations {
  /** The operation of a resolver. Undefined: it came with an HTTP request. */
  abstract find(execution: ExecutionContext): SocketOperation | undefined;
}
