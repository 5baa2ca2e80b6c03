import { VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { checkedUserId } from '../visit/user-id.js';

/** Under this name Passport keeps whom it has signed in. */
export const PASSPORT = 'passport';

/**
 * The id of the user whom Passport has signed in, by what it keeps in the session: `{ user }`, or what stands for the
 * user itself. Null: nobody.
 *
 * @throws VisitError `VISIT_USER_ID` for a user who is kept neither as an id nor with one, without the option
 * `identity.passportUserId`
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
