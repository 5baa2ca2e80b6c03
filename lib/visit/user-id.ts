import { VisitError } from '../errors/visit.error.js';

/** The user id as it is kept: text; a number becomes its decimal form. @throws VisitError `VISIT_USER_ID` */
export function checkedUserId(userId: unknown): string {
  const text = typeof userId === 'number' && Number.isSafeInteger(userId) ? String(userId) : userId;
  // Characters are counted as databases do, and a NUL is refused by PostgreSQL.
  if (typeof text === 'string' && text !== '' && Array.from(text).length <= 255 && !text.includes('\0')) return text;
  throw new VisitError('VISIT_USER_ID', `a user id must be text of 1 to 255 characters, or a whole number, got ${typeof userId}`);
}
