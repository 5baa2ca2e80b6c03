import type { IncomingMessage } from 'node:http';
import { bindClient } from '../context/request.context.js';
import type { FrameworkRequest } from '../platform/exchange.js';
import { bindHandshake, MessageExchange } from '../platform/handshake.js';
import { CLOSE_CODES, Connection, type CloseCause, type ConnectionTools } from './connection.js';

/** The event for clients of socket.io, which has no close codes, before their connection is closed. */
const CLOSE_EVENT = 'visit:closed';

/** A socket of `ws`, or one of socket.io. */
export interface Client {
  once(event: 'close' | 'disconnect', listener: () => void): void;
  emit?(event: string, payload: object): void;
  disconnect?(close: true): void;
  close?(code: number, reason: string): void;
}

/** The connections of an application, by their sockets. */
export class Connections {
  private readonly known = new WeakMap<object, Connection>();

  constructor(private readonly tools: ConnectionTools) {}

  /** Whether a page of another site opens this with the cookie of its visitor. */
  isForeign(handshake: FrameworkRequest | IncomingMessage): boolean {
    return this.tools.verifier.isForeign(new MessageExchange(handshake as FrameworkRequest));
  }

  find(client: object): Connection | undefined {
    return this.known.get(client);
  }

  /**
   * The connection of this socket, which is opened if it is new.
   *
   * @param errorFor converts an error to an answer to a message
   */
  open(client: Client, handshake: FrameworkRequest, errorFor = (error: unknown): unknown => error): Connection {
    const known = this.known.get(client);
    if (known) return known;
    bindHandshake(client, handshake);
    bindClient(client, this.tools.requests);
    const connection = new Connection(this.tools, client, handshake, errorFor, (cause) => close(client, cause));
    this.known.set(client, connection);
    client.once(client.disconnect ? 'disconnect' : 'close', () => connection.noteClosed());
    return connection;
  }
}

function close(client: Client, cause: CloseCause): void {
  const { code, reason } = CLOSE_CODES[cause];
  if (!client.disconnect) return client.close?.(code, reason);
  client.emit?.(CLOSE_EVENT, { code, reason });
  client.disconnect(true);
}
