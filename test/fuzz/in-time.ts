import { createContext, runInContext } from 'node:vm';
import { PATIENCE } from '../support/patience.js';

/**
 * Runs `work`, and stops it where it is when it takes longer: a time limit of the test runner only speaks once a loop
 * or a regular expression has come to its end.
 */
export function inTime<T>(work: () => T, milliseconds = PATIENCE): T {
  return runInContext('work()', createContext({ work }), { timeout: milliseconds, displayErrors: false }) as T;
}
