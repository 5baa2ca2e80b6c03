import { VisitError } from '../errors/visit.error.js';
import { isStorable } from './stored-text.js';

const MOST = 32;

/** The reason for an end, before anything is done: a column holds it. @throws VisitError `VISIT_END_REASON` */
export function checkedReason(reason: unknown): string {
  if (isStorable(reason, MOST)) return reason;
  const got = typeof reason === 'string' ? `${Array.from(reason).length} characters` : typeof reason;
  throw new VisitError(
    'VISIT_END_REASON',
    `the reason for the end of a visit must be 1 to ${MOST} characters of well-formed Unicode, got ${got}; store ` +
      'longer text elsewhere',
  );
}
