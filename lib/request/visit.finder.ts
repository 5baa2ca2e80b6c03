import { Inject, Injectable } from '@nestjs/common';
import type { HandlerPolicy } from '../context/handler-policy.js';
import type { RequestContext } from '../context/request.context.js';
import type { VisitKey } from '../key/visit-key.js';
import { NO_KEY, VisitResolver, type Resolution } from '../key/visit.resolver.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { VisitWriter } from '../visit/visit.writer.js';
import { OutgoingResponse } from './outgoing.response.js';

/**
 * Finds the visit of a request. It only reads: it creates no row, touch, event or cookie. Errors are kept in the
 * context for the code that needs the visit.
 */
@Injectable()
export class VisitFinder {
  /** The sources that can be read before the body has been parsed. */
  private readonly early: ResolvedVisitOptions['source'];

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(OutgoingResponse) private readonly responses: OutgoingResponse,
  ) {
    this.early = options.source.filter((source) => source !== 'body');
  }

  /** Whether keys may be in a body. */
  get readsBodies(): boolean {
    return this.early.length < this.options.source.length;
  }

  /** Called when the request arrives. Undefined: done. The promise never rejects. */
  find(context: RequestContext): Promise<void> | undefined {
    const { exchange } = context;
    const keys = this.resolver.keysIn(exchange, this.early);
    this.strip(context, this.early);
    const isFinal = !this.readsBodies || !exchange.hasBody;
    if (this.responses.clientsKeepVisits) this.responses.openStorage(context);
    if (keys.length === 0) {
      if (isFinal) this.accept(context, keys, NO_KEY);
      return undefined;
    }
    return this.lookUp(context, keys, isFinal);
  }

  /** For a message, which uses the keys of its connection. Undefined: done. The promise never rejects. */
  findBy(context: RequestContext, keys: readonly VisitKey[]): Promise<void> | undefined {
    if (keys.length === 0) {
      this.accept(context, keys, NO_KEY);
      return undefined;
    }
    if (!this.responses.clientsKeepVisits) return this.lookUp(context, keys, true);
    // Nothing can be written, because nothing would reach the client: the visit is only read.
    const storage = this.responses.newStorage();
    context.clientStorage = storage;
    return this.lookUp(context, keys, true).then(() => {
      context.clientStorage = undefined;
      storage.close();
    });
  }

  /** Called when the body has been parsed. Undefined: done. */
  findInBody(context: RequestContext): Promise<void> | undefined {
    const { exchange, lookup } = context;
    if (!this.readsBodies) return undefined;
    const wasPending = lookup.is === 'pending';
    const keys = wasPending ? this.resolver.keysIn(exchange, this.options.source) : [];
    this.resolver.strip(exchange, ['body']);
    if (!wasPending) return undefined;
    if (keys.length > 0) return this.lookUp(context, keys, true);
    this.accept(context, keys, NO_KEY);
    return undefined;
  }

  /**
   * Called when the handler is known, which may use other sources than the options. Undefined: nothing changes.
   *
   * @param leave saves what the request has written to the previous visit
   */
  findFor(
    context: RequestContext,
    { source }: HandlerPolicy,
    leave: () => Promise<void> | undefined,
  ): Promise<void> | undefined {
    if (!source || context.lookup.is !== 'done' || context.presented.sources === source) return undefined;
    const keys = this.resolver.keysIn(context.exchange, source);
    this.strip(context, source);
    const { keys: before } = context.presented;
    context.presented = { sources: source, keys };
    if (keys.length === before.length && keys.every((key, index) => key.equals(before[index]!))) return undefined;
    return (async () => {
      await leave();
      context.heldSession?.revert();
      if (keys.length > 0) await this.lookUp(context, keys, true, source);
      else this.accept(context, keys, NO_KEY, source);
    })();
  }

  /** A page with a key in its URL must not reveal the URL, whichever code answers. */
  private strip(context: RequestContext, sources: ResolvedVisitOptions['source']): void {
    if (!this.resolver.strip(context.exchange, sources)) return;
    context.outgoing.keyInPage = true;
    context.watchResponse();
  }

  private lookUp(
    context: RequestContext,
    keys: readonly VisitKey[],
    isFinal: boolean,
    source = this.options.source,
  ): Promise<void> {
    return this.resolver.resolve(context.exchange, keys, context.clientStorage).then(
      (resolution) => {
        // A key that may still come in the body takes precedence over an invalid one.
        if (isFinal || (resolution.outcome === 'found' && source[0] !== 'body'))
          this.accept(context, keys, resolution, source);
      },
      (error: unknown) => context.failLookup(error),
    );
  }

  private accept(
    context: RequestContext,
    keys: readonly VisitKey[],
    resolution: Resolution,
    sources = this.options.source,
  ): void {
    context.lookup = { is: 'done', resolution };
    context.presented = { sources, keys };
    // It was loaded for the previous visit, for example by middleware.
    context.user = undefined;
    if (resolution.outcome === 'found') {
      const { record, key } = resolution;
      context.visit = { is: 'stored', record, key, isNew: false, isWanted: true };
    } else {
      const fresh = this.writer.prepare(context.exchange);
      const { outcome } = resolution;
      context.visit = outcome === 'late' || outcome === 'conflicting' ? { ...fresh, is: 'late' } : fresh;
    }
  }
}
