import { Injectable } from '@nestjs/common';
import type { VisitView } from '../visit/visit-view.js';

export interface VisitPluginOptions {
  /** Lower numbers are called first. @default 0 */
  order?: number;
  /** What happens when the plugin throws: it is logged, or the request fails. @default 'log' */
  onError?: 'log' | 'throw';
  /** @default true */
  enabled?: boolean;
}

/** A visit that has ended. */
export interface EndedVisit {
  readonly id: string;
  /** Why, as given to `end()`; the library's own are `ended`, `logout`, `replaced`, `revoked`. */
  readonly reason: string;
  readonly endedAt: Date;
}

export interface ExpungedVisits {
  readonly visits: number;
  readonly identities: number;
}

/** What a class marked with `@VisitPlugin()` may implement. Each hook is awaited, plugin by plugin. */
export interface VisitPluginHooks {
  /** A visit has been stored for the first time. `request` is the framework's. */
  onNewVisit?(visit: VisitView, request: unknown): unknown;
  /** A request has been resolved to its visit. Called for each request that is not marked with `@SkipVisit()`. */
  onRecordRequest?(visit: VisitView, request: unknown): unknown;
  /**
   * A visit has ended; called once, in the process that ended it. Not called for the visits that `endEverything()` ends,
   * which may be millions, but for the caller's own.
   */
  onVisitEnded?(visit: EndedVisit): unknown;
  /** Stale visits have been deleted. */
  onExpunge?(expunged: ExpungedVisits): unknown;
}

const PLUGIN = Symbol.for('nest-visit.plugin');

/** Marks a provider as a plugin; every module's providers are searched for it while the application starts (R72). */
export function VisitPlugin(options: VisitPluginOptions = {}): ClassDecorator {
  return (target) => {
    Injectable()(target);
    Reflect.defineMetadata(PLUGIN, { order: 0, onError: 'log', enabled: true, ...options }, target);
  };
}

export function pluginOptionsOf(type: object): Required<VisitPluginOptions> | undefined {
  return Reflect.getOwnMetadata(PLUGIN, type) as Required<VisitPluginOptions> | undefined;
}
