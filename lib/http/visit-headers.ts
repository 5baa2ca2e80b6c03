import type { ServerResponse } from 'node:http';
import { Inject, Injectable, Logger } from '@nestjs/common';
import onHeaders from 'on-headers';
import { VisitCookie } from '../key/visit-cookie.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitContext } from '../visit.context.js';

/** Seconds after which a client may try again when the store has failed, or a lock was held for too long. */
const RETRY_AFTER = 5;

/** Saves a session that has changed and whose response is about to leave. */
export type LateSave = (context: VisitContext) => Promise<void>;

/**
 * Writes the response headers of a visit at the last moment before the headers leave, whoever sends them: a returned
 * value, an exception filter, `@Res()`, a stream (R17–R20). Nothing is done for a response that has nothing to say.
 */
@Injectable()
export class VisitHeaders {
  private readonly logger = new Logger('Visit');
  lateSave: LateSave | undefined;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitCookie) private readonly cookie: VisitCookie,
  ) {}

  watch(context: VisitContext): void {
    if (context.headersWatched || context.exchange.rawResponse.headersSent) return;
    context.headersWatched = true;
    onHeaders(context.exchange.rawResponse, () => this.write(context));
  }

  private write(context: VisitContext): void {
    const response = context.exchange.rawResponse;
    const state = context.visit;
    if (context.retryLater && [423, 503].includes(response.statusCode)) response.setHeader('Retry-After', String(RETRY_AFTER));
    if (!state) return;
    // The handler sends the response itself, or a guard has denied the request: this is the last chance for the cookie.
    if (!context.finished && response.statusCode < 500 && this.hasSomethingToKeep(context)) {
      if (state.standing === 'unsaved') state.sendKey = true;
      void this.lateSave?.(context).catch((error: unknown) => {
        this.logger.error(`The session of visit ${state.record.id} was not saved, its response had left: ${(error as Error).message}`);
      });
    }
    if (state.sendKey) {
      const lifetime = state.record.permanent ? state.record.expiry - this.options.clock.now() : null;
      this.setCookie(context, this.cookie.write(state.key.text, lifetime, this.options.clock.now(), context.policy?.path));
    } else if (context.clearCookie) {
      this.setCookie(context, this.cookie.clear(context.policy?.path));
    }
    if (context.clearSiteData) this.clearSiteData(response, state.sendKey);
    if (context.keyInPage) {
      response.setHeader('Referrer-Policy', 'no-referrer');
      response.setHeader('Cache-Control', 'no-store');
    }
  }

  private hasSomethingToKeep(context: VisitContext): boolean {
    if (context.state.standing === 'late') return false;
    try {
      return (context.state.standing === 'unsaved' && context.state.kept) || (context.sessionUsed && context.dictionary.changes() !== null);
    } catch {
      return false; // The save will say what is wrong.
    }
  }

  /** @param sendKey a cookie leaves with the same response, which would be cleared with the others */
  private clearSiteData(response: ServerResponse, sendKey: boolean): void {
    const kinds = this.options.cookie.clearSiteData.filter((kind) => !(sendKey && kind === 'cookies'));
    if (kinds.length === 0 || response.hasHeader('Clear-Site-Data')) return;
    response.setHeader('Clear-Site-Data', kinds.map((kind) => `"${kind}"`).join(', '));
  }

  private setCookie(context: VisitContext, header: string): void {
    const response = context.exchange.rawResponse;
    const others = response.getHeader('Set-Cookie');
    response.setHeader('Set-Cookie', [...(others === undefined ? [] : Array.isArray(others) ? others : [String(others)]), header]);
    response.setHeader('Cache-Control', 'no-store');
  }
}
