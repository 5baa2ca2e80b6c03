import { inspect } from 'node:util';
import { SessionDataError } from '../errors/visit.error.js';
import { isHidden } from './hidden-entries.js';
import type { SessionDictionary } from './session.dictionary.js';

/** The data of a session, and the writes that any kind of session has. */
export interface SessionContent {
  readonly dictionary: SessionDictionary;
  /**
   * Makes a change. After the end of the request it is refused and logged instead, because an error in a timer would
   * end the process.
   */
  change<T>(make: (dictionary: SessionDictionary) => T): T | undefined;
  /** Saves changes. */
  save(): Promise<void>;
  /** Loads the stored data again, and discards unsaved changes. */
  reload(): Promise<void>;
}

/** What the session of a request supports in addition to a dictionary. */
export interface SessionActions extends SessionContent {
  /** Changes one key atomically, based on the newest data. */
  update(key: string, change: (value: unknown) => unknown): Promise<unknown>;
  /** Gets and deletes one key atomically: exactly one of several callers gets the value. */
  take(key: string): Promise<unknown>;
}

export const ACTIONS = Symbol('actions');

/** Names may come from visitors, and must not give access to the library's own entries. */
export function requireShown(key: string): void {
  if (isHidden(key))
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      'a name in the session cannot begin with the character NUL',
      key,
    );
}

// By functions, and not by the methods of the session: a session may have data under the name of one.

const has = ({ dictionary }: SessionContent, key: string): boolean => !isHidden(key) && dictionary.has(key);

export const getEntry = (actions: SessionContent, key: string, fallback?: unknown): unknown =>
  has(actions, key) ? actions.dictionary.get(key) : fallback;

export function setEntry(actions: SessionContent, key: string, value: unknown): void {
  requireShown(key);
  actions.change((dictionary) => dictionary.set(key, value));
}

export function deleteEntry(actions: SessionContent, key: string): boolean {
  requireShown(key);
  return actions.change((dictionary) => dictionary.delete(key)) ?? false;
}

const entriesOf = (actions: SessionContent): [string, unknown][] =>
  actions.dictionary.keys().map((key) => [key, getEntry(actions, key)]);

/**
 * The methods of a session. They are on the prototype, so `Object.keys`, `for…in` and `JSON.stringify` only see data.
 */
export class SessionObject {
  declare readonly [ACTIONS]: SessionActions;

  constructor(actions: SessionActions) {
    // Configurable: a proxy must list all properties of its target that are not.
    Object.defineProperty(this, ACTIONS, { value: actions, configurable: true });
  }

  get(key: string, fallback?: unknown): unknown {
    return getEntry(this[ACTIONS], key, fallback);
  }

  set(key: string, value: unknown): this {
    setEntry(this[ACTIONS], key, value);
    return this;
  }

  has(key: string): boolean {
    return has(this[ACTIONS], key);
  }

  delete(key: string): boolean {
    return deleteEntry(this[ACTIONS], key);
  }

  pop(key: string, fallback?: unknown): unknown {
    const value = getEntry(this[ACTIONS], key, fallback);
    deleteEntry(this[ACTIONS], key);
    return value;
  }

  setDefault(key: string, value: unknown): unknown {
    if (!has(this[ACTIONS], key)) setEntry(this[ACTIONS], key, value);
    return getEntry(this[ACTIONS], key);
  }

  clear(): void {
    this[ACTIONS].change((dictionary) => dictionary.clear());
  }

  keys(): string[] {
    return this[ACTIONS].dictionary.keys();
  }

  values(): unknown[] {
    return entriesOf(this[ACTIONS]).map(([, value]) => value);
  }

  entries(): [string, unknown][] {
    return entriesOf(this[ACTIONS]);
  }

  get size(): number {
    return this[ACTIONS].dictionary.size;
  }

  update(key: string, change: (value: unknown) => unknown): Promise<unknown> {
    return this[ACTIONS].update(key, change);
  }

  take(key: string): Promise<unknown> {
    return this[ACTIONS].take(key);
  }

  flash(key: string, value: unknown): this {
    setEntry(this[ACTIONS], key, value);
    return this;
  }

  save(): Promise<void> {
    return this[ACTIONS].save();
  }

  reload(): Promise<void> {
    return this[ACTIONS].reload();
  }

  revert(): void {
    this[ACTIONS].dictionary.revert();
  }

  [inspect.custom](): unknown {
    return Object.fromEntries(entriesOf(this[ACTIONS]));
  }
}

const SESSION_METHODS: ReadonlySet<string> = new Set(
  Object.getOwnPropertyNames(SessionObject.prototype).filter((name) => name !== 'constructor'),
);

/** Whether the name is a method of the session, so that it cannot be used as `session.name = …`. */
export const isSessionMethod = (name: PropertyKey): boolean => typeof name === 'string' && SESSION_METHODS.has(name);

/** The names that are not data. */
export interface SessionNames<T> {
  /** Methods and properties of the session, even if data has the same name. */
  readonly reserved: ReadonlySet<string>;
  /** Methods that data of the same name replaces. */
  readonly yielding: ReadonlySet<string>;
  /** The reserved names that are listed with the data. */
  readonly listed: readonly string[];
  /** Called for `session.name = value` with a reserved name. */
  assign(session: T, name: string, value: unknown): void;
}

interface Target {
  readonly [ACTIONS]: SessionContent;
}

/**
 * Makes a session usable as a plain object: its data as properties, beside its methods. One for all sessions of a kind.
 */
export function asPlainObject<T extends Target>(names: SessionNames<T>): ProxyHandler<T> {
  const { reserved, yielding, listed } = names;
  const isMethod = (target: T, name: string): boolean =>
    reserved.has(name) || (yielding.has(name) && !has(target[ACTIONS], name));
  const put = (target: T, name: string, value: unknown): true => {
    if (reserved.has(name)) names.assign(target, name, value);
    else setEntry(target[ACTIONS], name, value);
    return true;
  };
  return {
    get(target, name) {
      if (typeof name === 'symbol' || isMethod(target, name)) return Reflect.get(target, name, target) as unknown;
      if (has(target[ACTIONS], name)) return getEntry(target[ACTIONS], name);
      return name === '__proto__' ? undefined : (Reflect.get(Object.prototype, name) as unknown);
    },
    set: (target, name, value) => typeof name === 'string' && put(target, name, value),
    has: (target, name) => typeof name === 'string' && (isMethod(target, name) || has(target[ACTIONS], name)),
    deleteProperty(target, name) {
      if (typeof name === 'string') deleteEntry(target[ACTIONS], name);
      return true;
    },
    // What cannot be read as a property is not listed as one.
    ownKeys: (target) => [...target[ACTIONS].dictionary.keys().filter((key) => !reserved.has(key)), ...listed],
    getOwnPropertyDescriptor(target, name) {
      if (typeof name !== 'string') return undefined;
      if (listed.includes(name)) return describe(Reflect.get(target, name, target));
      return !reserved.has(name) && has(target[ACTIONS], name) ? describe(getEntry(target[ACTIONS], name)) : undefined;
    },
    defineProperty: (target, name, descriptor) =>
      typeof name === 'string' && 'value' in descriptor && put(target, name, descriptor.value),
  };
}

const describe = (value: unknown): PropertyDescriptor => ({
  value,
  writable: true,
  enumerable: true,
  configurable: true,
});

const OWN = asPlainObject<SessionObject>({
  reserved: SESSION_METHODS,
  yielding: new Set(),
  listed: [],
  assign: (_, name) => {
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      `session.${name} is a method; store the value with session.set("${name}", …)`,
      name,
    );
  },
});

/** The session that the application gets from `@Session()` and by injection. */
export const createSessionObject = (actions: SessionActions): SessionObject =>
  new Proxy(new SessionObject(actions), OWN);
