import { Injectable } from '@nestjs/common';
import type { VisitView } from '../context/visit-view.js';

/** Options of `@VisitPlugin()`. */
export interface VisitPluginOptions {
  /** Plugins with lower numbers are called first. @default 0 */
  order?: number;
  /** What happens if the plugin throws: the error is logged, or the request fails. @default 'log' */
  onError?: 'log' | 'throw';
  /** @default true */
  enabled?: boolean;
}

/** A visit that has ended. */
export interface EndedVisit {
  readonly id: string;
  /**
   * The reason that was passed to `end()`, or one of the library's own: `ended`, `logout`, `replaced`, `revoked`,
   * `limit`, `retired-key`.
   */
  readonly reason: string;
  readonly endedAt: Date;
}

/** All visits of all users have been ended. */
export interface EndedAll {
  /** How many visits this call has ended. */
  readonly visits: number;
  readonly reason: string;
  readonly endedAt: Date;
}

/** How many rows clean-up has deleted. */
export interface ExpungedVisits {
  readonly visits: number;
  readonly identities: number;
}

/** A user was linked to a visit, or unlinked from a visit that continues without them. */
export interface IdentityChange {
  readonly visitId: string;
  readonly userId: string;
  readonly at: Date;
}

/** A request came with a key that does not open a visit. */
export interface RefusedKey {
  /**
   * `forged`: there is no such key. `retired`: the key was replaced, or its visit has ended. `conflicting`: the key
   * opens a visit, but another key of the same request opens a visit of another user.
   */
  readonly reason: 'forged' | 'retired' | 'conflicting';
  /** The public id in the key, whether or not such a visit exists. */
  readonly visitId: string;
  /** The client's address, according to the framework. */
  readonly remoteAddress: string | undefined;
}

/** A user has signed in with a browser or device that none of their earlier visits had. */
export interface NewDevice {
  readonly visitId: string;
  readonly userId: string;
  /** A label such as "Firefox on Windows", or null if the client is unknown. Not a proof of anything. */
  readonly device: string | null;
  readonly remoteAddress: string | null;
  /** Whether no earlier visit of the user is stored. */
  readonly isFirst: boolean;
  readonly at: Date;
}

/** A user has signed in more often than `identity.maxVisitsPerUser` allows. */
export interface ReachedLimit {
  readonly userId: string;
  readonly maxVisitsPerUser: number;
  /** What happened because of it. */
  readonly onLimit: 'end-oldest' | 'refuse';
}

/**
 * The hooks that a class with `@VisitPlugin()` can implement. Plugins are called one after the other, and each hook is
 * awaited.
 */
export interface VisitPluginHooks {
  /**
   * Called when a visit has been stored for the first time. `request` is the framework's request, or undefined for a
   * visit that `visits.create()` created.
   */
  onNewVisit?(visit: VisitView, request: unknown): unknown;
  /**
   * Called once per request, before the handler runs. Not called for handlers with `@SkipVisit()`, nor for requests
   * that reach no handler because a guard denied them, middleware answered them, or the path does not exist.
   */
  onRecordRequest?(visit: VisitView, request: unknown): unknown;
  /**
   * Called once when a visit has ended, in the process that ended it. For `visits.endAll()`, which may end millions of
   * visits, it is called only for the caller's own visit.
   */
  onVisitEnded?(visit: EndedVisit): unknown;
  /** Called after `visits.endAll()`. */
  onAllVisitsEnded?(ended: EndedAll): unknown;
  /** Called once when a sign-in has been stored, including `visits.create({ userId })`. */
  onIdentityLinked?(change: IdentityChange): unknown;
  /**
   * Called when a user has signed out of a visit that continues without them. If the visit ends, `onVisitEnded` is
   * called instead.
   */
  onIdentityUnlinked?(change: IdentityChange): unknown;
  /**
   * Called for each key of a request if none of them opens a visit, so that many attempts from one address can be
   * detected. Not called for visits that have merely expired, because every browser that was left open has such a key.
   * Called when the handler is known, before its guards; not for handlers with `@SkipVisit()`, nor for paths that do
   * not exist.
   */
  onKeyRefused?(refused: RefusedKey): unknown;
  /**
   * Called at a sign-in from a new device. It is compared with the stored visits of the user; ended visits are stored
   * for `expunge.keepDays`.
   */
  onNewDevice?(device: NewDevice): unknown;
  /** Called at a sign-in beyond `identity.maxVisitsPerUser`. */
  onLimitReached?(reached: ReachedLimit): unknown;
  /** Called when stale visits have been deleted. */
  onExpunge?(expunged: ExpungedVisits): unknown;
}

/**
 * The events that are emitted with `@nestjs/event-emitter`, if the application uses it. The payload is that of the
 * plugin hook, except for `visit.created`.
 */
export const VISIT_EVENTS = {
  /** The payload is `{ id }`. */
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

/** Marks a provider as a plugin. Providers of all modules are searched for plugins at startup. */
export function VisitPlugin(options: VisitPluginOptions = {}): ClassDecorator {
  return (target) => {
    Injectable()(target);
    Reflect.defineMetadata(PLUGIN, { order: 0, onError: 'log', enabled: true, ...options }, target);
  };
}

export function pluginOptionsOf(type: object): Required<VisitPluginOptions> | undefined {
  return Reflect.getOwnMetadata(PLUGIN, type) as Required<VisitPluginOptions> | undefined;
}
