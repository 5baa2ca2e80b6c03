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
 * Finds the visit that a request belongs to. Reads only: no row, no touch, no event and no cookie comes of it. What
 * fails is kept in the context, for whoever then needs the visit.
 */
@Injectable()
export class VisitFinder {
  /** What can be read before the body has been parsed. */
  private readonly early: ResolvedVisitOptions['source'];

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(VisitResolver) private readonly resolver: VisitResolver,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(OutgoingResponse) private readonly responses: OutgoingResponse,
  ) {
    this.early = options.source.filter((source) => source !== 'body');
  }

  /** Whether something may be found in a body. */
  get readsBodies(): boolean {
    return this.early.length < this.options.source.length;
  }

  /** When the request arrives. Undefined: it is done; the promise never rejects. */
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

  /**
   * Of a message, whose keys are those that its connection was opened with. Undefined: it is done; the promise never
   * rejects.
   */
  findBy(context: RequestContext, keys: readonly VisitKey[]): Promise<void> | undefined {
    if (keys.length === 0) {
      this.accept(context, keys, NO_KEY);
      return undefined;
    }
    if (!this.responses.clientsKeepVisits) return this.lookUp(context, keys, true);
    // Nothing of it can be written, because nothing would reach its client: it is looked at, and let go.
    const storage = this.responses.newStorage();
    context.clientStorage = storage;
    return this.lookUp(context, keys, true).then(() => {
      context.clientStorage = undefined;
      storage.close();
    });
  }

  /** When the body has been parsed. Undefined: it is done. */
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
   * When the handler is known, which may want the key from elsewhere than the module's options say. Undefined: that
   * changes nothing.
   *
   * @param leave what the request has written to the visit of before is saved there first
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

  /** A page at an address with a key keeps the address to itself, whoever answers. */
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
        // A key that may still come in the body counts for more than one that leads nowhere.
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
    // Loaded for the visit of before, by middleware for example.
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
