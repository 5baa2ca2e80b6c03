import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { Platform, RequestEntry } from './platform.js';

type Hook = (request: FrameworkRequest, reply: FrameworkResponse, done: () => void) => void;

interface FastifyApplication {
  addHook(name: 'onRequest' | 'preValidation', hook: Hook): void;
  decorateRequest(name: string, accessor: { getter(): unknown; setter(value: unknown): void }): void;
}

export const bindFastify: Platform = {
  bind(application: FastifyApplication, entry: RequestEntry) {
    application.addHook('onRequest', (request, reply, done) => entry.enter(request, reply, done));
    application.decorateRequest('session', {
      getter(this: FrameworkRequest) {
        return entry.session(this);
      },
      setter(this: FrameworkRequest, value: unknown) {
        entry.assignSession(this, value);
      },
    });
  },
  bindAfterBody(application: FastifyApplication, readsBodies, goOn) {
    if (readsBodies) application.addHook('preValidation', (request, _reply, done) => goOn(request, done));
  },
};
