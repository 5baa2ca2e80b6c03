import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';

/**
 * Whether all visits of a user were ended (`revokedAt`) since `began`. An end that lies further in the future than
 * clocks may differ was made by a machine whose clock was ahead; it locks nobody out until then.
 */
export function isRevokedSince(
  endedAll: number | null,
  began: number,
  { clock, maxClockSkew }: Pick<ResolvedVisitOptions, 'clock' | 'maxClockSkew'>,
): boolean {
  if (endedAll === null || endedAll < began) return false;
  return maxClockSkew === false || endedAll <= clock.now() + maxClockSkew;
}
