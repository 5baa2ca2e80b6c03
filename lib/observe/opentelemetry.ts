/**
 * Metrics and spans for OpenTelemetry.
 *
 * @module nest-visit/opentelemetry
 */

import {
  context,
  metrics,
  ROOT_CONTEXT,
  SpanStatusCode,
  trace,
  type Attributes,
  type Link,
  type Meter,
  type MeterProvider,
  type Tracer,
  type TracerProvider,
} from '@opentelemetry/api';
import type { VisitPluginHooks } from '../plugin/visit-plugin.js';
import type { ObservedCall, TelemetryEvent, VisitTelemetry } from './visit-telemetry.js';

/** Options of `openTelemetry()`. */
export interface OpenTelemetryOptions {
  /** The meter provider. @default the global one of `@opentelemetry/api` */
  meterProvider?: MeterProvider;
  /** The tracer provider. @default the global one of `@opentelemetry/api` */
  tracerProvider?: TracerProvider;
  /**
   * Whether the public id of the visit is recorded as `session.id`: on the span of the handler, and on the links of
   * `nest_visit.lookup`. The id gives no access, but shows which requests belong together. @default false
   */
  visitIds?: boolean;
}

/** By the same names wherever they are looked at. */
const SCOPE = 'nest-visit';

/** In seconds, as those of `db.client.operation.duration`. */
const BOUNDARIES = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

/** Visits in a batch: at most 256 wait for each other. */
const BATCH_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/**
 * Metrics, and one span for each batch of look-ups, which is linked to the spans of the requests that wait for it. For
 * the option `telemetry` of `VisitModule`. Without an SDK of OpenTelemetry in the process, nothing is recorded.
 *
 * @example
 * ```ts
 * VisitModule.forRoot({ dataSource, telemetry: openTelemetry() });
 * ```
 */
export function openTelemetry(options: OpenTelemetryOptions = {}): VisitTelemetry {
  return new OpenTelemetry(options);
}

/** A request that waits for a look-up, within a span. */
interface Waiting {
  readonly link: Link;
  /** A batch has left for it; another one is a second try. */
  isSent: boolean;
}

class OpenTelemetry implements VisitTelemetry {
  readonly hooks: VisitPluginHooks;
  private readonly waiting = new Map<string, Set<Waiting>>();
  private tools: Tools | undefined;

  constructor(private readonly options: OpenTelemetryOptions) {
    this.hooks = this.createHooks();
  }

  lookup<T>(visitId: string, work: () => Promise<T>): Promise<T> {
    const span = trace.getSpanContext(context.active());
    if (!span || !trace.isSpanContextValid(span)) return work();
    const attributes: Attributes = this.options.visitIds ? { 'session.id': visitId } : {};
    return this.waitFor(visitId, { link: { context: span, attributes }, isSent: false }, work);
  }

  private async waitFor<T>(visitId: string, one: Waiting, work: () => Promise<T>): Promise<T> {
    const all = this.waiting.get(visitId) ?? new Set();
    this.waiting.set(visitId, all.add(one));
    try {
      return await work();
    } finally {
      all.delete(one);
      if (all.size === 0) this.waiting.delete(visitId);
    }
  }

  async storeCall<T>(call: ObservedCall, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const span = call.name === 'find' ? this.startLookup(call.lookedUp) : undefined;
    const attributes: Attributes = { 'nest_visit.store.call': call.name };
    try {
      return await (span ? context.with(trace.setSpan(ROOT_CONTEXT, span), work) : work());
    } catch (error) {
      attributes['error.type'] = errorType(error);
      // Without the words of a database, which may be data.
      span?.setStatus({ code: SpanStatusCode.ERROR }).setAttribute('error.type', errorType(error));
      throw error;
    } finally {
      span?.end();
      this.get().storeCalls.record((performance.now() - began) / 1000, attributes);
    }
  }

  /** The requests that wait for it are links, because there may be many of them. */
  private startLookup(ids: readonly string[]) {
    const { batchSizes, tracer } = this.get();
    batchSizes.record(ids.length);
    const attributes = { 'nest_visit.lookup.batch_size': ids.length };
    return tracer.startSpan('nest_visit.lookup', { root: true, links: this.linksOf(ids), attributes }, ROOT_CONTEXT);
  }

  private linksOf(ids: readonly string[]): Link[] {
    return ids.flatMap((id) => {
      const all = [...(this.waiting.get(id) ?? [])];
      const unsent = all.filter(({ isSent }) => !isSent);
      return (unsent.length > 0 ? unsent : all).map((one) => {
        one.isSent = true;
        return one.link;
      });
    });
  }

  count(event: TelemetryEvent): void {
    const tools = this.get();
    switch (event.is) {
      case 'created':
        return tools.created.add(event.visits);
      case 'ended':
        return tools.ended.add(event.visits, { 'nest_visit.end.reason': event.reason });
      case 'expunged':
        return tools.expunged.add(event.visits);
      case 'conflict':
        return tools.conflicts.add(event.saves);
      case 'refused':
        return tools.refusedRequests.add(1, { 'error.type': event.code });
    }
  }

  private createHooks(): VisitPluginHooks {
    return {
      onIdentityLinked: () => this.get().signIns.add(1),
      onIdentityUnlinked: () => this.get().signOuts.add(1),
      onKeyRefused: ({ reason }) => this.get().refusedKeys.add(1, { 'nest_visit.key.refusal': reason }),
      onLimitReached: ({ onLimit }) => this.get().limits.add(1, { 'nest_visit.on_limit': onLimit }),
      ...(this.options.visitIds && {
        onRecordRequest: ({ id }) => void trace.getActiveSpan()?.setAttribute('session.id', id),
      }),
    };
  }

  /** When they are needed first: the SDK may have been started after the options were made. */
  private get(): Tools {
    const { tracerProvider = trace, meterProvider = metrics } = this.options;
    return (this.tools ??= createTools(tracerProvider.getTracer(SCOPE), meterProvider.getMeter(SCOPE)));
  }
}

type Tools = ReturnType<typeof createTools>;

function createTools(tracer: Tracer, meter: Meter) {
  const counter = (name: string, unit: string, description: string) =>
    meter.createCounter(`nest_visit.${name}`, { unit: `{${unit}}`, description });
  return {
    tracer,
    created: counter('visits.created', 'visit', 'Visits that were stored for the first time.'),
    ended: counter(
      'visits.ended',
      'visit',
      'Visits that were ended, by reason. Those that expired are not among them.',
    ),
    expunged: counter('visits.expunged', 'visit', 'Visits that were deleted by clean-up.'),
    signIns: counter('sign_ins', 'sign_in', 'Users who were linked to a visit.'),
    signOuts: counter('sign_outs', 'sign_out', 'Users who were unlinked from a visit that goes on.'),
    refusedKeys: counter('keys.refused', 'key', 'Keys that open no visit, by kind.'),
    refusedRequests: counter('requests.refused', 'request', 'Requests refused before their handler, by error code.'),
    limits: counter('limits.reached', 'sign_in', 'Sign-ins beyond the limit of visits per user.'),
    conflicts: counter('saves.conflicts', 'save', 'Saves that met a newer version of their session.'),
    batchSizes: meter.createHistogram('nest_visit.lookup.batch_size', {
      unit: '{visit}',
      description: 'Visits that were looked up by one call of the store.',
      advice: { explicitBucketBoundaries: BATCH_SIZES },
    }),
    storeCalls: meter.createHistogram('nest_visit.store.call.duration', {
      unit: 's',
      description: 'How long calls of the store took, by kind.',
      advice: { explicitBucketBoundaries: BOUNDARIES },
    }),
  };
}

/** The kind of an error, by a code or a name: few values, and none of them data. */
function errorType(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  const type = [code, name].find((one) => typeof one === 'string' && /^[\w.]{1,64}$/.test(one));
  return (type as string | undefined) ?? '_OTHER';
}
