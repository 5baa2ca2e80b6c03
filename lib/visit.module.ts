import {
  Inject,
  Logger,
  Module,
  type BeforeApplicationShutdown,
  type MiddlewareConsumer,
  type NestModule,
  type OnApplicationShutdown,
  type OnModuleInit,
} from '@nestjs/common';
import { APP_INTERCEPTOR, DiscoveryModule, DiscoveryService, HttpAdapterHost } from '@nestjs/core';
import { ExpungeScheduler } from './expunge/expunge.scheduler.js';
import { ExpungeService } from './expunge/expunge.service.js';
import { unfitHandlers } from './http/unfit-handlers.js';
import { VisitHeaders } from './http/visit-headers.js';
import { VisitInterceptor } from './http/visit.interceptor.js';
import { CsrfGuard } from './form-token/csrf.guard.js';
import { FormTokenGuard } from './form-token/form-token.guard.js';
import { FormTokenService } from './form-token/form-token.service.js';
import { FormTokens } from './form-token/form-tokens.js';
import { IdentityGuard } from './identity/identity.guard.js';
import { IdentityService } from './identity/identity.service.js';
import { NewDeviceNotice } from './identity/new-device.js';
import { RequestUser } from './identity/request-user.js';
import { VisitLimit } from './identity/visit.limit.js';
import { VisitCookie } from './key/visit-cookie.js';
import { VisitResolver } from './key/visit.resolver.js';
import { VisitOptionError } from './errors/visit.error.js';
import { canGive } from './options/store-needs.js';
import { resolveOptions } from './options/resolve-options.js';
import { VISIT_OPTIONS } from './options/tokens.js';
import type { ResolvedVisitOptions, VisitModuleOptions } from './options/visit-options.interface.js';
import type { RequestDoor } from './platform/platform.js';
import { bindPlatform } from './platform/platform.js';
import { PluginRegistry } from './plugin/plugin.registry.js';
import { Session } from './session/session.js';
import { createInjectableSession } from './session/session.injectable.js';
import { SessionLock } from './session/session.lock.js';
import { SessionSaver } from './session/session.saver.js';
import { StoreAccess } from './store/store-access.js';
import { openTypeOrmVisitStore } from './store/typeorm/open-typeorm-visit-store.js';
import { VisitStore } from './store/visit.store.js';
import { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } from './visit.module-definition.js';
import { VisitLifecycle } from './visit.lifecycle.js';
import { TouchQueue } from './visit/touch.queue.js';
import { VisitKeeper } from './visit/visit.keeper.js';
import { VisitService } from './visit/visit.service.js';

@Module({
  imports: [DiscoveryModule],
  providers: [
    { provide: VISIT_OPTIONS, inject: [MODULE_OPTIONS_TOKEN], useFactory: (options: VisitModuleOptions) => resolveOptions(options) },
    {
      provide: VisitStore,
      inject: [VISIT_OPTIONS],
      useFactory: async (options: ResolvedVisitOptions): Promise<VisitStore> => {
        const store = options.store ?? (await openTypeOrmVisitStore(options.dataSource!));
        await store.check();
        return store;
      },
    },
    {
      provide: TouchQueue,
      inject: [VisitStore, VISIT_OPTIONS],
      useFactory: (store: VisitStore, options: ResolvedVisitOptions) => new TouchQueue(store, options.touch.interval, options.storeTimeout),
    },
    {
      provide: VisitResolver,
      inject: [VISIT_OPTIONS, VisitCookie, StoreAccess, TouchQueue],
      useFactory: (options: ResolvedVisitOptions, cookie: VisitCookie, store: StoreAccess, touches: TouchQueue) =>
        new VisitResolver(options, cookie, store, touches),
    },
    { provide: Session, inject: [VisitLifecycle], useFactory: (lifecycle: VisitLifecycle) => createInjectableSession(lifecycle) },
    { provide: APP_INTERCEPTOR, useExisting: VisitInterceptor },
    VisitInterceptor,
    VisitLifecycle,
    VisitKeeper,
    VisitHeaders,
    VisitCookie,
    VisitService,
    IdentityService,
    IdentityGuard,
    RequestUser,
    VisitLimit,
    NewDeviceNotice,
    FormTokens,
    FormTokenService,
    FormTokenGuard,
    CsrfGuard,
    SessionSaver,
    SessionLock,
    StoreAccess,
    PluginRegistry,
    ExpungeService,
    ExpungeScheduler,
  ],
  // Guards are made in the module of each controller that uses them, so what they need is exported too.
  exports: [
    VISIT_OPTIONS,
    VisitStore,
    VisitLifecycle,
    VisitService,
    IdentityService,
    IdentityGuard,
    FormTokens,
    FormTokenService,
    FormTokenGuard,
    CsrfGuard,
    ExpungeService,
    Session,
  ],
})
export class VisitModule
  extends ConfigurableModuleClass
  implements NestModule, OnModuleInit, BeforeApplicationShutdown, OnApplicationShutdown
{
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(HttpAdapterHost) private readonly host: HttpAdapterHost,
    @Inject(VisitLifecycle) private readonly lifecycle: VisitLifecycle,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(DiscoveryService) private readonly discovery: DiscoveryService,
  ) {
    super();
  }

  configure(_consumer: MiddlewareConsumer): void {
    const door: RequestDoor = {
      open: (request, response, next) => this.lifecycle.open(request, response, next),
      session: (request) => {
        const context = this.lifecycle.contextOf(request);
        return context?.visit ? context.session : undefined;
      },
      assignSession: (request, value) => this.lifecycle.assignSession(request, value),
    };
    bindPlatform(this.host.httpAdapter, door);
  }

  onModuleInit(): void {
    const unfit = unfitHandlers(this.discovery, this.options, this.store);
    if (unfit.length > 0) throw new VisitOptionError(unfit.join('\n[visit] '));
    this.plugins.discover();
    const listener = this.plugins.pluginWith('onNewDevice');
    if (listener !== undefined && !canGive(this.store, 'listable')) {
      throw new VisitOptionError(
        `${listener}.onNewDevice() needs a store that is "listable", because earlier visits of the user are looked at, and ${this.store.constructor.name} is not`,
      );
    }
    if (process.env['NODE_ENV'] === 'production' && !canGive(this.store, 'shared')) {
      new Logger('Visit').warn(
        `Visits are kept where other processes do not see them (${this.store.constructor.name}): with more than one process, visitors lose their visits from request to request`,
      );
    }
    // R14, ASVS 14.2.1.
    if (this.options.source.includes('query')) {
      new Logger('Visit').warn(
        'Keys are accepted in addresses (option "source"), which histories, logs and other sites get to see: use links with a key for as little as you can',
      );
    }
  }

  /** Requests still run now, but the data source of the host may be closed before `onApplicationShutdown` comes to us (R29). */
  async beforeApplicationShutdown(): Promise<void> {
    await this.touches.close();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.touches.close();
    await this.store.close();
  }
}
