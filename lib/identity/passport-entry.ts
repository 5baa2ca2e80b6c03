import { VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { checkedUserId } from '../visit/user-id.js';

/** Under this name Passport keeps whom it has signed in. */
export const PASSPORT = 'passport';

/**
 * The id of the user whom Passport has signed in, by what it keeps in the session: `{ user }`, or what stands for the
 * user itself. Null: nobody.
 *
 * @throws VisitError `VISIT_USER_ID` for a user who is kept as something else than their id, without the option
 * `identity.passportUserId`
 */
export function userOfEntry(entry: unknown, userIdOf: ResolvedVisitOptions['identity']['passportUserId']): string | null {
  if (userIdOf === false) return null;
  const user = typeof entry === 'object' && entry !== null && ('user' in entry || Object.keys(entry).length === 0) ? userIn(entry) : entry;
  if (user === undefined || user === null || user === false || user === '') return null;
  if (userIdOf) return checkedUserId(userIdOf(user));
  if (typeof user === 'string' || typeof user === 'number') return checkedUserId(user);
  throw new VisitError(
    'VISIT_USER_ID',
    'Passport keeps this user in the session as more than an id (see serializeUser()), so whose visit it is cannot be known: ' +
      'option "identity.passportUserId" takes a function that gives the id, or false for users who are known to Passport alone',
  );
}

const userIn = (entry: object): unknown => (entry as { user?: unknown }).user;
