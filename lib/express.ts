import type { RequestSession } from './session/session.js';

declare global {
  namespace Express {
    interface Request {
      /**
       * The session of the current request; `SessionData` declares its shape.
       *
       * @throws VisitNotResolvedError in a handler with `@SkipVisit()`; VisitStoreUnavailableError (503) if the look-up
       * failed
       */
      session: RequestSession;
      /** The same as `session.id`. */
      readonly sessionID: string;
    }
  }
}
