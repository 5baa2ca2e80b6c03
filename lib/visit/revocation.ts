import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/**
 * Whether all visits of a user were ended (`revokedAt`) since `began`. An instant further in the future than the
 * allowed clock difference comes from a machine whose clock was ahead; it does not lock users out until then.
 */
export function isRevokedSince(
  endedAll: number | null,
  began: number,
  { clock, maxClockSkew }: Pick<ResolvedVisitOptions, 'clock' | 'maxClockSkew'>,
): boolean {
  if (endedAll === null || endedAll < began) return false;
  return maxClockSkew === false || endedAll <= clock.now() + maxClockSkew;
}
