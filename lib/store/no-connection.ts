/**
 * Codes of Node's sockets and of the drivers of MySQL and PostgreSQL: the server is not reachable, is stopping or is
 * starting.
 */
const CODES = /^(E[A-Z]+|PROTOCOL_CONNECTION_LOST|08...|57P0.)$/;
/** Some drivers only have a message. */
const WORDS = /\b(connect(ion)?|socket|client is (closed|offline)|disconnects client)\b/i;

/** Whether an error of a store means that there was no connection, or that it was lost. */
export function isNoConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  return (typeof code === 'string' && CODES.test(code)) || WORDS.test(error.message);
}
