import { SessionDataError } from '../errors/visit.error.js';

/** What a visit takes of a statement beside its session data, in bytes, at most. */
const ROW_BYTES = 2000;
/** Well below the 16 MB that MariaDB takes. */
const MAX_STATEMENT = 8_000_000;

/**
 * What a visit takes of a statement, in bytes: its data may be sent in hexadecimal digits, or with a backslash before
 * each byte.
 */
export function bytesFor(data: Uint8Array | null): number {
  return ROW_BYTES + 2 * (data?.length ?? 0);
}

/** How long a statement may get. @param longest what the server takes: `max_allowed_packet` of MySQL and MariaDB */
export function mostBytes(longest: number): number {
  return Math.min(MAX_STATEMENT, longest);
}

/** Of a visit that the server would not take even by itself, and end the connection. */
export function tooLong(data: Uint8Array | null, longest: number): SessionDataError | undefined {
  if (bytesFor(data) <= longest) return undefined;
  return new SessionDataError(
    'SESSION_TOO_LARGE',
    `the session has ${data?.length} bytes, and a byte may need two in a statement, but the database limits ` +
      `statements to ${longest} bytes (max_allowed_packet); raise that setting, or lower the option ` +
      '"session.maxBytes"',
  );
}
