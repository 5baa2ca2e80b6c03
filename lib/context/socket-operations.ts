import type { ExecutionContext } from '@nestjs/common';
import type { RequestContext } from './request.context.js';

/** An operation of GraphQL that has come on a socket, as subscriptions do. Its resolvers share one context. */
export interface SocketOperation {
  readonly context: RequestContext;
  /** When this has resolved, its visit is known. Rejects with `VisitEndedError`: it has ended. */
  readonly ready: Promise<void>;
  /**
   * The result of a resolver. Of a stream, each event is given when the visit has been looked up again, and none after
   * its end.
   */
  watch(result: unknown): unknown;
}

/** A contract, because whoever knows connections is above the rooms that serve requests. */
export abstract class SocketOperations {
  /** The operation that a resolver is called for. Undefined: it has come in a request. */
  abstract find(execution: ExecutionContext): SocketOperation | undefined;
}
