import { VisitError } from './visit.error.js';

/**
 * What a log line, or the message of another error, may say of a failure: errors of this library in their own words; of
 * all others the kind and the code. Their texts quote what they stumbled over, which may be session data, a user id or
 * a password. They stay at hand as `cause`.
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

/** Where it happened, without the text of the error. */
export function framesOf(error: unknown): string | undefined {
  const frames = error instanceof Error ? error.stack?.match(/^ {4}at .*$/gm) : undefined;
  return frames?.join('\n');
}
