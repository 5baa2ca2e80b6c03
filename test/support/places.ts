import {
  applyDecorators,
  Catch,
  createParamDecorator,
  Inject,
  Injectable,
  UseFilters,
  UseGuards,
  UseInterceptors,
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  type ExecutionContext,
  type INestApplication,
  type NestInterceptor,
  type PipeTransform,
  type Provider,
} from '@nestjs/common';
import { APP_GUARD, BaseExceptionFilter } from '@nestjs/core';
import { CurrentVisit, FormTokenService, IdentityService, Session, VisitService } from 'nest-visit';
import { Observable } from 'rxjs';
import type { PlatformName } from './app.js';
import { addMiddleware, type Recipe } from './ways.js';

/** The places where application code meets a request, in order. */
export type Place =
  /** Middleware that `main.ts` adds; under Fastify a hook. */
  | 'main.ts'
  /** The next one. */
  | 'main.ts, second'
  | 'module middleware'
  /** The next one. */
  | 'module middleware, second'
  /** `APP_GUARD` of a module that is imported before VisitModule. */
  | 'guard of an earlier module'
  /** `APP_GUARD` of the root module. */
  | 'guard of the root module'
  /** `app.useGlobalGuards()`. */
  | 'guard of main.ts'
  | 'guard of the class'
  | 'guard of the method'
  | 'interceptor of main.ts'
  | 'interceptor of the class'
  | 'pipe'
  | 'handler'
  /** The result of the handler. */
  | 'interceptor on the way back'
  | 'filter';

export const MIDDLEWARE: readonly Place[] = [
  'main.ts',
  'main.ts, second',
  'module middleware',
  'module middleware, second',
];
export const GUARDS: readonly Place[] = [
  'guard of an earlier module',
  'guard of the root module',
  'guard of main.ts',
  'guard of the class',
  'guard of the method',
];
export const AROUND: readonly Place[] = ['interceptor of main.ts', 'interceptor of the class', 'pipe'];
/** The places in a request whose handler succeeds. */
export const ALL_THE_WAY: readonly Place[] = [
  ...MIDDLEWARE,
  ...GUARDS,
  ...AROUND,
  'handler',
  'interceptor on the way back',
];

/** The part that both platforms have in common. */
export interface SeenRequest {
  readonly headers: Record<string, string | undefined>;
  readonly raw?: unknown;
  readonly url: string;
  readonly body?: unknown;
  session: Session;
  user?: unknown;
}

/** The services of the library, as an application injects them. */
@Injectable()
export class Services {
  constructor(
    readonly session: Session,
    readonly identity: IdentityService,
    readonly visits: VisitService,
    readonly tokens: FormTokenService,
  ) {}
}

/** A request at a place. */
export interface Sight {
  readonly place: Place;
  readonly request: SeenRequest;
  /** If there is one. */
  readonly execution?: ExecutionContext;
  readonly services: Services;
  /** The values of the decorators in the handler. */
  readonly given?: Given;
}

export interface Given {
  readonly session: Session;
  readonly visit: CurrentVisit;
  readonly userId: string | null;
}

/** The actions of a test at the places. */
export interface Watcher {
  /** Awaited. Its errors are thrown at the place. */
  see?(sight: Sight): unknown;
  /** How middleware, hooks and interceptors continue. */
  goOn?(place: Place, request: SeenRequest, next: () => void): void;
  /** Whether the handler fails, so that the filter sees the request. */
  fails?(request: SeenRequest): Error | undefined;
}

const WATCHER = Symbol('watcher');

@Injectable()
export class Places {
  constructor(
    @Inject(WATCHER) readonly watcher: Watcher,
    @Inject(Services) readonly services: Services,
  ) {}

  async see(place: Place, request: SeenRequest, more: Partial<Sight> = {}): Promise<void> {
    await this.watcher.see?.({ place, request, services: this.services, ...more });
  }

  goOn(place: Place, request: SeenRequest, next: () => void): void {
    if (this.watcher.goOn) this.watcher.goOn(place, request, next);
    else next();
  }

  /** In the handler. */
  async handle(request: SeenRequest, given?: Given): Promise<void> {
    await this.see('handler', request, given ? { given } : {});
    const error = this.watcher.fails?.(request);
    if (error) throw error;
  }

  middleware(place: Place) {
    return (request: SeenRequest, _response: unknown, next: (error?: Error) => void): void => {
      this.see(place, request).then(() => this.goOn(place, request, next), next);
    };
  }
}

const requestIn = (host: ArgumentsHost): SeenRequest => host.switchToHttp().getRequest<SeenRequest>();

function guardAt(place: Place) {
  @Injectable()
  class SeeingGuard implements CanActivate {
    constructor(@Inject(Places) readonly places: Places) {}

    async canActivate(execution: ExecutionContext): Promise<boolean> {
      if (execution.getType() === 'http') await this.places.see(place, requestIn(execution), { execution });
      return true;
    }
  }
  return SeeingGuard;
}

function interceptorAt(place: Place) {
  @Injectable()
  class SeeingInterceptor implements NestInterceptor {
    constructor(@Inject(Places) readonly places: Places) {}

    async intercept(execution: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
      if (execution.getType() !== 'http') return next.handle();
      const request = requestIn(execution);
      await this.places.see(place, request, { execution });
      return new Observable((subscriber) => {
        this.places.goOn(place, request, () =>
          subscriber.add(
            next.handle().subscribe({
              next: (value) => subscriber.next(value),
              error: (error) => subscriber.error(error),
              complete: () =>
                void this.places
                  .see('interceptor on the way back', request, { execution })
                  .then(() => subscriber.complete())
                  .catch((error) => subscriber.error(error)),
            }),
          ),
        );
      });
    }
  }
  return SeeingInterceptor;
}

@Catch()
class SeeingFilter extends BaseExceptionFilter {
  @Inject(Places) readonly places!: Places;

  override catch(error: Error, host: ArgumentsHost): void {
    // oxlint-disable-next-line promise/valid-params -- it is a filter's
    const answer = (about: Error): void => super.catch(about, host);
    void this.places.see('filter', requestIn(host)).then(() => answer(error), answer);
  }
}

@Injectable()
class SeeingPipe implements PipeTransform {
  constructor(@Inject(Places) readonly places: Places) {}

  async transform(request: SeenRequest): Promise<SeenRequest> {
    await this.places.see('pipe', request);
    return request;
  }
}

/** The request, passed through a pipe. */
const RequestParameter = createParamDecorator((_: unknown, execution: ExecutionContext) => requestIn(execution));
export const SeenInPipe = (): ParameterDecorator => RequestParameter(SeeingPipe);

const [Earlier, Root, Main, OfClass, OfMethod] = GUARDS.map(guardAt);
const [MainInterceptor, ClassInterceptor] = ['interceptor of main.ts', 'interceptor of the class'].map((place) =>
  interceptorAt(place as Place),
);

/** For a controller: its guard, interceptor and filter. */
export const Watched = (): ClassDecorator =>
  applyDecorators(UseGuards(OfClass!), UseInterceptors(ClassInterceptor!), UseFilters(SeeingFilter));
/** For a handler: its guard. */
export const WatchedHandler = (): MethodDecorator => UseGuards(OfMethod!);

/** An application with code at every place. */
export function atEveryPlace(
  platform: PlatformName,
  watcher: Watcher,
  { main, imports, earlier, ...recipe }: Recipe,
): Recipe {
  const shared: Provider[] = [{ provide: WATCHER, useValue: watcher }, Places, Services];
  let places: Places;
  return {
    ...recipe,
    ...(imports ? { imports } : {}),
    earlier: [
      { module: class EarlierModule {}, providers: [...shared, { provide: APP_GUARD, useClass: Earlier! }] },
      ...(earlier ?? []),
    ],
    providers: [
      ...shared,
      { provide: APP_GUARD, useClass: Root! },
      Main!,
      OfClass!,
      OfMethod!,
      MainInterceptor!,
      ClassInterceptor!,
      SeeingPipe,
      SeeingFilter,
      ...(recipe.providers ?? []),
    ],
    configure: (consumer) => {
      // The places exist once the application does.
      const at = (place: Place) => (request: SeenRequest, response: unknown, next: () => void) =>
        places.middleware(place)(request, response, next);
      consumer.apply(at('module middleware'), at('module middleware, second')).forRoutes('{*path}');
    },
    main: async (app: INestApplication) => {
      places = app.get(Places);
      for (const place of ['main.ts', 'main.ts, second'] as const)
        addMiddleware(app, platform, places.middleware(place));
      app.useGlobalGuards(app.get(Main!));
      app.useGlobalInterceptors(app.get(MainInterceptor!));
      app.useGlobalFilters(app.get(SeeingFilter));
      await main?.(app);
    },
  };
}
