import { VisitClockError } from '../errors/visit.error.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import type { VisitStore } from './visit.store.js';

/** Some databases return the time in whole seconds. */
const PRECISION = 1000;

/**
 * How far the clock of this process is ahead of the store's, in milliseconds, minus the duration of the query;
 * negative: it is behind. 0 if the store has no clock.
 */
export async function clockSkew(
  store: Pick<VisitStore, 'server'>,
  { clock }: Pick<ResolvedVisitOptions, 'clock'>,
): Promise<number> {
  const before = clock.now();
  const there = await store.server?.serverTime?.();
  if (there === undefined) return 0;
  return Math.min(0, clock.now() - there) + Math.max(0, before - there - PRECISION);
}

/**
 * Called before clean-up or the end of many visits, which depend on the clock of this process.
 *
 * @throws VisitClockError if the clocks differ too much; nothing was done
 */
export async function requireClock(
  store: Pick<VisitStore, 'server'>,
  options: Pick<ResolvedVisitOptions, 'clock'> & Partial<Pick<ResolvedVisitOptions, 'maxClockSkew'>>,
  act: string,
): Promise<void> {
  const { maxClockSkew = false } = options;
  if (maxClockSkew === false) return;
  const skew = await clockSkew(store, options);
  if (Math.abs(skew) > maxClockSkew) throw new VisitClockError(act, skew);
}
