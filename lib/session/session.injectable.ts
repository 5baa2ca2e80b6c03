import { VisitNotResolvedError } from '../errors/visit.error.js';
import type { VisitLifecycle } from '../visit.lifecycle.js';
import { isSessionMethod, type SessionObject } from './session.object.js';

/** A stand-in that is, at every use, the session of the request that is being served: one for all singletons (R12). */
export function createInjectableSession(lifecycle: VisitLifecycle): SessionObject {
  const current = (): SessionObject | undefined => lifecycle.current?.session;
  const forward = (): SessionObject => {
    const session = current();
    if (session) return session;
    throw new VisitNotResolvedError('there is no request here, so there is no session');
  };
  return new Proxy({} as SessionObject, {
    get(target, name) {
      // Nest looks for `then`, `constructor` and lifecycle hooks while the application starts, outside of requests.
      if (name === 'then' || (!isSessionMethod(name) && !lifecycle.current?.visit)) return Reflect.get(target, name) as unknown;
      const value: unknown = Reflect.get(forward(), name);
      return typeof value === 'function' && isSessionMethod(name) ? (value.bind(forward()) as unknown) : value;
    },
    set: (_, name, value) => Reflect.set(forward(), name, value),
    has: (_, name) => Reflect.has(forward(), name),
    deleteProperty: (_, name) => Reflect.deleteProperty(forward(), name),
    ownKeys: () => Reflect.ownKeys(forward()),
    getOwnPropertyDescriptor: (_, name) => Reflect.getOwnPropertyDescriptor(forward(), name),
  });
}
