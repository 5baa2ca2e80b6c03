import { Inject, Injectable, type ExecutionContext } from '@nestjs/common';
import { CurrentRequest } from '../context/current-request.js';
import { bindOperation, findOperation, type RequestContext } from '../context/request.context.js';
import type { SocketOperation, SocketOperations } from '../context/socket-operations.js';
import { VisitEndedError, VisitHeadersSentError } from '../errors/visit.error.js';
import type { MessageExchange } from '../platform/handshake.js';
import type { Connection } from '../websockets/connection.js';
import { Connections } from '../websockets/connections.js';
import { socketOf } from './graphql-socket.js';

/**
 * Serves GraphQL operations over a socket: they have the visit of its handshake, and are served like messages of
 * gateways. The socket is one of the connections that end with their visit.
 */
@Injectable()
export class GraphqlOperations implements SocketOperations {
  private readonly operations = new WeakMap<RequestContext, Operation>();

  constructor(
    @Inject(Connections) private readonly connections: Connections,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
  ) {}

  find(execution: ExecutionContext): SocketOperation | undefined {
    const shared = execution.getArgByIndex<object | undefined>(2);
    const known = findOperation(shared);
    // What is shared may be so by all operations of a connection: each has a context of its own.
    if (known && !known.isOver) return this.operations.get(known);
    const socket = socketOf(shared);
    if (!shared || !socket) return undefined;
    const operation = new Operation(this.connections.open(socket.client, socket.handshake), this.requests);
    this.operations.set(operation.context, operation);
    bindOperation(shared, operation.context);
    return operation;
  }
}

class Operation implements SocketOperation {
  readonly context: RequestContext;
  readonly ready: Promise<void>;
  private readonly exchange: MessageExchange;

  constructor(
    private readonly connection: Connection,
    private readonly requests: CurrentRequest,
  ) {
    const { exchange, context, ready } = connection.begin();
    this.exchange = exchange;
    this.context = context;
    this.ready = ready.then(() => {
      if (connection.isClosed) throw new VisitEndedError();
    });
    // Not everybody who looks at an operation waits for it.
    this.ready.catch(() => undefined);
  }

  watch(result: unknown): unknown {
    return isAsyncIterable(result) ? this.events(result[Symbol.asyncIterator]()) : result;
  }

  private events(source: AsyncIterator<unknown>): AsyncIterableIterator<unknown> {
    const over = (): IteratorReturnResult<undefined> => {
      this.exchange.close();
      return { done: true, value: undefined };
    };
    const inContext = <T>(work: () => T): T => this.requests.run(this.context.scope, work);
    const give = async (): Promise<IteratorReturnResult<undefined>> => {
      await inContext(() => source.return?.());
      return over();
    };
    return {
      next: async () => {
        const event = await inContext(() => source.next());
        if (event.done) return over();
        await this.check();
        return this.connection.isClosed ? give() : event;
      },
      return: give,
      throw: async (error) => {
        this.exchange.close();
        if (source.throw) return inContext(() => source.throw!(error));
        throw error;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /**
   * Looks up the visit again. If it is unknown, nothing is delivered.
   *
   * @throws VisitHeadersSentError if a resolver of the previous event has changed the session
   */
  private async check(): Promise<void> {
    const { connection, context } = this;
    if (context.heldSession?.hasChanges()) {
      context.heldSession.revert();
      throw new VisitHeadersSentError('The session was changed');
    }
    await connection.find(context);
    if (context.lookup.is === 'failed') connection.giveUp(context.lookup.error);
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}
