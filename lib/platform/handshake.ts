import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { Exchange, type FrameworkRequest } from './exchange.js';

/** A request as far as a visit is told by it: Node's own, that of a framework, or one of the Fetch API. */
export interface RequestWithHeaders {
  readonly headers: IncomingHttpHeaders | Headers;
  readonly url?: string;
  readonly method?: string;
}

/**
 * What opened a connection, or what holds it: the request itself; a socket of socket.io; a socket that a gateway was
 * given; the context of an operation of graphql-ws.
 */
export type Handshake =
  | RequestWithHeaders
  | { readonly request: RequestWithHeaders }
  | { readonly extra: object }
  | object;

/** Sockets whose handshake cannot be found in them. */
const known = new WeakMap<object, FrameworkRequest>();

/** From now on the handshake of this connection can be found by its socket. */
export function bindHandshake(client: object, request: FrameworkRequest): void {
  known.set(client, request);
}

/** The request that opened a connection, in whatever a caller has at hand. Undefined: there is none in it. */
export function handshakeIn(source: unknown): FrameworkRequest | undefined {
  if (typeof source !== 'object' || source === null) return undefined;
  const { headers, request, extra } = source as { headers?: unknown; request?: unknown; extra?: unknown };
  const bound = known.get(source);
  if (bound) return bound;
  if (typeof headers === 'object' && headers !== null) return source as FrameworkRequest;
  return handshakeIn(request) ?? handshakeIn(extra);
}

/** What stands for the response where there is none: its headers have left before anything could be said in them. */
class NoResponse {
  readonly headersSent = true;
  isOver = false;

  constructor(private readonly connection: { readonly isClosed: boolean }) {}

  get closed(): boolean {
    return this.isOver || this.connection.isClosed;
  }
}

/** The connection that messages come on. */
export interface MessageConnection {
  /** Its socket, as handlers see it. */
  readonly client: object;
  readonly isClosed: boolean;
  /** An error as whatever answers messages takes it. */
  errorFor(error: unknown): unknown;
}

/**
 * A handshake, or a message of the connection that it opened: it is read like a request, and nothing can be said in
 * headers.
 */
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

  /** The message has been dealt with. */
  close(): void {
    this.#response.isOver = true;
  }
}

/**
 * A request of its own for each message, so that what is set at it stays with that. A bare handshake has no parsed
 * query yet.
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

/** Like the parsers of frameworks: a name that comes several times has a list. */
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
