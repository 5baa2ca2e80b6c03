/** How long an answer may take where nobody has said so, in milliseconds. */
export const USUAL_DEADLINE = 10_000;

/**
 * What the work gives, or an error if it takes longer than `milliseconds`: a database may hang without an end. The work
 * itself goes on.
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
