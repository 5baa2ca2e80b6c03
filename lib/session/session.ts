import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { opaque } from '../context/opaque-parameter.js';
import { requireContext } from '../context/request.context.js';
import type { SessionData } from './session-data.js';

type Key<T> = Extract<keyof T, string>;

/** `any`: a session without a declared shape holds anything. */
export type DefaultData = keyof SessionData extends never ? Record<string, any> : SessionData;

/**
 * The methods of a session; `T` is the shape of its data. `save`, `update`, `take` and `reload` take turns with all
 * other writes of the request, in the order of the calls.
 *
 * @throws VisitNotResolvedError when the request is over; a plain change is logged and ignored then.
 * VisitHeadersSentError for a plain change after the headers of the response have left. VisitNestedCallError for a
 * write within a callback of another one
 */
export interface SessionMethods<T extends object> {
  /** The value, or `fallback` (undefined if left out) if the key is not there. */
  get<K extends Key<T>>(key: K): T[K] | undefined;
  /** The value, or `fallback` if the key is not there. */
  get<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /**
   * Sets a value, which is saved before the response leaves.
   *
   * @throws SessionDataError (`SESSION_VALUE`) for one that cannot be kept
   */
  set<K extends Key<T>>(key: K, value: T[K]): this;
  /** Whether the key is there. */
  has(key: Key<T>): boolean;
  /** Whether it was there. */
  delete(key: Key<T>): boolean;
  /** The value, which is then no longer in the session. */
  pop<K extends Key<T>>(key: K): T[K] | undefined;
  /** The value, which is then no longer in the session, or `fallback` if the key is not there. */
  pop<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /** The value, which is set first if the key is not there. */
  setDefault<K extends Key<T>>(key: K, value: NonNullable<T[K]>): NonNullable<T[K]>;
  /** Deletes everything that is there when the session is saved. */
  clear(): void;
  /** The keys, in the order in which they were set. */
  keys(): Key<T>[];
  /** The values, in the order of the keys. */
  values(): T[Key<T>][];
  /** Pairs of key and value, in the order of the keys. */
  entries(): [Key<T>, T[Key<T>]][];
  /** How many keys there are. */
  readonly size: number;
  /**
   * Changes one key atomically, at once, on the newest stored data, whatever other request or process writes it;
   * `change` may be called again with a newer value. Resolves to the new value; undefined takes the key out.
   */
  update<K extends Key<T>>(
    key: K,
    change: (value: T[K] | undefined) => T[K] | undefined | Promise<T[K] | undefined>,
  ): Promise<T[K] | undefined>;
  /**
   * Takes one key out atomically, at once: of all requests that try, exactly one gets the value, the others undefined.
   */
  take<K extends Key<T>>(key: K): Promise<T[K] | undefined>;
  /** Keeps a value that is to be read once, with `take`. */
  flash<K extends Key<T>>(key: K, value: T[K]): this;
  /** Saves now what has changed. There is no need to: every response waits until that is done. */
  save(): Promise<void>;
  /** Loads again what is stored; what has not been saved is gone. */
  reload(): Promise<void>;
  /** Forgets what has not been saved. */
  revert(): void;
}

/** The session of the request: its methods, and its data as properties. */
export type Session<T extends object = DefaultData> = SessionMethods<T> &
  Partial<Omit<T, keyof SessionMethods<object>>>;

/**
 * `request.session.cookie`. Only how long it lasts can be set, for this response; everything else is said by the
 * options of the module.
 */
export interface RequestSessionCookie {
  /**
   * Milliseconds until the browser forgets it; null: when the browser is closed. More than the option `timeout` makes
   * the visit a permanent one, whose life on the server is `permanentTimeout`; less shortens the life of this cookie
   * only.
   */
  maxAge: number | null;
  expires: Date | null;
  originalMaxAge: number | null;
  readonly httpOnly: boolean;
  readonly secure: boolean;
  readonly sameSite: 'strict' | 'lax' | 'none';
  readonly path: string;
  readonly domain: string | undefined;
  readonly partitioned: boolean;
}

type Done = (error?: unknown) => void;

/**
 * What `request.session` has besides the data, for code that was written for another library. Whatever takes a callback
 * gives a promise without one. Every other name is free for data.
 *
 * @throws SessionDataError `SESSION_RESERVED_NAME` when one of these names is assigned
 */
export interface RequestSessionMethods<T extends object = DefaultData> {
  /**
   * 32 hexadecimal digits, the same until rights change; asking for it begins a visit. No secret, and not the id of the
   * visit.
   */
  readonly id: string;
  cookie: RequestSessionCookie;
  /** The value, or undefined if the key is not there. */
  get<K extends Key<T>>(key: K): T[K] | undefined;
  /** The value, or `fallback` if the key is not there. */
  get<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /** Undefined takes the key out. */
  set<K extends Key<T>>(key: K, value: T[K] | undefined): this;
  /** Saves now what has changed. There is no need to: every response waits until that is done. */
  save(): Promise<void>;
  /** Saves now, and calls back when that is done, with the error if it failed. */
  save(callback: Done): this;
  /** Loads again what is stored; what has not been saved is gone. */
  reload(): Promise<void>;
  /** Loads again what is stored, and calls back. */
  reload(callback: Done): this;
  /**
   * Ends the visit; the request goes on with a new one, and a new object at `request.session`.
   *
   * @param keep keys whose values it gets, too
   */
  regenerate(keep?: readonly string[]): Promise<void>;
  /** Ends the visit, goes on with a new one, and calls back when the new object is at `request.session`. */
  regenerate(callback: Done): this;
  /** The same; `keep`: keys whose values the new session gets, too. */
  regenerate(keep: readonly string[], callback: Done): this;
  /** Ends the visit; nothing is at `request.session` any more. */
  destroy(): Promise<void>;
  /** Ends the visit, and calls back; nothing is at `request.session` any more. */
  destroy(callback: Done): this;
  /** Does nothing: each request to a handler counts as use. */
  touch(): this;
  /** The cookie lasts as long again as when it was made. */
  resetMaxAge(): this;
}

/** What is at `request.session`. */
export type RequestSession<T extends object = DefaultData> = RequestSessionMethods<T> &
  Partial<Omit<T, keyof RequestSessionMethods>>;

// Typed as a class too, so that TypeScript emits it as metadata and Nest can inject by it.
type SessionToken = (() => ParameterDecorator) & (abstract new (...args: never[]) => Session);

/**
 * Three things under one name: the parameter decorator `@Session()`, the injection token of the session of the request
 * that is being served (also in singletons), and the type. It is there from the arrival of a request on, in middleware,
 * guards and filters as in handlers.
 *
 * @throws VisitNotResolvedError outside of a request, after it, and under `@SkipVisit()`; VisitStoreUnavailableError
 * (503) when the store could not be asked
 */
export const Session = opaque(
  createParamDecorator((_: unknown, execution: ExecutionContext) => requireContext(execution).session),
  () => Session,
) as unknown as SessionToken;
