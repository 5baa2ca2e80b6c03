import { setTimeout as sleep } from 'node:timers/promises';

const MAX_TRIES = 12;
/** In milliseconds. */
const LONGEST_PAUSE = 500;

/**
 * Tries again what a database undid because others were in the way. The waits are random, so that two that collided do
 * not collide again.
 *
 * @param atLeast so many milliseconds, and not only so many tries
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
