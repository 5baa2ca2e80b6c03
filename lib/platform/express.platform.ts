import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { Platform, RequestEntry } from './platform.js';
import { noStore, requestProperties } from './request-properties.js';

interface ExpressApplication {
  /** The prototype of this application's requests. */
  readonly request: object;
  use(middleware: (request: FrameworkRequest, response: FrameworkResponse, next: () => void) => void): void;
}

export const bindExpress: Platform = {
  bind(application: ExpressApplication, entry: RequestEntry) {
    application.use((request, response, next) => {
      // Sent through the application once more, by a handler that has given it another address.
      if (entry.hasEntered(request)) next();
      else entry.enter(request, response, next);
    });
    Object.defineProperties(application.request, requestProperties(entry));
    const { getter: get, setter: set } = noStore;
    Object.defineProperty(application.request, 'sessionStore', { get, set, configurable: true });
  },
  bindAfterBody(application: ExpressApplication, _readsBodies, goOn) {
    application.use((request, _response, next) => goOn(request, next));
  },
};
