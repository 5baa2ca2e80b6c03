/** Milliseconds, or text such as `'30s'`, `'20m'`, `'1.5h'`, `'7d'`, `'2w'`. */
export type Duration = number | `${number}${Unit}` | `${number} ${Unit}`;

type Unit = 'ms' | 's' | 'm' | 'h' | 'd' | 'w';

/** The longest delay of a timer in Node, about 24 days. Node treats longer delays as 1 ms. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** A hundred years. An instant this far in the future is still a valid date in JavaScript and in databases. */
export const LONGEST_DURATION = 36_500 * 86_400_000;

const UNITS: Record<Unit, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** The duration in whole milliseconds, or null if the value is not a duration. */
export function parseDuration(value: unknown): number | null {
  if (typeof value === 'number') return Number.isFinite(value) && value >= 0 ? Math.round(value) : null;
  if (typeof value !== 'string') return null;
  const match = /^(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|h|d|w)$/.exec(value.trim().toLowerCase());
  return match ? Math.round(Number(match[1]) * UNITS[match[2] as Unit]) : null;
}
