import { VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { checkedUserId } from '../visit/user-id.js';

/** The name under which Passport stores its user in the session. */
export const PASSPORT = 'passport';

/**
 * The id of the user that Passport has signed in, from its entry in the session: `{ user }`, or the value that stands
 * for the user. Null: no user is signed in.
 *
 * @throws VisitError `VISIT_USER_ID` if the entry is neither an id nor has one, and the option
 * `identity.passportUserId` is not set
 */
export function userOfEntry(
  entry: unknown,
  userIdOf: ResolvedVisitOptions['identity']['passportUserId'],
): string | null {
  if (userIdOf === false) return null;
  const user = isObject(entry) && ('user' in entry || Object.keys(entry).length === 0) ? entry['user'] : entry;
  if (user === undefined || user === null || user === false || user === '') return null;
  if (userIdOf) return checkedUserId(userIdOf(user));
  const id = isObject(user) ? user['id'] : user;
  if (typeof id === 'string' || typeof id === 'number') return checkedUserId(id);
  throw new VisitError(
    'VISIT_USER_ID',
    'the value that Passport stores for this user (see serializeUser()) is not an id and has no id: set the ' +
      'option "identity.passportUserId" to a function that returns the id, or to false if only Passport knows its ' +
      'users',
  );
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
