import type { FrameworkRequest } from './exchange.js';
import type { RequestEntry } from './platform.js';

/** What a request has by which libraries for Express know its session. */
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
