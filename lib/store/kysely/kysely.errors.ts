import type { Reference } from '../table-visit.store.js';

/** What drivers tell about an error. Kysely hands on theirs. */
interface DriverError {
  readonly code?: string;
  readonly errno?: number;
  readonly sqlState?: string;
  /** Of `pg`. */
  readonly constraint?: string;
  readonly message: string;
}

/**
 * Of PostgreSQL: serialization_failure, deadlock_detected. Of MySQL: ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (which Galera says too, when
 * another node was faster), ER_CHECKREAD (MariaDB 11.6 and later, when a snapshot is no longer current),
 * ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication).
 */
const IN_THE_WAY: readonly unknown[] = ['40001', '40P01', 1205, 1213, 1020, 3101];
/** undefined_table, undefined_column, invalid_schema_name; ER_BAD_FIELD_ERROR, ER_NO_SUCH_TABLE. */
const MISSING: readonly unknown[] = ['42P01', '42703', '3F000', 1054, 1146];
/** ER_ERROR_DURING_COMMIT: of a node that has lost its cluster; the others may have the write. */
const MAYBE_DONE = 1180;
/** ER_NET_PACKET_TOO_LARGE: the connection is over, but nothing was done. */
const TOO_LONG = 1153;
/** ER_DATA_OUT_OF_RANGE. */
const OUT_OF_RANGE = 1690;

const detailsOf = (error: unknown): DriverError => (error ?? {}) as DriverError;

/** What has no state does not come from the server: the connection is gone. */
function sqlStateOf(error: unknown): string {
  const { sqlState, code = '' } = detailsOf(error);
  return sqlState ?? (/^[0-9A-Z]{5}$/.test(code) ? code : code.startsWith('SQLITE_') ? 'HY000' : '08000');
}

/** Whether the database undid everything because others were in the way, so that the same can be tried again. */
export function isTransient(error: unknown): boolean {
  const { code, errno } = detailsOf(error);
  return IN_THE_WAY.includes(code) || IN_THE_WAY.includes(errno) || code?.startsWith('SQLITE_BUSY') === true;
}

/** Whether a table, a column or the schema is not there. */
export function isMissing(error: unknown): boolean {
  const { code, errno, message } = detailsOf(error);
  return MISSING.includes(code) || MISSING.includes(errno) || /no such (table|column)/.test(message);
}

/** Whether a save of several visits failed, and did nothing, because one of them may not be written. */
export function isUnmet(error: unknown): boolean {
  return detailsOf(error).errno === OUT_OF_RANGE;
}

/**
 * Whether the database has refused the statement itself, so that it certainly did nothing. False when the connection, or the server, went
 * away: what was under way may have been done.
 */
export function isRefusal(error: unknown): boolean {
  const { errno } = detailsOf(error);
  // Connection exceptions, interventions of the operator, interruptions.
  return errno === TOO_LONG || (errno !== MAYBE_DONE && !/^(08|57|70|XX)/.test(sqlStateOf(error)));
}

/** What an error says of rows of other tables that refer to those that were to be deleted. Undefined for any other error. */
export function referenceIn(error: unknown): Reference | undefined {
  const { code = '', constraint, message } = detailsOf(error);
  if (!sqlStateOf(error).startsWith('23') && !code.startsWith('SQLITE_CONSTRAINT')) return undefined;
  return { constraint: constraint ?? /CONSTRAINT `([^`]+)`/.exec(message)?.[1] };
}
