import { Inject, Injectable } from '@nestjs/common';
import { VisitKey } from '../key/visit-key.js';
import { VisitResolver } from '../key/visit.resolver.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { KeySource, ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { Exchange, FrameworkRequest } from '../platform/exchange.js';
import { handshakeIn, MessageExchange, type Handshake } from '../platform/handshake.js';
import { SessionSaver } from '../session/session.saver.js';
import type { VisitRecord } from '../store/visit.store.js';
import { OutgoingResponse } from './outgoing.response.js';
import { originOf } from './request-origin.js';

/** The result of a verification. */
export interface Verified {
  readonly record: VisitRecord;
  readonly session: Record<string, unknown>;
}

/**
 * Identifies a client outside of the application's requests. It only reads: it creates no row, touch, event or cookie.
 */
@Injectable()
export class VisitVerifier {
  /** A handshake has no body. */
  private readonly sources: readonly KeySource[];

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
    @Inject(OutgoingResponse) private readonly responses: OutgoingResponse,
    @Inject(SessionSaver) private readonly saver: SessionSaver,
  ) {
    this.sources = options.source.filter((source) => source !== 'body');
  }

  /**
   * Null: no visit.
   *
   * @throws VisitStoreUnavailableError (503), SessionDataError with `session.onUnreadable: 'throw'`
   */
  verify(credential: string | Handshake | null | undefined): Promise<Verified | null> {
    if (typeof credential === 'string') {
      const key = VisitKey.parse(credential);
      const exchange = new MessageExchange({ method: 'GET', headers: { cookie: credential } });
      return this.find(exchange, key ? [key] : this.resolver.keysIn(exchange, ['cookie']));
    }
    const handshake = handshakeIn(credential);
    if (!handshake) return Promise.resolve(null);
    const exchange = new MessageExchange(handshake);
    return this.isForeign(exchange) ? Promise.resolve(null) : this.find(exchange, this.keysIn(exchange));
  }

  /** The keys of a handshake, in the order of the sources. */
  keysIn(exchange: Exchange): VisitKey[] {
    return this.resolver.keysIn(exchange, this.sources);
  }

  /**
   * Whether a page of another site has opened this with the cookie of its visitor (cross-site WebSocket hijacking).
   * Browsers open sockets to other sites without asking, but they always send the origin (RFC 6455, 10.2).
   */
  isForeign(exchange: Exchange): boolean {
    return this.resolver.hasCookie(exchange) && this.isFromElsewhere(exchange.request);
  }

  private isFromElsewhere(request: FrameworkRequest): boolean {
    const { csrf, cookie } = this.options;
    return originOf(request, { trustedOrigins: csrf.trustedOrigins, secure: cookie.secure === true }) === 'foreign';
  }

  private async find(exchange: Exchange, keys: readonly VisitKey[]): Promise<Verified | null> {
    if (keys.length === 0) return null;
    // A store that keeps visits in clients knows this one from the data of the request, while it is used.
    const storage = this.responses.clientsKeepVisits ? this.responses.newStorage() : undefined;
    try {
      const resolution = await this.resolver.resolve(exchange, keys, storage);
      if (resolution.outcome !== 'found') return null;
      const { record } = resolution;
      return { record, session: this.saver.snapshot(record) };
    } finally {
      storage?.close();
    }
  }
}
