import { withoutSecrets } from '../errors/secrets.js';

/** The message of an error, in one line and without passwords. */
export function lineOf(error: unknown): string {
  // A refused connection to a name with several addresses, whose own message is empty.
  if (error instanceof AggregateError && !error.message) return error.errors.map(lineOf).join('; ');
  const text = error instanceof Error ? error.message || error.name : String(error);
  const [line = ''] = text.replace(/^\[visit\] /, '').split('\n');
  return withoutSecrets(line);
}
