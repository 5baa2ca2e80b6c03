import { inspect } from 'node:util';
import { SessionDataError, VisitEndedError } from '../errors/visit.error.js';
import type { CookieLife } from './session.cookie.js';
import { SessionDictionary } from './session.dictionary.js';
import { ACTIONS, asPlainObject, deleteEntry, getEntry, setEntry, type SessionContent } from './session.object.js';

/** What `request.session` supports in addition. */
export interface CompatibleActions extends SessionContent {
  /** Identifies the session until the rights of its visit change: 32 hexadecimal digits, not secret. */
  readonly id: string;
  /** The framework's request. */
  readonly request: unknown;
  readonly cookie: CookieLife;
  /** Ends the visit. The request continues with a new one and a new object at `request.session`. */
  regenerate(keep: readonly string[]): Promise<void>;
  /** Ends the visit. `request.session` is undefined afterwards. */
  destroy(): Promise<void>;
}

type Callback = (error?: unknown) => void;

/**
 * `request.session`, for libraries that were written for express-session. All other names are free for data, and read
 * as undefined without data, because some libraries check whether a name exists before they use it. A method that takes
 * a callback returns a promise if it is called without one. The lengths of functions matter: some libraries check
 * whether `save` takes a callback.
 */
export class CompatibleSession {
  declare readonly [ACTIONS]: CompatibleActions;

  constructor(actions: CompatibleActions) {
    Object.defineProperty(this, ACTIONS, { value: actions, configurable: true });
  }

  get id(): string {
    return this[ACTIONS].id;
  }

  get cookie(): CookieLife {
    return this[ACTIONS].cookie;
  }

  get req(): unknown {
    return this[ACTIONS].request;
  }

  get(key: string, fallback?: unknown): unknown {
    return getEntry(this[ACTIONS], key, fallback);
  }

  /** Sets a value. Undefined deletes the key. */
  set(key: string, value: unknown): this {
    if (value === undefined) deleteEntry(this[ACTIONS], key);
    else setEntry(this[ACTIONS], key, value);
    return this;
  }

  save(callback?: Callback): unknown {
    return answer(this, this[ACTIONS].save(), callback);
  }

  reload(callback?: Callback): unknown {
    return answer(this, this[ACTIONS].reload(), callback);
  }

  /** @param keep the keys whose values are copied to the new session */
  regenerate(keep?: readonly string[] | Callback, callback?: Callback): unknown {
    const [keys, done] = typeof keep === 'function' ? [[], keep] : [keep ?? [], callback];
    return answer(this, this[ACTIONS].regenerate(keys), done);
  }

  destroy(callback?: Callback): unknown {
    return answer(this, this[ACTIONS].destroy(), callback);
  }

  /** Does nothing, because every request to a handler counts as use. */
  touch(): this {
    return this;
  }

  /** Restarts the lifetime of the cookie. */
  resetMaxAge(): this {
    const { cookie } = this[ACTIONS];
    if (cookie.maxAge !== null) cookie.maxAge = cookie.originalMaxAge;
    return this;
  }

  [inspect.custom](): unknown {
    return Object.fromEntries(this[ACTIONS].dictionary.contents());
  }
}

/** The same, with the additional members of Fastify's sessions. */
class CompatibleFastifySession extends CompatibleSession {
  get sessionId(): string {
    return this[ACTIONS].id;
  }

  get encryptedSessionId(): never {
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      'request.session.encryptedSessionId is not supported: the cookie contains the key of the visit, which is ' +
        'CurrentVisit.key',
    );
  }

  /** The data, as a plain object. */
  data(): Record<string, unknown> {
    return Object.fromEntries(this[ACTIONS].dictionary.keys().map((key) => [key, this[ACTIONS].dictionary.get(key)]));
  }

  /** Sets options of the cookie; `maxAge` is in milliseconds. */
  options(options: object): void {
    Object.assign(this[ACTIONS].cookie, options);
  }

  delete(): never {
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      'request.session.delete() is not supported: destroy() ends the session, and set(key, undefined) removes a key',
    );
  }
}

/**
 * Answers with the callback or a promise. A callback that throws ends the process, as usual: otherwise its caller would
 * wait forever.
 */
function answer(session: CompatibleSession, result: Promise<void>, callback: Callback | undefined): unknown {
  if (typeof callback !== 'function') return result;
  result.then(
    () => process.nextTick(callback),
    (error: unknown) => process.nextTick(callback, error),
  );
  return session;
}

/** Names that other libraries use for the visitor's safety. Data that a visitor has sent must not replace them. */
const RESERVED: ReadonlySet<string> = new Set([
  'id',
  'cookie',
  'save',
  'reload',
  'regenerate',
  'destroy',
  'touch',
  'resetMaxAge',
  'get',
  'set',
]);

/** @param yielding the names that data replaces */
const handlerFor = (yielding: readonly string[]): ProxyHandler<CompatibleSession> =>
  asPlainObject({
    reserved: RESERVED,
    yielding: new Set(yielding),
    listed: ['cookie'],
    assign(session, name, value) {
      if (name === 'cookie') return takeOver(session.cookie, value);
      throw new SessionDataError(
        'SESSION_RESERVED_NAME',
        `request.session.${name} is a member of the session; store the value under another name`,
        name,
      );
    },
  });

const STYLES = {
  express: { Session: CompatibleSession, handler: handlerFor(['req']) },
  fastify: {
    Session: CompatibleFastifySession,
    handler: handlerFor(['req', 'sessionId', 'encryptedSessionId', 'data', 'options', 'delete']),
  },
} as const;

/** Passport copies the previous session by assigning its properties, including its cookie. */
function takeOver(cookie: CookieLife, value: unknown): void {
  const { maxAge } = (value ?? {}) as Partial<CookieLife>;
  if (typeof maxAge === 'number') cookie.maxAge = maxAge;
}

/** A session at `request.session`. */
export interface ShownSession {
  readonly object: CompatibleSession;
  /**
   * Stores a copy of its data.
   *
   * @returns a function that detaches the object from the request: reads return the copy, and writes have no effect
   */
  freeze(id: string): () => void;
}

export function showSession(actions: CompatibleActions, style: keyof typeof STYLES): ShownSession {
  const { Session, handler } = STYLES[style];
  const target = new Session(actions);
  return {
    object: new Proxy<CompatibleSession>(target, handler),
    freeze: (id) => {
      const { maxAge } = actions.cookie;
      const value = new DetachedSession(actions.dictionary.contents(), id, actions.request, {
        maxAge,
        originalMaxAge: maxAge,
      });
      return () => void Object.defineProperty(target, ACTIONS, { value });
    },
  };
}

/** A session that no longer belongs to a request. */
class DetachedSession implements CompatibleActions {
  readonly dictionary: SessionDictionary;

  constructor(
    contents: Map<string, unknown>,
    readonly id: string,
    readonly request: unknown,
    readonly cookie: CookieLife,
  ) {
    this.dictionary = new SessionDictionary(NOWHERE, () => contents);
  }

  change<T>(make: (dictionary: SessionDictionary) => T): T {
    return make(this.dictionary);
  }

  save(): Promise<never> {
    return gone();
  }

  reload(): Promise<never> {
    return gone();
  }

  regenerate(): Promise<never> {
    return gone();
  }

  destroy(): Promise<void> {
    return Promise.resolve();
  }
}

function gone(): Promise<never> {
  const refused: Promise<never> = Promise.reject(new VisitEndedError());
  // Ends no process if nobody waits for it: there was nothing to save.
  refused.catch(() => {});
  return refused;
}

/** A serializer for data that is not stored. */
const NOWHERE = { encode: () => new Uint8Array(), decode: () => new Map<string, unknown>() };
