import { Inject, Injectable, Logger, SetMetadata, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { CrossSiteRequestError, FormTokenError } from '../errors/visit.error.js';
import { VisitResolver } from '../key/visit.resolver.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { KeySource, ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { FrameworkRequest } from '../platform/exchange.js';
import { contextOf, findContextIn, requestOf, requireContext } from '../context/request.context.js';
import { readHandlerPolicy } from '../request/handler-policy.js';
import { RequestStory } from '../request/request.story.js';
import { FormTokens } from './form-tokens.js';
import { originOf } from '../request/request-origin.js';

/** RFC 9110, 9.2.1. Their handlers must not change anything; a guard cannot ensure this. */
const SAFE = ['GET', 'HEAD', 'OPTIONS'];

const SKIP = 'nest-visit:skip-csrf';

/**
 * `CsrfGuard` allows all requests to this controller or handler, with their visit: for a webhook or a callback that
 * verifies its origin by other means. `@SkipCsrf(false)` on a handler overrides the decorator of its controller.
 */
export const SkipCsrf = (skip = true): MethodDecorator & ClassDecorator => SetMetadata(SKIP, skip);

/**
 * Refuses requests that another site has caused a visitor's browser to send. Use it on a controller or for the whole
 * application: `{ provide: APP_GUARD, useExisting: CsrfGuard }`.
 *
 * It allows safe methods, handlers with `@SkipVisit()`, which have no visit to abuse, and requests with a key in the
 * header `Authorization` and none in a cookie. For other requests, the browser's headers tell the origin. A request
 * without these headers needs a form token.
 *
 * @throws CrossSiteRequestError, FormTokenError (403) unless `csrf.reportOnly` is set; VisitStoreUnavailableError (503)
 * if a token cannot be looked up
 */
@Injectable()
export class CsrfGuard implements CanActivate {
  private readonly logger = new Logger('Visit');

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(RequestStory) private readonly story: RequestStory,
    @Inject(FormTokens) private readonly tokens: FormTokens,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
  ) {}

  async canActivate(execution: ExecutionContext): Promise<boolean> {
    // Messages of sockets and microservices have neither cookies nor methods.
    if (!['http', 'graphql'].includes(execution.getType<string>())) return true;
    const request = requestOf(execution);
    if (SAFE.includes(request.method) || readHandlerPolicy(execution).skip || isSkipped(execution)) return true;
    const context = findContextIn(execution);
    // An operation of GraphQL on a socket: that has been judged when it was opened.
    if (context?.exchange.isMessage) return true;
    if (context) this.tokens.strip(context);
    const sources = readHandlerPolicy(execution).source ?? this.options.source;
    // Browsers do not send this header by themselves, and no page of another site can without being allowed to (CORS;
    // Fetch, 4.8).
    if (context && this.resolver.isByHeaderAlone(context.exchange, sources)) return true;
    const bringsNothing =
      context !== undefined && isForHeadersOnly(sources) && !this.resolver.hasCookie(context.exchange);
    const refusal = await this.refusalOf(request, execution, bringsNothing).catch((error: unknown) => {
      this.story.noteRefusal(error);
      throw error;
    });
    if (!refusal) return true;
    if (!this.options.csrf.reportOnly) {
      this.story.noteRefusal(refusal);
      throw refusal;
    }
    this.logger.warn(`${refusal.message} (allowed by "csrf.reportOnly"): ${described(request)}`);
    return true;
  }

  /**
   * @param bringsNothing whether the request has no visit and its response sets no cookie, as at the sign-in of a
   * native app
   */
  private async refusalOf(
    request: FrameworkRequest,
    execution: ExecutionContext,
    bringsNothing: boolean,
  ): Promise<CrossSiteRequestError | FormTokenError | null> {
    const { csrf, cookie } = this.options;
    const secure = cookie.secure === 'auto' ? request.protocol === 'https' : cookie.secure;
    const origin = originOf(request, { trustedOrigins: csrf.trustedOrigins, secure });
    if (origin === 'foreign') return new CrossSiteRequestError();
    if (bringsNothing || (origin === 'own' && !csrf.requireToken)) return null;
    await this.story.applyPolicy(contextOf(execution), readHandlerPolicy(execution));
    const outcome = await this.tokens.accept(requireContext(execution));
    if (outcome === 'accepted') return null;
    return new FormTokenError(outcome === 'missing' && origin === 'unknown' ? 'no-origin' : outcome);
  }
}

const isForHeadersOnly = (sources: readonly KeySource[]): boolean => sources.length === 1 && sources[0] === 'header';

function isSkipped(execution: ExecutionContext): boolean {
  const of = (target: object): unknown => Reflect.getMetadata(SKIP, target);
  return Boolean(of(execution.getHandler()) ?? of(execution.getClass()));
}

/** Shortens and cleans what a client has sent, which may be long or imitate log lines. */
function described({ method, headers }: FrameworkRequest): string {
  const shown = { method, origin: headers.origin, 'sec-fetch-site': headers['sec-fetch-site'], host: headers.host };
  return JSON.stringify(shown, (_, value: unknown) => (typeof value === 'string' ? value.slice(0, 100) : value));
}
