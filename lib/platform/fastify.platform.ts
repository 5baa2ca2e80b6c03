import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { Platform, RequestEntry } from './platform.js';
import { noStore, requestProperties } from './request-properties.js';

type Hook = (request: FrameworkRequest, reply: FrameworkResponse, done: () => void) => void;

interface FastifyApplication {
  addHook(name: 'onRequest' | 'preValidation', hook: Hook): void;
  decorateRequest(name: string, accessor: { getter(): unknown; setter(value: unknown): void }): void;
}

/** Nest's adapter, where it has a place before all middleware. */
interface FastifyAdapter {
  setOnRequestHook?(hook: Hook): void;
}

export const bindFastify: Platform = {
  bind(application: FastifyApplication, entry: RequestEntry, adapter: FastifyAdapter) {
    /** Middleware is given Node's own request, which has the session, too. */
    const { session, sessionID } = requestProperties(entry);
    const enter: Hook = (request, reply, done) => {
      // One by one: this is done for each request, and all at once takes twice as long.
      Object.defineProperty(request.raw, 'session', session);
      Object.defineProperty(request.raw, 'sessionID', sessionID);
      entry.enter(request, reply, done);
    };
    // `NestFactory.create()` has Fastify run middleware, whenever it is added, before all hooks but this one.
    adapter.setOnRequestHook?.(enter);
    // An application may set that one itself.
    application.addHook('onRequest', (request, reply, done) => {
      if (entry.hasEntered(request)) done();
      else enter(request, reply, done);
    });
    application.decorateRequest('session', {
      getter(this: FrameworkRequest) {
        return entry.session(this);
      },
      setter(this: FrameworkRequest, value: unknown) {
        entry.assignSession(this, value);
      },
    });
    application.decorateRequest('sessionStore', noStore);
  },
  bindAfterBody(application: FastifyApplication, readsBodies, goOn) {
    if (readsBodies) application.addHook('preValidation', (request, _reply, done) => goOn(request, done));
  },
};
