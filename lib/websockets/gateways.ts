import { Inject, Injectable, type CanActivate, type ExecutionContext, type NestInterceptor, type Type } from '@nestjs/common';
import { GUARDS_METADATA, INTERCEPTORS_METADATA } from '@nestjs/common/constants.js';
import { ModulesContainer } from '@nestjs/core';
import { bindClient } from '../context/request.context.js';
import { CurrentRequest } from '../context/current-request.js';
import { VisitError, VisitHttpError } from '../errors/visit.error.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { bindHandshake, handshakeIn } from '../platform/handshake.js';
import { RequestStory } from '../request/request.story.js';
import { VisitVerifier } from '../request/visit.verifier.js';
import { OpenStreams } from '../visit/open-streams.js';
import { CLOSE_CODES, Connection, type CloseCause, type ConnectionTools } from './connection.js';

/** As `@WebSocketGateway()` marks its classes. */
const GATEWAY = 'websockets:is_gateway';

/** What a client hears on socket.io, which has no codes, before its connection is closed. */
const CLOSE_EVENT = 'visit:closed';

/** A socket of `ws`, or one of socket.io. */
interface Client {
  once(event: 'close' | 'disconnect', listener: () => void): void;
  emit?(event: string, payload: object): void;
  disconnect?(close: true): void;
  close?(code: number, reason: string): void;
}

interface MessageHandler {
  readonly callback: (...args: unknown[]) => unknown;
}

/** What we use of Nest's adapters for sockets. */
interface WebSocketAdapter {
  bindClientConnect(server: unknown, connected: (...args: unknown[]) => void): unknown;
  bindMessageHandlers(client: object, handlers: readonly MessageHandler[], transform: unknown): unknown;
}

/** What goes around the handlers of an application. */
export interface Enhancers {
  readonly guard: CanActivate;
  readonly interceptor: NestInterceptor;
}

/** What we use of Nest's own configuration of an application. */
interface Configuration {
  getIoAdapter(): WebSocketAdapter | undefined;
}

/**
 * Gateways: connections get their visit by the handshake, and each message is served like a request. All of it is bound to the adapter that
 * the application has chosen, when Nest asks for it, and to each application alone.
 */
@Injectable()
export class Gateways {
  private readonly tools: ConnectionTools;
  private readonly wrapped = new WeakSet<WebSocketAdapter>();
  private readonly connections = new WeakMap<object, Connection>();
  private WsException: (new (told: object) => Error) | undefined;
  private enhancers: Enhancers | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) { clock }: ResolvedVisitOptions,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(RequestStory) story: RequestStory,
    @Inject(VisitVerifier) verifier: VisitVerifier,
    @Inject(OpenStreams) streams: OpenStreams,
    @Inject(ModulesContainer) private readonly modules: ModulesContainer,
  ) {
    this.tools = { clock, requests, story, verifier, streams, errorFor: (error) => this.errorFor(error) };
  }

  /**
   * From now on whatever adapter this application has is ours, too.
   *
   * @param enhancers what goes around the handlers of this application
   * @param beforeFirst called before the first gateway is bound
   */
  bind(configuration: Configuration, enhancers: Enhancers, beforeFirst: () => void): void {
    this.enhancers = enhancers;
    const gateways = this.classes();
    if (gateways.length === 0) return;
    for (const gateway of gateways) putFirst(gateway);
    const getIoAdapter = configuration.getIoAdapter.bind(configuration);
    configuration.getIoAdapter = () => {
      beforeFirst();
      const adapter = getIoAdapter();
      if (adapter) this.wrap(adapter);
      return adapter;
    };
  }

  /** Before the first message: what is thrown has to be of the class that Nest looks for. */
  async load(): Promise<void> {
    if (this.classes().length === 0) return;
    ({ WsException: this.WsException } = (await import('@nestjs/websockets')) as unknown as { WsException: new (told: object) => Error });
  }

  private classes(): Type[] {
    const types = [...this.modules.values()].flatMap(({ providers }) => [...providers.values()].map(({ metatype }) => metatype));
    const isGateway = (type: unknown): type is Type => typeof type === 'function' && Reflect.hasMetadata(GATEWAY, type);
    return [...new Set(types.filter(isGateway))];
  }

  private wrap(adapter: WebSocketAdapter): void {
    if (this.wrapped.has(adapter)) return;
    this.wrapped.add(adapter);
    const bindClientConnect = adapter.bindClientConnect.bind(adapter);
    const bindMessageHandlers = adapter.bindMessageHandlers.bind(adapter);
    adapter.bindClientConnect = (server, connected) =>
      bindClientConnect(server, (...args: unknown[]) => {
        if (!this.connect(args).isClosed) connected(...args);
      });
    adapter.bindMessageHandlers = (client, handlers, transform) => {
      const connection = this.connections.get(client);
      const served = connection
        ? handlers.map((handler) => ({
            ...handler,
            callback: (...args: unknown[]) => connection.serve(() => handler.callback(...args)),
          }))
        : handlers;
      return bindMessageHandlers(client, served, transform);
    };
  }

  /** Several gateways hear of the same connection. @param args what the server's event brings: a socket, and with `ws` its request */
  private connect([client, request]: unknown[]): Connection {
    const socket = client as Client;
    const known = this.connections.get(socket);
    if (known) return known;
    const handshake = handshakeIn(request) ?? handshakeIn(socket) ?? { headers: {}, method: 'GET' };
    bindHandshake(socket, handshake);
    bindClient(socket, this.requests);
    if (this.enhancers) enhancing.set(socket, this.enhancers);
    const connection = new Connection(this.tools, socket, handshake, (cause) => close(socket, cause));
    this.connections.set(socket, connection);
    socket.once(socket.disconnect ? 'disconnect' : 'close', () => connection.noteClosed());
    return connection;
  }

  /** Nest tells clients of gateways nothing of other errors than its own. */
  private errorFor(error: unknown): unknown {
    const { WsException } = this;
    if (!WsException || !(error instanceof VisitError)) return error;
    const { code, message } = error;
    const statusCode = error instanceof VisitHttpError ? error.getStatus() : 500;
    const told = new WsException({ status: 'error', statusCode, code, message: message.replace(/^\[visit\] /, '') });
    return Object.assign(told, { code, cause: error });
  }
}

/** What an application has around its handlers, by the sockets that have come to it. */
const enhancing = new WeakMap<object, Enhancers>();

const enhancersFor = (execution: ExecutionContext): Enhancers | undefined => enhancing.get(execution.getArgByIndex<object>(0));

/** Before NestJS 12 global guards and interceptors are not for gateways: so these, which know the application by the socket, stand in for ours. */
const guard: CanActivate = { canActivate: (execution) => enhancersFor(execution)?.guard.canActivate(execution) ?? true };
const interceptor: NestInterceptor = {
  intercept: (execution, next) => enhancersFor(execution)?.interceptor.intercept(execution, next) ?? next.handle(),
};

function putFirst(gateway: Type): void {
  for (const [key, own] of [
    [GUARDS_METADATA, guard],
    [INTERCEPTORS_METADATA, interceptor],
  ] as const) {
    const others = (Reflect.getMetadata(key, gateway) ?? []) as unknown[];
    if (!others.includes(own)) Reflect.defineMetadata(key, [own, ...others], gateway);
  }
}

function close(client: Client, cause: CloseCause): void {
  const { code, reason } = CLOSE_CODES[cause];
  if (!client.disconnect) return client.close?.(code, reason);
  client.emit?.(CLOSE_EVENT, { code, reason });
  client.disconnect(true);
}
