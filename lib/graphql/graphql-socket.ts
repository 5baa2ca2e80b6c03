import type { FrameworkRequest } from '../platform/exchange.js';
import { handshakeIn } from '../platform/handshake.js';
import type { Client } from '../websockets/connections.js';

/** The socket of an operation, and the request that opened it. */
export interface GraphqlSocket {
  readonly client: Client;
  readonly handshake: FrameworkRequest;
}

interface ServerOfSockets {
  readonly clients: Iterable<Client & { readonly _socket?: unknown }>;
}

/** The object that resolvers share, as far as it contains a socket. */
interface Shared {
  /** With the driver of Apollo: what graphql-ws shares for a connection; for requests the request. */
  readonly req?: { readonly extra?: { readonly socket?: unknown; readonly request?: unknown } };
  readonly extra?: { readonly socket?: unknown; readonly request?: unknown };
  /** With Mercurius: the request of the handshake, as its plugin for sockets marks it. */
  readonly request?: FrameworkRequest & { readonly ws?: unknown };
  readonly app?: { readonly websocketServer?: ServerOfSockets };
}

/** The socket of an operation. Undefined: it came with an HTTP request. */
export function socketOf(shared: Shared | undefined): GraphqlSocket | undefined {
  const extra = shared?.req?.extra ?? shared?.extra;
  const handshake = handshakeIn(extra?.request);
  if (handshake && isClient(extra?.socket)) return { client: extra.socket, handshake };
  const { request, app } = shared ?? {};
  if (request?.ws !== true || !request.raw) return undefined;
  // It does not show the socket that belongs to a request.
  const client = [...(app?.websocketServer?.clients ?? [])].find(({ _socket }) => _socket === request.raw!.socket);
  return client && { client, handshake: request };
}

function isClient(value: unknown): value is Client {
  return typeof (value as Partial<Client> | undefined)?.once === 'function';
}
