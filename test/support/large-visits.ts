import type { TestRunner } from 'nest-visit/testing';
import { describe, test } from 'vitest';
import { isForToday } from './today.js';

/**
 * Tests of the suite of `nest-visit/testing` with very many or very large visits. They are about the limits of SQL
 * statements, and take longer than all others on any store.
 */
const LARGE: readonly string[] = [
  'accepts more and larger saves than fit into one statement',
  'accept more visits than fit into one statement',
  'sets different instants for many visits',
];

const define: TestRunner['test'] = test;

/**
 * A test runner for the contract of a store that sends no statements: each day it has another one of the large tests,
 * and stores with another `shift` have another one.
 */
export const runnerInTurns = (shift: number): TestRunner => ({
  describe,
  test: (title, run) => {
    const place = LARGE.indexOf(title);
    if (place < 0 || isForToday(place + shift, LARGE.length)) define(title, run);
  },
});
