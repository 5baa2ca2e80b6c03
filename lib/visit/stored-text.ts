/**
 * Whether every store keeps this text as it is and within its columns: 1 to `most` characters, counted as databases do,
 * of well-formed Unicode. Written as UTF-8, every lone surrogate becomes the same U+FFFD, so that two texts would be
 * one; PostgreSQL refuses a NUL.
 */
export function isStorable(text: unknown, most: number): text is string {
  return typeof text === 'string' && text !== '' && Array.from(text).length <= most && !/\0|\p{Surrogate}/u.test(text);
}
