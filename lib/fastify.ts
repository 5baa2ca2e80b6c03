/// <reference types="fastify" preserve="true" />
import type { RequestSession } from './session/session.js';

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The session of the visit, see `SessionData` for its shape.
     *
     * @throws VisitNotResolvedError when it is read in a handler with `@SkipVisit()`; VisitStoreUnavailableError (503) when the store could not be asked
     */
    session: RequestSession & {
      /** All data, as a plain object. */
      data(): Record<string, any>;
      /** Of the cookie, for this response; `maxAge` in milliseconds. */
      options(options: { maxAge?: number | null }): void;
    };
  }
}
