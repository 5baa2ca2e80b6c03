/**
 * Of Node's sockets, and of the drivers of MySQL and PostgreSQL: a server that is not there, that ends, or that begins.
 */
const CODES = /^(E[A-Z]+|PROTOCOL_CONNECTION_LOST|08...|57P0.)$/;
/** Some drivers say it in words only. */
const WORDS = /\b(connect(ion)?|socket|client is (closed|offline)|disconnects client)\b/i;

/** Whether an error of a store says that there was no connection, or none any more: there may be one in a moment. */
export function isNoConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  return (typeof code === 'string' && CODES.test(code)) || WORDS.test(error.message);
}
