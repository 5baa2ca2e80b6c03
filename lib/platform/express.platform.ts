import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { RequestDoor } from './platform.js';

interface ExpressApplication {
  /** The prototype of this application's requests. */
  readonly request: object;
  use(middleware: (request: FrameworkRequest, response: FrameworkResponse, next: () => void) => void): void;
}

export function bindExpress(application: ExpressApplication, door: RequestDoor): void {
  application.use((request, response, next) => door.open(request, response, next));
  Object.defineProperty(application.request, 'session', {
    configurable: true,
    enumerable: false,
    get(this: FrameworkRequest) {
      return door.session(this);
    },
    set(this: FrameworkRequest, value: unknown) {
      door.assignSession(this, value);
    },
  });
}
