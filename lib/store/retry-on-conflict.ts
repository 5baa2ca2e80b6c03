import { setTimeout as sleep } from 'node:timers/promises';

const MAX_TRIES = 12;
/** In milliseconds. */
const LONGEST_PAUSE = 500;

/**
 * Retries work that the database rolled back on a deadlock or a serialization failure, with jittered backoff.
 *
 * @param atLeast the minimum time to keep retrying, in milliseconds, in addition to the number of attempts
 */
export async function retryOnConflict<T>(
  work: () => T | Promise<T>,
  isRetryable: (error: unknown) => boolean,
  atLeast = 0,
): Promise<T> {
  const began = performance.now();
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!isRetryable(error) || (tries >= MAX_TRIES && performance.now() - began >= atLeast)) throw error;
      await sleep(Math.random() * Math.min(5 * 2 ** tries, LONGEST_PAUSE));
    }
  }
}
