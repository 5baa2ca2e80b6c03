import { FreshIdentityRequiredError, VisitError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/**
 * The instant of authentication, as given by the application; at most now, whatever the other party's clock says.
 *
 * @throws VisitError `VISIT_OPTION` for an invalid instant; FreshIdentityRequiredError if it is so long ago that the
 * visit would have ended
 */
export function signInInstant(
  authenticatedAt: Date | undefined,
  { clock, absoluteTimeout }: Pick<ResolvedVisitOptions, 'clock' | 'absoluteTimeout'>,
): number {
  const now = clock.now();
  if (authenticatedAt === undefined) return now;
  if (!(authenticatedAt instanceof Date) || Number.isNaN(authenticatedAt.getTime()))
    throw new VisitError('VISIT_OPTION', `"authenticatedAt" must be a Date, got ${String(authenticatedAt)}`);
  const at = Math.min(now, authenticatedAt.getTime());
  if (absoluteTimeout !== false && now >= at + absoluteTimeout) throw new FreshIdentityRequiredError();
  return at;
}
