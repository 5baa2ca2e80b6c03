import type { ServerResponse } from 'node:http';
import { Inject, Injectable, Logger } from '@nestjs/common';
import onHeaders from 'on-headers';
import { VisitCookie } from '../key/visit-cookie.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { VisitStore } from '../store/visit.store.js';
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
  /** Whether the store knows visits only while their requests are under way. */
  readonly clientsKeepVisits: boolean;

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitCookie) private readonly cookie: VisitCookie,
    @Inject(VisitStore) private readonly store: VisitStore,
  ) {
    this.clientsKeepVisits = store.attend !== undefined;
  }

  watch(context: VisitContext): void {
    if (context.headersWatched || context.exchange.rawResponse.headersSent) return;
    context.headersWatched = true;
    onHeaders(context.exchange.rawResponse, () => this.write(context));
  }

  /** For a store that keeps visits with their clients: it knows those of this request until the response has left, or its client. */
  attend(context: VisitContext): void {
    const response = context.exchange.rawResponse;
    const attendance = this.store.attend!(this.cookie.roomForCopy(context.policy?.path));
    context.attendance = attendance;
    if (response.closed) attendance.leave();
    else response.once('close', () => attendance.leave());
    this.watch(context);
  }

  private write(context: VisitContext): void {
    const response = context.exchange.rawResponse;
    const state = context.visit;
    if (context.retryLater && [423, 503].includes(response.statusCode)) response.setHeader('Retry-After', String(RETRY_AFTER));
    if (!state) return;
    // The handler sends the response itself, or a guard has denied the request: this is the last chance for the cookie.
    if (!context.finished && response.statusCode < 500 && this.hasSomethingToKeep(context)) {
      if (context.attendance) {
        // What the client is to keep takes a moment to be made, and headers do not wait.
        this.logger.error(
          `The session of visit ${state.record.id} was not saved: with a store that keeps visits with their clients, a handler or guard that sends the response itself has to await session.save() before`,
        );
      } else {
        if (state.standing === 'unsaved') state.sendKey = true;
        void this.lateSave?.(context).catch((error: unknown) => {
          this.logger.error(`The session of visit ${state.record.id} was not saved, its response had left: ${(error as Error).message}`);
        });
      }
    }
    const now = this.options.clock.now();
    const lifetime = state.record.permanent ? state.record.expiry - now : null;
    const path = context.policy?.path;
    const { id } = state.record;
    const copy = state.standing === 'stored' ? context.attendance?.copyFor({ id, keyHash: state.key.hash, now }) : undefined;
    // Key and copy leave together, so that no other response can part them: a key that fits nothing is no visit.
    const sendKey = state.sendKey || (copy !== undefined && state.key.matches(copy.keyHash));
    if (sendKey) this.setCookie(context, this.cookie.write(state.key.text, lifetime, now, path));
    else if (context.clearCookie) this.setCookie(context, this.cookie.clear(path));
    if (copy) this.setCookie(context, this.cookie.writeCopy(copy.text, lifetime, now, path));
    else if (context.clearCookie && context.attendance) this.setCookie(context, this.cookie.clearCopy(path));
    if (context.clearSiteData) this.clearSiteData(response, sendKey);
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
