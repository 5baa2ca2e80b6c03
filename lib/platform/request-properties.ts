import { SessionDataError } from '../errors/visit.error.js';
import type { FrameworkRequest } from './exchange.js';
import type { RequestEntry } from './platform.js';

/** The properties of a request by which libraries for Express find its session. */
export function requestProperties(entry: RequestEntry): Record<'session' | 'sessionID', PropertyDescriptor> {
  return {
    session: {
      configurable: true,
      enumerable: false,
      get(this: FrameworkRequest) {
        return entry.session(this);
      },
      set(this: FrameworkRequest, value: unknown) {
        entry.assignSession(this, value);
      },
    },
    sessionID: {
      configurable: true,
      enumerable: false,
      get(this: FrameworkRequest) {
        return entry.sessionId(this);
      },
    },
  };
}

/** What code looks for that loads or destroys the sessions of others. It may still put a store of its own there. */
export const noStore: { readonly getter: () => never; readonly setter: (this: object, value: unknown) => void } = {
  getter(): never {
    throw new SessionDataError(
      'SESSION_RESERVED_NAME',
      'there is no request.sessionStore: VisitService lists and ends visits, and verify() tells whose a key is',
      'sessionStore',
    );
  },
  setter(this: object, value: unknown): void {
    Object.defineProperty(this, 'sessionStore', { value, configurable: true, enumerable: true, writable: true });
  },
};
