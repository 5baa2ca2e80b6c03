import { inspect } from 'node:util';
import { SessionDataError } from '../errors/visit.error.js';
import { isHidden } from './hidden-entries.js';
import type { SessionDictionary } from './session.dictionary.js';

/** What the session of a request can do besides being a dictionary. */
export interface SessionActions {
  readonly dictionary: SessionDictionary;
  /** Makes a change. When the request is over it is refused and logged instead: an error in a timer would end the process. */
  change<T>(make: (dictionary: SessionDictionary) => T): T | undefined;
  /** Saves what has changed. */
  save(): Promise<void>;
  /** Loads again what is stored; what has not been saved is gone. */
  reload(): Promise<void>;
  /** Changes one key atomically, on the newest data, whoever else writes. */
  update(key: string, change: (value: unknown) => unknown): Promise<unknown>;
  /** Takes one key out atomically: of all who try, one gets the value. */
  take(key: string): Promise<unknown>;
}

const ACTIONS = Symbol('actions');

/** Names may come from visitors, and must not lead to what the library itself keeps. */
export function requireShown(key: string): void {
  if (isHidden(key)) throw new SessionDataError('SESSION_RESERVED_NAME', 'a name in the session cannot begin with the character NUL', key);
}

/** The methods of a session. They live on the prototype: `Object.keys`, `for…in` and `JSON.stringify` see data only. */
export class SessionObject {
  declare private readonly [ACTIONS]: SessionActions;

  constructor(actions: SessionActions) {
    // Configurable: a proxy must list all properties of its target that are not.
    Object.defineProperty(this, ACTIONS, { value: actions, configurable: true });
  }

  get(key: string, fallback?: unknown): unknown {
    return this.has(key) ? this[ACTIONS].dictionary.get(key) : fallback;
  }

  set(key: string, value: unknown): this {
    requireShown(key);
    this[ACTIONS].change((dictionary) => dictionary.set(key, value));
    return this;
  }

  has(key: string): boolean {
    return !isHidden(key) && this[ACTIONS].dictionary.has(key);
  }

  delete(key: string): boolean {
    requireShown(key);
    return this[ACTIONS].change((dictionary) => dictionary.delete(key)) ?? false;
  }

  pop(key: string, fallback?: unknown): unknown {
    const value = this.get(key, fallback);
    this.delete(key);
    return value;
  }

  setDefault(key: string, value: unknown): unknown {
    if (!this.has(key)) this.set(key, value);
    return this.get(key);
  }

  clear(): void {
    this[ACTIONS].change((dictionary) => dictionary.clear());
  }

  keys(): string[] {
    return this[ACTIONS].dictionary.keys();
  }

  values(): unknown[] {
    return this.keys().map((key) => this.get(key));
  }

  entries(): [string, unknown][] {
    return this.keys().map((key) => [key, this.get(key)]);
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
    return this.set(key, value);
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
    return Object.fromEntries(this.entries());
  }
}

const METHODS: ReadonlySet<string> = new Set(Object.getOwnPropertyNames(SessionObject.prototype).filter((name) => name !== 'constructor'));

/** Whether the name is a method of the session, so that it cannot be used as `session.name = …`. */
export const isSessionMethod = (name: PropertyKey): boolean => typeof name === 'string' && METHODS.has(name);

const asPlainObject: ProxyHandler<SessionObject> = {
  get(target, name) {
    if (typeof name === 'symbol' || METHODS.has(name)) return Reflect.get(target, name, target) as unknown;
    return target.has(name) ? target.get(name) : name === '__proto__' ? undefined : (Reflect.get(Object.prototype, name) as unknown);
  },
  set(target, name, value) {
    if (typeof name === 'symbol') return false;
    if (METHODS.has(name)) {
      throw new SessionDataError(
        'SESSION_RESERVED_NAME',
        `session.${name} is a method; keep the value with session.set("${name}", …)`,
        name,
      );
    }
    target.set(name, value);
    return true;
  },
  has: (target, name) => typeof name === 'string' && (METHODS.has(name) || target.has(name)),
  deleteProperty(target, name) {
    if (typeof name === 'string') target.delete(name);
    return true;
  },
  ownKeys: (target) => target.keys(),
  getOwnPropertyDescriptor(target, name) {
    if (typeof name !== 'string' || !target.has(name)) return undefined;
    return { value: target.get(name), writable: true, enumerable: true, configurable: true };
  },
  defineProperty(target, name, descriptor) {
    if (typeof name !== 'string' || !('value' in descriptor)) return false;
    target.set(name, descriptor.value);
    return true;
  },
};

/** The session as handlers see it: methods, and its data as plain properties (R45). */
export function createSessionObject(actions: SessionActions): SessionObject {
  return new Proxy(new SessionObject(actions), asPlainObject);
}
