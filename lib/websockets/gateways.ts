import {
  Inject,
  Injectable,
  type CanActivate,
  type ExecutionContext,
  type NestInterceptor,
  type Type,
} from '@nestjs/common';
import { GUARDS_METADATA, INTERCEPTORS_METADATA } from '@nestjs/common/constants.js';
import { ModulesContainer } from '@nestjs/core';
import { VisitError, VisitHttpError } from '../errors/visit.error.js';
import { handshakeIn } from '../platform/handshake.js';
import type { Connection } from './connection.js';
import { Connections, type Client } from './connections.js';
import { refusingForeign } from './foreign-handshakes.js';

/** The metadata of `@WebSocketGateway()`. */
const GATEWAY = 'websockets:is_gateway';

interface MessageHandler {
  readonly callback: (...args: unknown[]) => unknown;
}

/** The part of Nest's socket adapters that the library uses. */
interface WebSocketAdapter {
  create(port: number, options?: object): unknown;
  bindClientConnect(server: unknown, connected: (...args: unknown[]) => void): unknown;
  bindMessageHandlers(client: object, handlers: readonly MessageHandler[], transform: unknown): unknown;
}

/** The guard and interceptor of an application. */
export interface Enhancers {
  readonly guard: CanActivate;
  readonly interceptor: NestInterceptor;
}

/** The part of Nest's application configuration that the library uses. */
interface Configuration {
  getIoAdapter(): WebSocketAdapter | undefined;
}

/**
 * Serves gateways: a connection gets its visit from the handshake, and each message is served like a request. This is
 * bound to the adapter of the application when Nest asks for it, separately for each application.
 */
@Injectable()
export class Gateways {
  private readonly wrapped = new WeakSet<WebSocketAdapter>();
  private WsException: (new (told: object) => Error) | undefined;
  private enhancers: Enhancers | undefined;

  constructor(
    @Inject(Connections) private readonly connections: Connections,
    @Inject(ModulesContainer) private readonly modules: ModulesContainer,
  ) {}

  /**
   * Binds every adapter that this application uses from now on.
   *
   * @param enhancers the guard and interceptor of this application
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

  /** Called before the first message: errors must be of the class that Nest expects. */
  async load(): Promise<void> {
    if (this.classes().length === 0) return;
    ({ WsException: this.WsException } = (await import('@nestjs/websockets')) as unknown as {
      WsException: new (told: object) => Error;
    });
  }

  private classes(): Type[] {
    const types = [...this.modules.values()].flatMap(({ providers }) =>
      [...providers.values()].map(({ metatype }) => metatype),
    );
    const isGateway = (type: unknown): type is Type => typeof type === 'function' && Reflect.hasMetadata(GATEWAY, type);
    return [...new Set(types.filter(isGateway))];
  }

  private wrap(adapter: WebSocketAdapter): void {
    if (this.wrapped.has(adapter)) return;
    this.wrapped.add(adapter);
    const create = adapter.create.bind(adapter);
    const bindClientConnect = adapter.bindClientConnect.bind(adapter);
    const bindMessageHandlers = adapter.bindMessageHandlers.bind(adapter);
    adapter.create = (port, options = {}) =>
      create(
        port,
        refusingForeign(options, (handshake) => this.connections.isForeign(handshake)),
      );
    adapter.bindClientConnect = (server, connected) =>
      bindClientConnect(server, (...args: unknown[]) => {
        if (!this.connect(args).isClosed) connected(...args);
      });
    adapter.bindMessageHandlers = (client, handlers, transform) => {
      const connection = this.connections.find(client);
      const served = connection
        ? handlers.map((handler) => ({
            ...handler,
            callback: (...args: unknown[]) => connection.serve(() => handler.callback(...args)),
          }))
        : handlers;
      return bindMessageHandlers(client, served, transform);
    };
  }

  /**
   * Several gateways receive the same connection.
   *
   * @param args the arguments of the server's event: a socket and, with `ws`, its request
   */
  private connect([client, request]: unknown[]): Connection {
    const socket = client as Client;
    const handshake = handshakeIn(request) ?? handshakeIn(socket) ?? { headers: {}, method: 'GET' };
    if (this.enhancers) enhancing.set(socket, this.enhancers);
    return this.connections.open(socket, handshake, (error) => this.errorFor(error));
  }

  /** Converts an error, because Nest sends clients of gateways only its own errors. */
  private errorFor(error: unknown): unknown {
    const { WsException } = this;
    if (!WsException || !(error instanceof VisitError)) return error;
    const { code, message } = error;
    const statusCode = error instanceof VisitHttpError ? error.getStatus() : 500;
    const told = new WsException({ status: 'error', statusCode, code, message: message.replace(/^\[visit\] /, '') });
    return Object.assign(told, { code, cause: error });
  }
}

/** The guard and interceptor of the application of a socket. */
const enhancing = new WeakMap<object, Enhancers>();

const enhancersFor = (execution: ExecutionContext): Enhancers | undefined =>
  enhancing.get(execution.getArgByIndex<object>(0));

/**
 * Before NestJS 12, global guards and interceptors did not apply to gateways. These, which find the application by the
 * socket, replace ours.
 */
const guard: CanActivate = {
  canActivate: (execution) => enhancersFor(execution)?.guard.canActivate(execution) ?? true,
};
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
