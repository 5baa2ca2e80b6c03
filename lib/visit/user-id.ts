import { VisitError } from '../errors/visit.error.js';
import { isStorable } from './stored-text.js';

/**
 * Converts a user id to its stored form: text; a number becomes its decimal form.
 *
 * @throws VisitError `VISIT_USER_ID`
 */
export function checkedUserId(userId: unknown): string {
  const text = typeof userId === 'number' && Number.isSafeInteger(userId) ? String(userId) : userId;
  if (isStorable(text, 255)) return text;
  const got = typeof userId === 'string' ? describe(userId) : typeof userId;
  throw new VisitError(
    'VISIT_USER_ID',
    `a user id must be text of 1 to 255 characters of well-formed Unicode, or a whole number, got ${got}`,
  );
}

/** Describes an invalid id without showing it, because it may be confidential. */
function describe(text: string): string {
  if (text === '') return 'an empty string';
  const characters = Array.from(text).length;
  if (characters > 255) return `${characters} characters`;
  return text.includes('\0') ? 'text with a NUL' : 'text with half of a surrogate pair';
}
