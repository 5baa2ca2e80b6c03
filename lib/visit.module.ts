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
import {
  APP_GUARD,
  APP_INTERCEPTOR,
  DiscoveryModule,
  DiscoveryService,
  HttpAdapterHost,
  ModuleRef,
  ModulesContainer,
  type ApplicationConfig,
} from '@nestjs/core';
import { CurrentRequest } from './context/current-request.js';
import { SessionLife } from './context/session-life.js';
import { SocketOperations } from './context/socket-operations.js';
import { ExpungeScheduler } from './expunge/expunge.scheduler.js';
import { ExpungeService } from './expunge/expunge.service.js';
import { CsrfGuard } from './form-token/csrf.guard.js';
import { FormTokenGuard } from './form-token/form-token.guard.js';
import { FormTokenService } from './form-token/form-token.service.js';
import { FormTokens } from './form-token/form-tokens.js';
import { FollowedSession } from './identity/followed-session.js';
import { IdentityGuard } from './identity/identity.guard.js';
import { IdentityService } from './identity/identity.service.js';
import { NewDeviceNotice } from './identity/new-device.js';
import { SignIn } from './identity/sign-in.js';
import { VisitCookie } from './key/visit-cookie.js';
import { VisitResolver } from './key/visit.resolver.js';
import { reasonOf } from './errors/failure.js';
import { withoutSecrets } from './errors/secrets.js';
import { VisitClockError, VisitError, VisitOptionError } from './errors/visit.error.js';
import { lackOf, supports } from './options/store-needs.js';
import { resolveOptions } from './options/resolve-options.js';
import { VISIT_OPTIONS } from './options/tokens.js';
import type { ResolvedVisitOptions, VisitModuleOptions } from './options/visit-options.interface.js';
import { whenAdapterIsSet } from './platform/adapter.js';
import { platformOf } from './platform/platform.js';
import { wrapRoutes } from './platform/routes.js';
import { PluginRegistry } from './plugin/plugin.registry.js';
import { CacheHeaders } from './request/cache.headers.js';
import { OutgoingResponse } from './request/outgoing.response.js';
import { requestEntry } from './request/request.entry.js';
import { RequestStory } from './request/request.story.js';
import { RequestUser } from './request/request-user.js';
import { admitHandlers, handlersOf } from './request/unsupported-handlers.js';
import { UnsavedWork } from './request/unsaved.work.js';
import { VisitFinder } from './request/visit.finder.js';
import { VisitGuard } from './request/visit.guard.js';
import { VisitInterceptor } from './request/visit.interceptor.js';
import { VisitRecorder } from './request/visit.recorder.js';
import { VisitVerifier } from './request/visit.verifier.js';
import { Session } from './session/session.js';
import { createInjectableSession } from './session/session.injectable.js';
import { SessionLock } from './session/session.lock.js';
import { SessionSaver } from './session/session.saver.js';
import { clockSkew } from './store/clock-skew.js';
import { withDeadline } from './store/deadline.js';
import { observedStore } from './observe/observed-store.js';
import { VisitHealth } from './observe/visit-health.js';
import { openDataSource } from './store/open-data-source.js';
import { StoreAccess } from './store/store-access.js';
import { VisitStore } from './store/visit.store.js';
import { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } from './visit.module-definition.js';
import { OpenStreams } from './visit/open-streams.js';
import { TimeLimits } from './visit/time-limits.js';
import { TouchQueue } from './visit/touch.queue.js';
import { VisitLimit } from './visit/visit.limit.js';
import { EndInBatches } from './visit/end-in-batches.js';
import { VisitWriter } from './visit/visit.writer.js';
import { VisitService } from './visit.service.js';
import { GraphqlOperations } from './graphql/graphql-operations.js';
import { Connections } from './websockets/connections.js';
import { Gateways } from './websockets/gateways.js';

/** How long shutdown waits for the store to close, in milliseconds. */
const LONGEST_CLOSE = 2000;
/** The check at startup sends several statements. Together they may take this many times as long as one call. */
const ANSWERS_AT_START = 5;

/**
 * Provides visits for all requests. Import it once, in the root module: with `VisitModule.forRoot(options)`, or with
 * `VisitModule.forRootAsync({ inject, useFactory })` if the options come from other providers. The options are
 * `VisitModuleOptions`. The module is global.
 *
 * @throws VisitOptionError, VisitSchemaError or VisitServerSettingError while the application starts
 */
@Module({
  imports: [DiscoveryModule],
  providers: [
    {
      provide: VISIT_OPTIONS,
      inject: [{ token: MODULE_OPTIONS_TOKEN, optional: true }, ModulesContainer],
      useFactory: (options: VisitModuleOptions | undefined, modules: ModulesContainer) => {
        requireOnce(options, modules);
        return resolveOptions(options!);
      },
    },
    {
      provide: VisitStore,
      inject: [VISIT_OPTIONS],
      useFactory: async (options: ResolvedVisitOptions): Promise<VisitStore> => {
        const { storeTimeout } = options;
        const store = options.store ?? (await openDataSource(options.dataSource!, { deadline: storeTimeout }));
        store.server?.setDeadline?.(storeTimeout);
        try {
          await check(store, storeTimeout);
        } catch (error) {
          // What was opened here would keep the process from ending.
          if (!options.store) withDeadline(store.close(), LONGEST_CLOSE).catch(() => {});
          throw error;
        }
        return options.telemetry ? observedStore(store, options.telemetry) : store;
      },
    },
    {
      provide: TouchQueue,
      inject: [VisitStore, VISIT_OPTIONS],
      useFactory: (store: VisitStore, options: ResolvedVisitOptions) =>
        new TouchQueue(store, options.touch.interval, options.storeTimeout),
    },
    {
      provide: VisitResolver,
      inject: [VISIT_OPTIONS, VisitCookie, StoreAccess, TimeLimits],
      useFactory: (options: ResolvedVisitOptions, cookie: VisitCookie, store: StoreAccess, limits: TimeLimits) =>
        new VisitResolver(options, cookie, store, limits),
    },
    {
      provide: Connections,
      inject: [VISIT_OPTIONS, CurrentRequest, RequestStory, VisitVerifier, OpenStreams],
      useFactory: (
        { clock }: ResolvedVisitOptions,
        requests: CurrentRequest,
        story: RequestStory,
        verifier: VisitVerifier,
        streams: OpenStreams,
      ) => new Connections({ clock, requests, story, verifier, streams }),
    },
    {
      provide: Session,
      inject: [CurrentRequest],
      useFactory: (requests: CurrentRequest) => createInjectableSession(requests),
    },
    { provide: SessionLife, useClass: FollowedSession },
    { provide: SocketOperations, useClass: GraphqlOperations },
    { provide: APP_GUARD, useExisting: VisitGuard },
    { provide: APP_INTERCEPTOR, useExisting: VisitInterceptor },
    VisitGuard,
    VisitInterceptor,
    Gateways,
    CurrentRequest,
    RequestStory,
    VisitFinder,
    VisitRecorder,
    VisitVerifier,
    OutgoingResponse,
    CacheHeaders,
    UnsavedWork,
    VisitWriter,
    EndInBatches,
    OpenStreams,
    TimeLimits,
    VisitCookie,
    VisitService,
    IdentityService,
    IdentityGuard,
    RequestUser,
    VisitLimit,
    NewDeviceNotice,
    SignIn,
    FormTokens,
    FormTokenService,
    FormTokenGuard,
    CsrfGuard,
    SessionSaver,
    SessionLock,
    StoreAccess,
    VisitHealth,
    PluginRegistry,
    ExpungeService,
    ExpungeScheduler,
  ],
  // Guards are made in the module of each controller that uses them, so what they need is exported too.
  exports: [
    VISIT_OPTIONS,
    VisitStore,
    VisitResolver,
    CurrentRequest,
    RequestStory,
    VisitService,
    IdentityService,
    IdentityGuard,
    FormTokens,
    FormTokenService,
    FormTokenGuard,
    CsrfGuard,
    ExpungeService,
    Session,
    VisitHealth,
  ],
})
export class VisitModule
  extends ConfigurableModuleClass
  implements NestModule, OnModuleInit, BeforeApplicationShutdown, OnApplicationShutdown
{
  private entryFailure: unknown;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(HttpAdapterHost) private readonly host: HttpAdapterHost,
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(CurrentRequest) private readonly requests: CurrentRequest,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
    @Inject(VisitFinder) private readonly finder: VisitFinder,
    @Inject(OutgoingResponse) private readonly responses: OutgoingResponse,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(StoreAccess) private readonly access: StoreAccess,
    @Inject(DiscoveryService) private readonly discovery: DiscoveryService,
    @Inject(ModuleRef) private readonly moduleRef: ModuleRef,
    @Inject(VisitGuard) private readonly guard: VisitGuard,
    @Inject(TimeLimits) private readonly limits: TimeLimits,
    @Inject(VisitInterceptor) interceptor: VisitInterceptor,
    @Inject(Gateways) private readonly gateways: Gateways,
  ) {
    super();
    // Before `main.ts` adds anything; in a testing module the adapter is there only when its application is made.
    whenAdapterIsSet(host, () => this.bindEntry());
    this.gateways.bind(this.configuration, { guard, interceptor }, () => this.orderGuards());
  }

  /** An error here is thrown by `configure`, where it makes the start of the application fail. */
  private bindEntry(): void {
    const { httpAdapter } = this.host;
    // An application without HTTP has none.
    if (!httpAdapter) return;
    try {
      platformOf(httpAdapter).bind(
        httpAdapter.getInstance(),
        requestEntry({ story: this.story, requests: this.requests, saver: this.saver }),
        httpAdapter as never,
      );
      wrapRoutes(httpAdapter, (request, route) => this.story.within(request, route));
    } catch (error) {
      this.entryFailure = error;
    }
  }

  /** Called by Nest while the application starts. */
  configure(_consumer: MiddlewareConsumer): void {
    if (this.entryFailure) throw this.entryFailure;
    const { httpAdapter } = this.host;
    const { readsBodies } = this.finder;
    platformOf(httpAdapter).bindAfterBody(httpAdapter.getInstance(), readsBodies, (request, next) =>
      this.story.reenter(request, next),
    );
    this.orderGuards();
  }

  private get configuration(): ApplicationConfig {
    return (this.moduleRef as unknown as { container: { applicationConfig: ApplicationConfig } }).container
      .applicationConfig;
  }

  /**
   * Nest runs global guards in the order of modules. The settings of a handler must also apply to guards that run
   * before ours.
   */
  private orderGuards(): void {
    this.configuration
      .getGlobalGuards()
      .sort((one, other) => Number(other === this.guard) - Number(one === this.guard));
  }

  /** Called by Nest while the application starts. */
  async onModuleInit(): Promise<void> {
    await this.gateways.load();
    const handlers = handlersOf(this.discovery);
    const { options, store, responses, limits } = this;
    admitHandlers(handlers, { options, store, responses, limits });
    this.plugins.discover();
    const listener = this.plugins.pluginWith('onNewDevice');
    if (listener !== undefined && !supports(this.store, 'users')) {
      throw new VisitOptionError(
        `${listener}.onNewDevice() needs ${lackOf(this.store, 'users')} (it reads earlier visits of the user)`,
      );
    }
    if (process.env['NODE_ENV'] === 'production' && !supports(this.store, 'shared')) {
      new Logger('Visit').warn(
        `Other processes cannot see the visits of this store (${this.store.constructor.name}): with more than ` +
          'one process, visitors lose their visits between requests',
      );
    }
    await this.compareClocks();
    // ASVS 14.2.1.
    const inAddresses = this.options.source.includes('query')
      ? ['option "source"']
      : handlers
          .filter(({ policy }) => !policy.skip && policy.source?.includes('query'))
          .map(({ name }) => `@UseVisit() of ${name}`);
    if (inAddresses.length > 0) {
      new Logger('Visit').warn(
        `Keys are accepted in URLs (${inAddresses.join(', ')}), which are visible in browser histories, logs and ` +
          'to other sites: use links with a key as rarely as possible',
      );
    }
  }

  /** Requests are served even if the clock is wrong; clean-up is refused when it runs. */
  private async compareClocks(): Promise<void> {
    const { maxClockSkew, storeTimeout } = this.options;
    if (maxClockSkew === false) return;
    try {
      const skew = await withDeadline(clockSkew(this.store, this.options), storeTimeout);
      if (Math.abs(skew) > maxClockSkew) new Logger('Visit').error(new VisitClockError('clean-up', skew).message);
    } catch {
      // The store will say so itself.
    }
  }

  /**
   * Requests are still running now, but the host's data source may be closed before our `onApplicationShutdown` is
   * called.
   */
  async beforeApplicationShutdown(): Promise<void> {
    await this.touches.close();
  }

  /** Called by Nest when the application ends. */
  async onApplicationShutdown(): Promise<void> {
    await this.touches.close();
    // A pool waits for connections that hang, and the process would be killed for it.
    await withDeadline(this.store.close(), LONGEST_CLOSE).catch((error: unknown) =>
      new Logger('Visit').warn(`Could not close the store: ${reasonOf(error)}`),
    );
    this.access.close();
    this.requests.close();
  }
}

/**
 * A server may accept connections and never answer. The application then fails to start, instead of waiting silently.
 *
 * @throws VisitError `VISIT_STORE_UNAVAILABLE`, and the library's own errors of `check()`
 */
async function check(store: VisitStore, storeTimeout: number): Promise<void> {
  try {
    await withDeadline(store.check(), ANSWERS_AT_START * storeTimeout);
  } catch (error) {
    if (error instanceof VisitError) throw error;
    const reason = withoutSecrets(error instanceof Error ? error.message : String(error));
    throw new VisitError('VISIT_STORE_UNAVAILABLE', `${store.constructor.name} cannot be used: ${reason}`, {
      cause: error,
    });
  }
}

/**
 * Called before anything is opened. Without options, Nest would only report that it cannot resolve a dependency. Two
 * imports would open two stores and save twice.
 */
function requireOnce(options: VisitModuleOptions | undefined, modules: ModulesContainer): void {
  const times = [...modules.values()].filter(({ metatype }) => metatype === VisitModule).length;
  if (options !== undefined && times === 1) return;
  const what = options === undefined ? 'without options' : `${times} times`;
  throw new VisitOptionError(
    `VisitModule is imported ${what}: import VisitModule.forRoot({ … }) or forRootAsync({ … }) once, in the root ` +
      'module; ' +
      'it is global, so other modules inject its services without an import',
  );
}
