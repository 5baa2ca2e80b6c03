import { SessionDataError } from '../errors/visit.error.js';

/** The maximum size of a visit in a statement without its session data, in bytes. */
const ROW_BYTES = 2000;
/** Well below the limit of 16 MB in MariaDB. */
const MAX_STATEMENT = 8_000_000;

/**
 * The size of a visit in a statement, in bytes: its data may be sent as hexadecimal digits, or with a backslash before
 * each byte.
 */
export function bytesFor(data: Uint8Array | null): number {
  return ROW_BYTES + 2 * (data?.length ?? 0);
}

/**
 * The maximum size of a statement.
 *
 * @param longest the limit of the server: `max_allowed_packet` of MySQL and MariaDB
 */
export function mostBytes(longest: number): number {
  return Math.min(MAX_STATEMENT, longest);
}

/**
 * The error for a visit that is too large for a statement of its own, for which the server would close the connection.
 */
export function tooLong(data: Uint8Array | null, longest: number): SessionDataError | undefined {
  if (bytesFor(data) <= longest) return undefined;
  return new SessionDataError(
    'SESSION_TOO_LARGE',
    `the session has ${data?.length} bytes, and a byte may need two in a statement, but the database limits ` +
      `statements to ${longest} bytes (max_allowed_packet); raise that setting, or lower the option ` +
      '"session.maxBytes"',
  );
}
