import type { FrameworkRequest, FrameworkResponse } from './exchange.js';
import type { Platform, RequestEntry } from './platform.js';
import { requestProperties } from './request-properties.js';

interface ExpressApplication {
  /** The prototype of this application's requests. */
  readonly request: object;
  use(middleware: (request: FrameworkRequest, response: FrameworkResponse, next: () => void) => void): void;
}

export const bindExpress: Platform = {
  bind(application: ExpressApplication, entry: RequestEntry) {
    application.use((request, response, next) => entry.enter(request, response, next));
    Object.defineProperties(application.request, requestProperties(entry));
  },
  bindAfterBody(application: ExpressApplication, _readsBodies, goOn) {
    application.use((request, _response, next) => goOn(request, next));
  },
};
