import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { Exchange, type FrameworkRequest } from './exchange.js';

/** The part of a request that identifies its visit: a request of Node, of a framework, or of the Fetch API. */
export interface RequestWithHeaders {
  readonly headers: IncomingHttpHeaders | Headers;
  readonly url?: string;
  readonly method?: string;
}

/**
 * The source of a handshake: the request that opened a connection; a socket of socket.io; the socket that a gateway
 * receives; or the context of an operation of graphql-ws.
 */
export type Handshake =
  | RequestWithHeaders
  | { readonly request: RequestWithHeaders }
  | { readonly extra: object }
  | object;

/** Handshakes of sockets that do not refer to them. */
const known = new WeakMap<object, FrameworkRequest>();

/** Makes the handshake of a connection available by its socket. */
export function bindHandshake(client: object, request: FrameworkRequest): void {
  known.set(client, request);
}

/** The request that opened a connection, or undefined if the source does not contain it. */
export function handshakeIn(source: unknown): FrameworkRequest | undefined {
  if (typeof source !== 'object' || source === null) return undefined;
  const { headers, request, extra } = source as { headers?: unknown; request?: unknown; extra?: unknown };
  const bound = known.get(source);
  if (bound) return bound;
  if (typeof headers === 'object' && headers !== null) return source as FrameworkRequest;
  return handshakeIn(request) ?? handshakeIn(extra);
}

/** Stands for the response of a message, which has none: its headers count as sent. */
class NoResponse {
  readonly headersSent = true;
  isOver = false;

  constructor(private readonly connection: { readonly isClosed: boolean }) {}

  get closed(): boolean {
    return this.isOver || this.connection.isClosed;
  }
}

/** The connection of a message. */
export interface MessageConnection {
  /** The socket that handlers receive. */
  readonly client: object;
  readonly isClosed: boolean;
  /** Converts an error to the form that the message protocol expects. */
  errorFor(error: unknown): unknown;
}

/** A handshake, or a message of the connection that it opened. It is read like a request, and cannot send headers. */
export class MessageExchange extends Exchange {
  readonly #response: NoResponse;

  constructor(
    handshake: FrameworkRequest,
    private readonly connection: MessageConnection = { client: handshake, isClosed: false, errorFor: (error) => error },
  ) {
    const response = new NoResponse(connection);
    super(requestFrom(handshake), response as unknown as ServerResponse);
    this.#response = response;
  }

  override get client(): object {
    return this.connection.client;
  }

  override get hasClientGone(): boolean {
    return this.connection.isClosed;
  }

  override errorFor(error: unknown): unknown {
    return this.connection.errorFor(error);
  }

  /** Called when the message has been handled. */
  close(): void {
    this.#response.isOver = true;
  }
}

/**
 * Creates a request object for each message, so that properties set on it stay with that message. A bare handshake has
 * no parsed query yet.
 */
function requestFrom(handshake: FrameworkRequest): FrameworkRequest {
  const { url, query, method, headers } = handshake as FrameworkRequest & { readonly url?: string };
  const own: Record<string, unknown> = query === undefined ? { query: queryIn(url) } : {};
  // Getters of the Fetch API work on its own objects only.
  if (typeof headers.get === 'function')
    Object.assign(own, { url, method, headers: Object.fromEntries(headers as unknown as Headers) });
  const descriptors = Object.entries(own).map(([name, value]) => [
    name,
    { value, writable: true, enumerable: true, configurable: true },
  ]) as [string, PropertyDescriptor][];
  return Object.create(handshake, Object.fromEntries(descriptors)) as FrameworkRequest;
}

/** Parses the query like the frameworks: a name that occurs several times has a list of values. */
function queryIn(url = ''): Record<string, string | string[]> {
  const start = url.indexOf('?');
  const parameters = new URLSearchParams(start < 0 ? '' : url.slice(start + 1));
  const query = Object.create(null) as Record<string, string | string[]>;
  for (const name of parameters.keys()) {
    const values = parameters.getAll(name);
    query[name] = values.length === 1 ? values[0]! : values;
  }
  return query;
}
