import type { ServerResponse } from 'node:http';
import { HttpException, Inject, Injectable, Logger } from '@nestjs/common';
import type { RequestContext } from '../context/request.context.js';
import { VisitCookie } from '../key/visit-cookie.js';
import { VisitResolver } from '../key/visit.resolver.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { ClientStorage } from '../store/visit.facets.js';
import { UNSEEN, VisitStore } from '../store/visit.store.js';
import { RENEWAL_GRACE } from '../visit/visit.writer.js';
import { CacheHeaders } from './cache.headers.js';
import { installGate, type Replacement } from './response.gate.js';
import { framesOf, reasonOf } from '../errors/failure.js';

/** The value of `Retry-After` in seconds, after a failure of the store or if a lock was held for too long. */
const RETRY_AFTER = 5;

/** The response header with a new key, for clients that send their key in a header. */
const KEY_HEADER = 'Visit-Key';

/** Saves unsaved changes of the request. Undefined: there are none, and no save is running. */
export type SaveBeforeLeaving = (context: RequestContext) => Promise<void> | undefined;

/**
 * The outgoing response. Whichever code sends it, it waits for unsaved changes (law 7), and gets the headers of the
 * visit at the last moment. A response that has neither is not touched.
 */
@Injectable()
export class OutgoingResponse {
  private readonly logger = new Logger('Visit');
  private hasWarnedOfHttp = false;
  /** Whether the store knows visits only during their requests. */
  readonly clientsKeepVisits: boolean;
  /** The longest cookie path of all handlers. */
  longestPath: string | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitCookie) private readonly cookie: VisitCookie,
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(CacheHeaders) private readonly caches: CacheHeaders,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
  ) {
    this.clientsKeepVisits = store.clients !== undefined;
  }

  /** Makes the response wait for unsaved changes from now on. */
  watch(context: RequestContext, save: SaveBeforeLeaving): void {
    const response = context.exchange.rawResponse;
    if (context.isWatched || response.headersSent) return;
    context.isWatched = true;
    installGate(response, {
      beforeLeaving: () => save(context),
      headersLeave: () => this.writeHeaders(context),
      replacementFor: (error) => this.replacementFor(error),
    });
  }

  /**
   * For a store that keeps visits in clients: it knows the visits of this request until the response has been sent or
   * the client has disconnected.
   */
  openStorage(context: RequestContext): void {
    const response = context.exchange.rawResponse;
    const storage = this.newStorage();
    context.clientStorage = storage;
    if (response.closed) storage.close();
    else response.once('close', () => storage.close());
    context.watchResponse();
  }

  /** Storage for a store that keeps visits in clients. The caller must close it. */
  newStorage(): ClientStorage {
    return this.store.clients!.openStorage(this.cookie.maxCopyLength(this.longestPath));
  }

  /** In the format of Nest's errors. For an error that is not meant for clients, only the status. */
  private replacementFor(error: unknown): Replacement {
    const isPublic = error instanceof HttpException;
    if (!isPublic) this.logger.error(`The session could not be saved: ${reasonOf(error)}`, framesOf(error));
    const status = isPublic ? error.getStatus() : 500;
    const answer = isPublic ? error.getResponse() : { statusCode: 500, message: 'Internal server error' };
    const body = JSON.stringify(typeof answer === 'string' ? { statusCode: status, message: answer } : answer);
    return { status, headers: { 'Content-Type': 'application/json; charset=utf-8' }, body };
  }

  private writeHeaders(context: RequestContext): void {
    context.noteHeadersLeft();
    const { outgoing, resolvedVisit: state } = context;
    const response = context.exchange.rawResponse;
    if (outgoing.retryAfter && [423, 503].includes(response.statusCode))
      response.setHeader('Retry-After', String(RETRY_AFTER));
    if (context.isRead) this.caches.write(context, response);
    if (outgoing.keyInPage) {
      response.setHeader('Referrer-Policy', 'no-referrer');
      response.setHeader('Cache-Control', 'no-store');
    }
    if (!state) return;
    const now = this.options.clock.now();
    const lifetime =
      outgoing.lifetime === undefined ? (state.record.permanent ? state.record.expiry - now : null) : outgoing.lifetime;
    const place = { path: context.policy?.path, isHttps: context.exchange.isHttps };
    const { id } = state.record;
    const isKeptByClient = this.isKeptByClient(context);
    // The browser did not send its cookie with this request, so it may have a cookie with more rights, which only a
    // sign-in may replace.
    const mayHaveAnother =
      !isKeptByClient &&
      context.exchange.isCrossSitePost &&
      context.presented.keys.length === 0 &&
      this.options.cookie.sameSite !== 'none';
    if (mayHaveAnother && !state.record.identity) return;
    const copy =
      state.is === 'stored' ? context.clientStorage?.copyFor({ id, keyHash: state.key.hash, now }) : undefined;
    // Key and copy are sent together, so that no other response can separate them: a key without its copy is not a
    // visit. A key that has waited too long for its response may have been replaced by now; then the client keeps its
    // old one.
    const isTooLate = state.record.previousKeyUntil === UNSEEN && now - state.record.keyChanged >= RENEWAL_GRACE;
    const isKnown = (): boolean => context.presented.keys.some((key) => key.equals(state.key));
    if (isTooLate && !isKnown()) return;
    if (isKeptByClient) {
      if (outgoing.cookie === 'send' && !isKnown()) sendInHeader(response, state.key.text);
      return;
    }
    const sendsKey = outgoing.cookie === 'send' || (copy !== undefined && state.key.matches(copy.keyHash));
    if (sendsKey) setCookie(response, this.cookie.write(state.key.text, lifetime, now, place));
    else if (outgoing.cookie === 'clear') setCookie(response, this.cookie.clear(place));
    if (copy) setCookie(response, this.cookie.writeCopy(copy.text, lifetime, now, place));
    else if (outgoing.cookie === 'clear' && context.clientStorage) setCookie(response, this.cookie.clearCopy(place));
    if (sendsKey && this.options.cookie.secure === true && !place.isHttps) this.warnOfHttp();
    if (outgoing.clearSiteData) this.clearSiteData(response, sendsKey);
  }

  private isKeptByClient({ exchange, presented, lookup }: RequestContext): boolean {
    const found = lookup.is === 'done' && lookup.resolution.outcome === 'found' ? lookup.resolution.key : undefined;
    return this.resolver.isKeptByClient(exchange, presented.sources, found);
  }

  private warnOfHttp(): void {
    if (this.hasWarnedOfHttp) return;
    this.hasWarnedOfHttp = true;
    this.logger.warn(
      'A cookie with the attribute Secure was sent over plain HTTP, where browsers reject it: behind a proxy ' +
        'that terminates TLS, enable the trust-proxy setting of the framework; if the application serves both HTTP ' +
        'and HTTPS, set cookie.secure to "auto"',
    );
  }

  /** @param sendsKey whether a cookie is sent with the same response; it would be cleared with the others */
  private clearSiteData(response: ServerResponse, sendsKey: boolean): void {
    const kinds = this.options.cookie.clearSiteData.filter((kind) => !(sendsKey && kind === 'cookies'));
    if (kinds.length === 0 || response.hasHeader('Clear-Site-Data')) return;
    response.setHeader('Clear-Site-Data', kinds.map((kind) => `"${kind}"`).join(', '));
  }
}

function sendInHeader(response: ServerResponse, key: string): void {
  response.setHeader(KEY_HEADER, key);
  response.setHeader('Cache-Control', 'no-store');
}

function setCookie(response: ServerResponse, header: string): void {
  const others = response.getHeader('Set-Cookie');
  response.setHeader('Set-Cookie', [
    ...(others === undefined ? [] : Array.isArray(others) ? others : [String(others)]),
    header,
  ]);
  response.setHeader('Cache-Control', 'no-store');
}
