import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { opaque } from '../context/opaque-parameter.js';
import { requireContext } from '../context/request.context.js';
import type { SessionData } from './session-data.js';

type Key<T> = Extract<keyof T, string>;

/** `any`: without a declared shape, a session can hold anything. */
export type DefaultData = keyof SessionData extends never ? Record<string, any> : SessionData;

/**
 * The methods of a session; `T` is the shape of its data. `save`, `update`, `take` and `reload` run one after the other
 * with all other writes of the request, in the order of the calls.
 *
 * @throws VisitNotResolvedError after the end of the request (a plain assignment is logged and ignored instead);
 * VisitHeadersSentError for a plain change after the response headers were sent; VisitNestedCallError for a write
 * inside a callback of another write
 */
export interface SessionMethods<T extends object> {
  /** The value, or undefined if the key does not exist. */
  get<K extends Key<T>>(key: K): T[K] | undefined;
  /** The value, or `fallback` if the key does not exist. */
  get<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /**
   * Sets a value, which is saved before the response is sent.
   *
   * @throws SessionDataError (`SESSION_VALUE`) if the value cannot be stored
   */
  set<K extends Key<T>>(key: K, value: T[K]): this;
  /** Whether the key exists. */
  has(key: Key<T>): boolean;
  /** Deletes a key. Returns whether it existed. */
  delete(key: Key<T>): boolean;
  /** Gets a value and deletes it. */
  pop<K extends Key<T>>(key: K): T[K] | undefined;
  /** Gets a value and deletes it, or `fallback` if the key does not exist. */
  pop<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /** The value, after setting it if the key does not exist. */
  setDefault<K extends Key<T>>(key: K, value: NonNullable<T[K]>): NonNullable<T[K]>;
  /** Deletes everything that is stored at the time of the save. */
  clear(): void;
  /** The keys, in the order in which they were set. */
  keys(): Key<T>[];
  /** The values, in the order of the keys. */
  values(): T[Key<T>][];
  /** Pairs of key and value, in the order of the keys. */
  entries(): [Key<T>, T[Key<T>]][];
  /** The number of keys. */
  readonly size: number;
  /**
   * Changes one key atomically and saves it immediately. `change` receives the newest stored value, whichever request
   * or process has written it, and may be called again with a newer one. Resolves to the new value. Return undefined to
   * delete the key.
   */
  update<K extends Key<T>>(
    key: K,
    change: (value: T[K] | undefined) => T[K] | undefined | Promise<T[K] | undefined>,
  ): Promise<T[K] | undefined>;
  /**
   * Gets and deletes one key atomically and immediately. Of several concurrent requests, exactly one gets the value;
   * the others get undefined.
   */
  take<K extends Key<T>>(key: K): Promise<T[K] | undefined>;
  /** Sets a value that is read once, with `take`. */
  flash<K extends Key<T>>(key: K, value: T[K]): this;
  /** Saves changes now. This is rarely needed, because every response waits until changes are saved. */
  save(): Promise<void>;
  /** Loads the stored data again, and discards unsaved changes. */
  reload(): Promise<void>;
  /** Discards unsaved changes. */
  revert(): void;
}

/** The session of the request: its methods, and its data as properties. */
export type Session<T extends object = DefaultData> = SessionMethods<T> &
  Partial<Omit<T, keyof SessionMethods<object>>>;

/**
 * `request.session.cookie`. Only its lifetime can be set, for the current response; the options of the module define
 * everything else.
 */
export interface RequestSessionCookie {
  /**
   * Milliseconds until the browser deletes the cookie; null: until the browser is closed. A value greater than the
   * option `timeout` makes the visit permanent, with a lifetime of `permanentTimeout` on the server. A smaller value
   * only shortens the lifetime of this cookie.
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
 * The methods and properties of `request.session`, for code that was written for other libraries. A method that takes a
 * callback returns a promise if it is called without one. All other names can be used for data.
 *
 * @throws SessionDataError `SESSION_RESERVED_NAME` if one of these names is assigned
 */
export interface RequestSessionMethods<T extends object = DefaultData> {
  /**
   * 32 hexadecimal digits that stay the same until rights change. Reading it begins a visit. It is not secret, and it
   * is not the id of the visit.
   */
  readonly id: string;
  cookie: RequestSessionCookie;
  /** The value, or undefined if the key does not exist. */
  get<K extends Key<T>>(key: K): T[K] | undefined;
  /** The value, or `fallback` if the key does not exist. */
  get<K extends Key<T>>(key: K, fallback: NonNullable<T[K]>): NonNullable<T[K]>;
  /** Sets a value. Undefined deletes the key. */
  set<K extends Key<T>>(key: K, value: T[K] | undefined): this;
  /** Saves changes now. This is rarely needed, because every response waits until changes are saved. */
  save(): Promise<void>;
  /** Saves now, then calls back, with the error if it failed. */
  save(callback: Done): this;
  /** Loads the stored data again, and discards unsaved changes. */
  reload(): Promise<void>;
  /** Loads the stored data again, then calls back. */
  reload(callback: Done): this;
  /**
   * Ends the visit. The request continues with a new visit and a new object at `request.session`.
   *
   * @param keep the keys whose values are copied to the new session
   */
  regenerate(keep?: readonly string[]): Promise<void>;
  /** Ends the visit, begins a new one, and calls back when the new object is at `request.session`. */
  regenerate(callback: Done): this;
  /** The same. `keep`: the keys whose values are copied to the new session. */
  regenerate(keep: readonly string[], callback: Done): this;
  /** Ends the visit. `request.session` is undefined afterwards. */
  destroy(): Promise<void>;
  /** Ends the visit, then calls back. `request.session` is undefined afterwards. */
  destroy(callback: Done): this;
  /** Does nothing, because every request to a handler counts as use. */
  touch(): this;
  /** Restarts the lifetime of the cookie. */
  resetMaxAge(): this;
}

/** The type of `request.session`. */
export type RequestSession<T extends object = DefaultData> = RequestSessionMethods<T> &
  Partial<Omit<T, keyof RequestSessionMethods>>;

// Typed as a class too, so that TypeScript emits it as metadata and Nest can inject by it.
type SessionToken = (() => ParameterDecorator) & (abstract new (...args: never[]) => Session);

/**
 * The parameter decorator `@Session()`, the injection token of the session of the current request (in singletons, too),
 * and the type of the session. It is available from the arrival of a request: in middleware, guards, handlers and
 * filters.
 *
 * @throws VisitNotResolvedError outside of a request, after its end, and under `@SkipVisit()`;
 * VisitStoreUnavailableError (503) if the look-up failed
 */
export const Session = opaque(
  createParamDecorator((_: unknown, execution: ExecutionContext) => requireContext(execution).session),
  () => Session,
) as unknown as SessionToken;
