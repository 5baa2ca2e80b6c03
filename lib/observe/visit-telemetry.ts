import type { VisitErrorCode } from '../errors/visit.error.js';
import type { VisitPluginHooks } from '../plugin/visit-plugin.js';

/** The observed methods of a store and its facets. */
export const STORE_CALLS = [
  ...(['find', 'create', 'save', 'touch', 'rekey', 'end'] as const),
  ...(['listForUser', 'userAgentsOf', 'endAllForUser', 'endAll', 'revokedAt'] as const),
  ...(['liveVisits', 'lock', 'unlock', 'expunge', 'wipe'] as const),
] as const;

/** One call of the store. */
export interface ObservedCall {
  /** The method of the store or of its facet, such as `find` or `lock`. */
  readonly name: (typeof STORE_CALLS)[number];
  /** The public ids of the visits that are looked up; empty for every other call. */
  readonly lookedUp: readonly string[];
}

/** An event, without any information about the user. */
export type TelemetryEvent =
  /** Visits were stored for the first time, ended for this reason, or deleted long after their end. */
  | { readonly is: 'created' | 'expunged'; readonly visits: number }
  | { readonly is: 'ended'; readonly visits: number; readonly reason: string }
  /** Saves met a newer version of their session; their changes are applied to it. */
  | { readonly is: 'conflict'; readonly saves: number }
  /** A guard of the library refused a request, or its visit could not be loaded before its handler. */
  | { readonly is: 'refused'; readonly code: VisitErrorCode };

/**
 * Observes the library: the option `telemetry`. `openTelemetry()` of `nest-visit/opentelemetry` creates one. Its
 * methods must not throw and are not awaited, because they are called while requests are served.
 */
export interface VisitTelemetry {
  /** Called as those of a plugin. */
  readonly hooks: VisitPluginHooks;

  /**
   * A request looks for its visit, by its public id. Called in the asynchronous context of the request, and gives what
   * `work` gives.
   */
  lookup<T>(visitId: string, work: () => Promise<T>): Promise<T>;

  /** A call of the store for any number of requests, outside of their contexts. Returns the result of `work`. */
  storeCall<T>(call: ObservedCall, work: () => Promise<T>): Promise<T>;

  /** Something has happened that is worth counting. */
  count(event: TelemetryEvent): void;
}
