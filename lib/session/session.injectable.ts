import type { CurrentRequest } from '../context/current-request.js';
import { isSessionMethod, type SessionObject } from './session.object.js';

/** What Nest and its modules look for in every provider, outside of requests; with what every object has. */
const PROBED: ReadonlySet<PropertyKey> = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  'onModuleInit',
  'onApplicationBootstrap',
  'onModuleDestroy',
  'beforeApplicationShutdown',
  'onApplicationShutdown',
]);

/** A stand-in that is, at every use, the session of the request that is being served: one for all singletons. */
export function createInjectableSession(requests: CurrentRequest): SessionObject {
  const current = (): SessionObject => requests.require().session as SessionObject;
  return new Proxy({} as SessionObject, {
    get(target, name) {
      if (name === 'then' || ((typeof name === 'symbol' || PROBED.has(name)) && !requests.context))
        return Reflect.get(target, name) as unknown;
      const session = current();
      const value: unknown = Reflect.get(session, name);
      return typeof value === 'function' && isSessionMethod(name) ? (value.bind(session) as unknown) : value;
    },
    set: (_, name, value) => Reflect.set(current(), name, value),
    has: (_, name) => Reflect.has(current(), name),
    deleteProperty: (_, name) => Reflect.deleteProperty(current(), name),
    ownKeys: () => Reflect.ownKeys(current()),
    getOwnPropertyDescriptor: (_, name) => Reflect.getOwnPropertyDescriptor(current(), name),
  });
}
