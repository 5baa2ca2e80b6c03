/** The default time limit for an answer, in milliseconds. */
export const USUAL_DEADLINE = 10_000;

/**
 * Returns the result of the work, or rejects if it takes longer than `milliseconds`, because a database may hang
 * forever. The work itself continues.
 */
export async function withDeadline<T>(work: Promise<T>, milliseconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`there was no answer within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
