import { expect } from 'vitest';
import type { Told } from '../interleaving/process.js';
import type { Event } from './model.js';

/** `what`: as it is said when it is not so. */
export function expectSame(found: unknown, wanted: unknown, what: string): void {
  expect(found, what).toEqual(wanted);
}

export function expectTold(told: readonly Told[], events: readonly Event[]): void {
  const words = (event: string, id: string | undefined): string => `${event} ${id}`;
  expect(told.map(({ event, visitId }) => words(event, visitId)).sort(), 'R72: what plugins are told').toEqual(
    events.map(({ event, visit }) => words(event, visit.id)).sort(),
  );
}

export function expectBetween(what: string, value: number | undefined, from: number, until: number): void {
  expect(value !== undefined && value >= from && value <= until, `${what} ${value} is from ${from} to ${until}`).toBe(
    true,
  );
}
