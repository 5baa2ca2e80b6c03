import { VisitError } from './visit.error.js';

/**
 * The text for a log line, or for the message of another error: errors of this library with their message, all others
 * with their kind and code. Other messages may contain session data, a user id or a password. They are available as
 * `cause`.
 */
export function reasonOf(error: unknown): string {
  if (error instanceof VisitError) return error.message;
  if (!(error instanceof Error)) return `a value of type ${typeof error} was thrown`;
  if (error instanceof AggregateError && error.errors.length > 0)
    return [...new Set(error.errors.map(reasonOf))].join(', ');
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  const [kind, isPlain] = [error.name, /^[\w .:-]{1,80}$/.test(error.name)];
  const codes = [code, errno].filter(
    (one) => (typeof one === 'string' && /^[\w.:-]{1,60}$/.test(one)) || typeof one === 'number',
  );
  return [isPlain ? kind : 'an error', ...new Set(codes)].join(' ');
}

/** The stack frames, without the message of the error. */
export function framesOf(error: unknown): string | undefined {
  const frames = error instanceof Error ? error.stack?.match(/^ {4}at .*$/gm) : undefined;
  return frames?.join('\n');
}
