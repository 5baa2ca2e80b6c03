import { isDeepStrictEqual } from 'node:util';
import { expect } from 'vitest';
import type { Told } from '../interleaving/process.js';
import type { Event } from './model.js';

/**
 * `what`: as it is said when it is not so. A history compares hundreds of times, and to prepare an assertion takes
 * longer than to compare.
 */
export function expectSame(found: unknown, wanted: unknown, what: string): void {
  if (!isDeepStrictEqual(found, wanted)) expect(found, what).toEqual(wanted);
}

export function expectTold(told: readonly Told[], events: readonly Event[]): void {
  const words = (event: string, id: string | undefined): string => `${event} ${id}`;
  expectSame(
    told.map(({ event, visitId }) => words(event, visitId)).sort(),
    events.map(({ event, visit }) => words(event, visit.id)).sort(),
    'R72: what plugins are told',
  );
}

export function expectBetween(what: string, value: number | undefined, from: number, until: number): void {
  const isBetween = value !== undefined && value >= from && value <= until;
  expectSame(isBetween, true, `${what} ${value} is from ${from} to ${until}`);
}
