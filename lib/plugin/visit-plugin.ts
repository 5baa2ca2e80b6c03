import { Injectable } from '@nestjs/common';
import type { VisitView } from '../context/visit-view.js';

/** Options of `@VisitPlugin()`. */
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
  /**
   * Why, as given to `end()`; the library's own are `ended`, `logout`, `replaced`, `revoked`, `limit`, `retired-key`.
   */
  readonly reason: string;
  readonly endedAt: Date;
}

/** All visits have ended at once. */
export interface EndedAll {
  /** How many this call has ended. */
  readonly visits: number;
  readonly reason: string;
  readonly endedAt: Date;
}

/** How many rows a clean-up has deleted. */
export interface ExpungedVisits {
  readonly visits: number;
  readonly identities: number;
}

/** A user has been linked to a visit, or unlinked from one that goes on without them. */
export interface IdentityChange {
  readonly visitId: string;
  readonly userId: string;
  readonly at: Date;
}

/** A request came with a key that does not open a visit. */
export interface RefusedKey {
  /**
   * `forged`: there is no such key. `retired`: there was, but it has been replaced or its visit has ended.
   * `conflicting`: it opens a visit, and another key of the same request that of another user.
   */
  readonly reason: 'forged' | 'retired' | 'conflicting';
  /** The public id that the key names, whether there is such a visit or not. */
  readonly visitId: string;
  /** As the framework sees it. */
  readonly remoteAddress: string | undefined;
}

/** A user has signed in with a browser or device that none of their earlier visits had. */
export interface NewDevice {
  readonly visitId: string;
  readonly userId: string;
  /** Such as "Firefox on Windows"; null where the client says nothing known. A label, never a proof. */
  readonly device: string | null;
  readonly remoteAddress: string | null;
  /** No earlier visit of the user is known at all. */
  readonly isFirst: boolean;
  readonly at: Date;
}

/** A user has signed in more often than `identity.maxVisitsPerUser` allows. */
export interface ReachedLimit {
  readonly userId: string;
  readonly maxVisitsPerUser: number;
  /** What has been done about it. */
  readonly onLimit: 'end-oldest' | 'refuse';
}

/** What a class marked with `@VisitPlugin()` may implement. Each hook is awaited, plugin by plugin. */
export interface VisitPluginHooks {
  /**
   * A visit has been stored for the first time. `request` is the framework's; undefined for a visit made by
   * `visits.create()`.
   */
  onNewVisit?(visit: VisitView, request: unknown): unknown;
  /**
   * A handler is about to run for this visit. Called once per request: not for handlers with `@SkipVisit()`, nor for
   * requests that reach no handler, because a guard has denied them, middleware has answered, or the path leads
   * nowhere.
   */
  onRecordRequest?(visit: VisitView, request: unknown): unknown;
  /**
   * A visit has ended; called once, in the process that ended it. Not called for the visits that `visits.endAll()`
   * ends, which may be millions, but for the caller's own.
   */
  onVisitEnded?(visit: EndedVisit): unknown;
  /** `visits.endAll()` was called. */
  onAllVisitsEnded?(ended: EndedAll): unknown;
  /** A user has signed in, also by `visits.create({ userId })`. Called when that is stored, once. */
  onIdentityLinked?(change: IdentityChange): unknown;
  /** A user has signed out of a visit that goes on without them; one that ends is told by `onVisitEnded`. */
  onIdentityUnlinked?(change: IdentityChange): unknown;
  /**
   * A request came with nothing but keys that open no visit; called for each of them, so that many from one address can
   * be seen. Not for one whose visit was just not used in time: each browser that was left open has such a key. Called
   * when the handler is known, before its guards; not for one with `@SkipVisit()`, nor for a path that leads nowhere.
   */
  onKeyRefused?(refused: RefusedKey): unknown;
  /**
   * Called at a sign-in, compared with the visits of the user that are still stored: those that have ended stay for
   * `expunge.keepDays`.
   */
  onNewDevice?(device: NewDevice): unknown;
  /** A user has signed in more often than `identity.maxVisitsPerUser` allows; called at that sign-in. */
  onLimitReached?(reached: ReachedLimit): unknown;
  /** Stale visits have been deleted. */
  onExpunge?(expunged: ExpungedVisits): unknown;
}

/**
 * What is emitted to `@nestjs/event-emitter`, if the application has it. Each with the payload of the hook of the
 * plugins, but for `visit.created`.
 */
export const VISIT_EVENTS = {
  /** With `{ id }`. */
  onNewVisit: 'visit.created',
  onVisitEnded: 'visit.ended',
  onAllVisitsEnded: 'visit.all.ended',
  onIdentityLinked: 'visit.identity.linked',
  onIdentityUnlinked: 'visit.identity.unlinked',
  onKeyRefused: 'visit.key.refused',
  onNewDevice: 'visit.device.new',
  onLimitReached: 'visit.limit.reached',
  onExpunge: 'visit.expunged',
} as const satisfies Partial<Record<keyof VisitPluginHooks, string>>;

const PLUGIN = Symbol.for('nest-visit.plugin');

/** Marks a provider as a plugin; every module's providers are searched for it while the application starts. */
export function VisitPlugin(options: VisitPluginOptions = {}): ClassDecorator {
  return (target) => {
    Injectable()(target);
    Reflect.defineMetadata(PLUGIN, { order: 0, onError: 'log', enabled: true, ...options }, target);
  };
}

export function pluginOptionsOf(type: object): Required<VisitPluginOptions> | undefined {
  return Reflect.getOwnMetadata(PLUGIN, type) as Required<VisitPluginOptions> | undefined;
}
