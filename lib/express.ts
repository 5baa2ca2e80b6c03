import type { RequestSession } from './session/session.js';

declare global {
  namespace Express {
    interface Request {
      /**
       * The session of the visit, see `SessionData` for its shape.
       *
       * @throws VisitNotResolvedError when it is read in a handler with `@SkipVisit()`; VisitStoreUnavailableError
       *   (503) when the store could not be asked
       */
      session: RequestSession;
      /** The same as `session.id`. */
      readonly sessionID: string;
    }
  }
}
