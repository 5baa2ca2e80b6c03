import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { RequestDoor } from './platform.js';

interface FastifyApplication {
  addHook(name: 'onRequest', hook: (request: FrameworkRequest, reply: FrameworkResponse, done: () => void) => void): void;
  decorateRequest(name: string, accessor: { getter(): unknown; setter(value: unknown): void }): void;
}

export function bindFastify(application: FastifyApplication, door: RequestDoor): void {
  application.addHook('onRequest', (request, reply, done) => door.open(request, reply, done));
  application.decorateRequest('session', {
    getter(this: FrameworkRequest) {
      return door.session(this);
    },
    setter(this: FrameworkRequest, value: unknown) {
      door.assignSession(this, value);
    },
  });
}
