/**
 * Whether every store can store this text unchanged in its columns: 1 to `most` characters, counted as databases do, of
 * well-formed Unicode. In UTF-8, every lone surrogate becomes U+FFFD, so two texts would become equal. PostgreSQL
 * refuses NUL.
 */
export function isStorable(text: unknown, most: number): text is string {
  return typeof text === 'string' && text !== '' && Array.from(text).length <= most && !/\0|\p{Surrogate}/u.test(text);
}
