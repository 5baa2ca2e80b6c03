import type { Turn } from './turn.js';

/**
 * What saving, regenerating and destroying a session means for its visit and its user. This is a contract, because
 * `identity/`, which implements it, is above the folders that call it.
 */
export abstract class SessionLife {
  /**
   * Saves the changes of the request. If Passport has signed a user in or out with them, the user is also signed in or
   * out here.
   *
   * @throws like `IdentityService.login()`; SessionDataError for values that cannot be stored
   */
  abstract save(turn: Turn): Promise<void>;
  /**
   * Ends the visit. The request continues with a new one that contains nothing of the old one.
   *
   * @throws VisitStoreUnavailableError
   */
  abstract regenerate(turn: Turn): Promise<void>;
  /**
   * Ends the visit.
   *
   * @throws VisitKeyRetiredError (409) if another request has replaced its key
   */
  abstract destroy(turn: Turn): Promise<void>;
}
