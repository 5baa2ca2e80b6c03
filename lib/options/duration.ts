/** Milliseconds, or text such as `'30s'`, `'20m'`, `'1.5h'`, `'7d'`, `'2w'`. */
export type Duration = number | `${number}${Unit}` | `${number} ${Unit}`;

type Unit = 'ms' | 's' | 'm' | 'h' | 'd' | 'w';

/** The longest that a timer of Node runs, about 24 days; it takes a longer time for 1 ms. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** A hundred years: an instant so far from now is still a date, and one that databases keep. */
export const LONGEST_DURATION = 36_500 * 86_400_000;

const UNITS: Record<Unit, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** The duration in whole milliseconds, or null if it is none. */
export function parseDuration(value: unknown): number | null {
  if (typeof value === 'number') return Number.isFinite(value) && value >= 0 ? Math.round(value) : null;
  if (typeof value !== 'string') return null;
  const match = /^(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|h|d|w)$/.exec(value.trim().toLowerCase());
  return match ? Math.round(Number(match[1]) * UNITS[match[2] as Unit]) : null;
}
