/**
 * Visits in an application of Fastify without Nest.
 *
 * @module nest-visit/fastify
 */

import {
  ForbiddenException,
  Inject,
  Module,
  type CanActivate,
  type LoggerService,
  type LogLevel,
  type Type,
} from '@nestjs/common';
import { GUARDS_METADATA } from '@nestjs/common/constants.js';
import { ModuleRef, NestFactory } from '@nestjs/core';
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { isObservable, lastValueFrom } from 'rxjs';
import { CurrentRequest } from './context/current-request.js';
import type { HandlerPolicy } from './context/handler-policy.js';
import { findContext, type HeldLock, type RequestContext } from './context/request.context.js';
import { FormTokenService } from './form-token/form-token.service.js';
import { IdentityService } from './identity/identity.service.js';
import { VISIT_OPTIONS } from './options/tokens.js';
import type { ResolvedVisitOptions, VisitModuleOptions } from './options/visit-options.interface.js';
import { bindFastify } from './platform/fastify.platform.js';
import type { VisitPluginHooks } from './plugin/visit-plugin.js';
import { policyOf } from './request/handler-policy.js';
import { OutgoingResponse } from './request/outgoing.response.js';
import { requestEntry } from './request/request.entry.js';
import { RequestStory } from './request/request.story.js';
import { admitHandlers } from './request/unsupported-handlers.js';
import { VisitGuard } from './request/visit.guard.js';
import { SessionSaver } from './session/session.saver.js';
import type { RequestSession } from './session/session.js';
import { VisitStore } from './store/visit.store.js';
import { VisitModule } from './visit.module.js';
import { VisitService } from './visit.service.js';
import type { CurrentVisit } from './visit/current-visit.js';
import { TimeLimits } from './visit/time-limits.js';

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The session of the current request; `SessionData` declares its shape.
     *
     * @throws VisitNotResolvedError in a handler with `@SkipVisit()`; VisitStoreUnavailableError (503) if the look-up
     * failed
     */
    session: RequestSession & {
      /** All data, as a plain object. */
      data(): Record<string, any>;
      /** Sets options of the cookie for this response; `maxAge` is in milliseconds. */
      options(options: { maxAge?: number | null }): void;
    };
    /** The visit, if the plugin `visits` is registered. @throws like `session` */
    readonly visit: CurrentVisit;
  }

  interface FastifyInstance {
    /** Available if the plugin `visits` is registered, like the next two. */
    readonly visits: VisitService;
    readonly identity: IdentityService;
    readonly formTokens: FormTokenService;
  }

  interface FastifyContextConfig {
    /** The decorators of the route, if the plugin `visits` is registered: `[PassiveVisit()]`, `[RequireIdentity()]`. */
    visit?: readonly ClassDecorator[];
  }
}

/**
 * Options of the plugin `visits`: those of `VisitModule`, and those that other modules of a Nest application would
 * define.
 */
export type FastifyVisitOptions = VisitModuleOptions & FastifyVisitExtras;

/** The options of the plugin `visits` that `VisitModule` does not have. */
export interface FastifyVisitExtras {
  /** Classes with `@VisitPlugin()`. @default [] */
  plugins?: readonly Type<VisitPluginHooks>[];
  /** Guards for all routes, such as `CsrfGuard`. @default [] */
  guards?: readonly Type<CanActivate>[];
  /** The logger for warnings. It becomes Nest's logger for the whole process. @default Nest's current logger */
  logger?: LoggerService | LogLevel[] | false;
}

/** A route, as policies and guards know handlers: what its `config.visit` says is written on it. */
interface Route {
  readonly target: () => void;
  readonly policy: HandlerPolicy;
  readonly guards: readonly Promise<CanActivate>[];
}

/** A handler that runs. */
interface Running {
  /** What had been changed before it. */
  readonly mark: unknown;
  readonly lock: HeldLock | undefined;
}

@Module({})
class PlainFastify {
  constructor(@Inject(ModuleRef) readonly moduleRef: ModuleRef) {}
}

/**
 * Visits for an application of Fastify 5 without Nest. To be registered before routes, and before plugins that use
 * `request.session`.
 *
 * Inside is the same `VisitModule`, in a container of Nest that serves nothing: all that differs is who calls it.
 *
 * @throws VisitOptionError, VisitSchemaError or VisitServerSettingError while the application starts
 * @example
 * await app.register(visits, { store: new MemoryVisitStore(), timeout: '30m' });
 * app.post('/login', async (request) => app.identity.login(await userOf(request.body)));
 */
export async function visits(
  app: FastifyInstance<any, any, any, any, any>,
  { plugins = [], guards = [], logger, ...options }: FastifyVisitOptions,
): Promise<void> {
  const nest = await NestFactory.createApplicationContext(
    { module: PlainFastify, imports: [VisitModule.forRoot(options)], providers: [...plugins] },
    { abortOnError: false, ...(logger !== undefined && { logger }) },
  );
  app.addHook('onClose', () => nest.close());
  const [story, requests, saver, first] = [
    nest.get(RequestStory),
    nest.get(CurrentRequest),
    nest.get(SessionSaver),
    nest.get(VisitGuard),
  ];
  const serving = {
    options: nest.get<ResolvedVisitOptions>(VISIT_OPTIONS),
    store: nest.get(VisitStore),
    responses: nest.get(OutgoingResponse),
    limits: nest.get(TimeLimits),
  };
  const { moduleRef } = nest.get(PlainFastify);
  const made = new Map<unknown, Promise<CanActivate>>();
  const guardOf = (guard: Type<CanActivate> | CanActivate): Promise<CanActivate> => {
    if (typeof guard !== 'function') return Promise.resolve(guard);
    const instance = made.get(guard) ?? moduleRef.create(guard);
    made.set(guard, instance);
    // Who waits for it hears of a failure.
    instance.catch(() => undefined);
    return instance;
  };
  const globalGuards = await Promise.all(guards.map(guardOf));

  const routes = new WeakMap<object, Route>();
  const routeOf = (config: { visit?: readonly ClassDecorator[] }, name: () => string): Route => {
    const known = routes.get(config);
    if (known) return known;
    const target = (): void => {};
    for (const decorate of config.visit ?? []) decorate(target);
    const policy = policyOf(PlainFastify, target);
    admitHandlers([{ name: name(), policy, isField: false }], serving);
    const own = (Reflect.getMetadata(GUARDS_METADATA, target) ?? []) as Type<CanActivate>[];
    const route = { target, policy, guards: own.map(guardOf) };
    routes.set(config, route);
    return route;
  };
  const routeFor = ({ routeOptions, method, url }: FastifyRequest): Route =>
    routeOf(routeOptions.config, () => `${method} ${url}`);
  const contextOf = (request: FastifyRequest): RequestContext | undefined => {
    const context = findContext(request);
    return context && story.owns(context) ? context : undefined;
  };
  const running = new WeakMap<RequestContext, Running>();
  const leave = (context: RequestContext): Promise<void> | undefined => {
    const handler = running.get(context);
    if (!handler) return undefined;
    running.delete(context);
    context.handlers--;
    return story.end(context, handler.lock);
  };
  const fail = (request: FastifyRequest, error: unknown): void => {
    const context = contextOf(request);
    const handler = context && running.get(context);
    if (handler && !isForClient(statusOf(error))) void story.fail(context, undefined, handler.mark);
  };

  bindFastify.bind(app as never, requestEntry({ story, requests, saver }), {} as never);
  app.decorateRequest('visit', {
    getter(this: FastifyRequest) {
      return requests.requireIn(findContext(this as never)!).current;
    },
  });
  app.decorate('visits', nest.get<VisitService>(VisitService));
  app.decorate('identity', nest.get<IdentityService>(IdentityService));
  app.decorate('formTokens', nest.get<FormTokenService>(FormTokenService));

  app.addHook('onRoute', (route) => {
    const config = (route.config ??= {});
    routeOf(config, () => `${String(route.method)} ${route.url}`);
    const { handler } = route;
    // In the context of the request when it is called, and out of it again for whoever has called.
    route.handler = function (this: never, request: FastifyRequest, reply: FastifyReply) {
      return story.within(request, () => handler.call(this, request as never, reply as never));
    } as typeof handler;
  });
  // The body has been parsed, by whatever called back.
  app.addHook('preValidation', (request, _reply, done) => story.reenter(request as never, done));
  app.addHook('preValidation', async (request, reply) => {
    if (!contextOf(request) || request.is404) return;
    const route = routeFor(request);
    const execution = new ExecutionContextHost([request, reply], PlainFastify, route.target);
    await first.canActivate(execution);
    for (const guard of [...globalGuards, ...route.guards]) {
      const answer = (await guard).canActivate(execution);
      if (!(await (isObservable(answer) ? lastValueFrom(answer) : answer))) throw new ForbiddenException();
    }
  });
  app.addHook('preHandler', async (request) => {
    const context = contextOf(request);
    if (!context || request.is404) return;
    const { policy } = routeFor(request);
    if (policy.skip) return;
    context.handlers++;
    const handler = { mark: null, lock: undefined };
    running.set(context, handler);
    await story.begin(context, policy);
    const lock = policy.exclusive === undefined ? undefined : context.lock;
    Object.assign(handler, { mark: context.heldSession?.mark() ?? null, lock });
  });
  // Before the application's own error handler, whatever that makes of it.
  app.addHook('onError', async (request, _reply, error) => fail(request, error));
  app.addHook('onSend', async (request, reply) => {
    const context = contextOf(request);
    if (!context) return;
    try {
      await story.save(context);
    } catch (error) {
      // The answer was a redirect or the like, and is an error now.
      reply.code(statusOf(error)).removeHeader('location');
      throw error;
    } finally {
      await leave(context);
    }
  });
  app.addHook('onResponse', async (request) => {
    const context = contextOf(request);
    if (context) await leave(context);
  });
}

/** As Fastify itself tells the status of an error. */
function statusOf(error: unknown): number {
  const { statusCode, status } = (error ?? {}) as { statusCode?: unknown; status?: unknown };
  const told = Number(statusCode ?? status);
  return told >= 400 ? told : 500;
}

const isForClient = (status: number): boolean => status < 500;

Object.assign(visits, {
  // For the application around it, and not for itself alone
  // (https://fastify.dev/docs/latest/Reference/Plugins/#handle-the-scope).
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'nest-visit',
  [Symbol.for('plugin-meta')]: { name: 'nest-visit', fastify: '>=5' },
});
