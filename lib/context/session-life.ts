import type { Turn } from './turn.js';

/**
 * What saving, regenerating and destroying a session mean for its visit and its user. A contract: the room that keeps
 * it, `identity/`, is above those that call it.
 */
export abstract class SessionLife {
  /**
   * Saves what the request has changed. Whom Passport has signed in or out with it is signed in or out here, too.
   *
   * @throws like `IdentityService.login()`, and what cannot be saved
   */
  abstract save(turn: Turn): Promise<void>;
  /**
   * Ends the visit. The request goes on with a new one, in which nothing of the old one is left. @throws
   * VisitStoreUnavailableError
   */
  abstract regenerate(turn: Turn): Promise<void>;
  /** Ends the visit for good. @throws VisitKeyRetiredError (409) when another request has replaced its key */
  abstract destroy(turn: Turn): Promise<void>;
}
