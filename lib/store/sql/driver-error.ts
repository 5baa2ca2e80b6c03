/** What drivers tell about an error. */
export interface DriverError {
  readonly code?: string;
  readonly errno?: number;
  /** Of a socket. */
  readonly syscall?: string;
  readonly sqlState?: string;
  /** Of `mysql2`: the connection has ended. */
  readonly fatal?: boolean;
  /** Of `pg`. */
  readonly constraint?: string;
  /** Of `postgres`. */
  readonly constraint_name?: string;
  readonly message: string;
}

/** The driver's error in what a library has made of it: TypeORM and Drizzle wrap it, Kysely hands it on. */
export function driverError(error: unknown): DriverError {
  const {
    driverError: wrapped,
    cause,
    query,
  } = (error ?? {}) as { driverError?: DriverError; cause?: DriverError; query?: unknown };
  return wrapped ?? (query !== undefined && cause ? cause : ((error ?? { message: '' }) as DriverError));
}

/**
 * What has no state does not come from the server: the connection is gone. Names of errors such as `EPIPE` are no
 * states, which have digits.
 */
export function sqlStateOf(error: unknown): string {
  const { sqlState, code = '' } = driverError(error);
  return sqlState ?? (/^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : code.startsWith('SQLITE_') ? 'HY000' : '08000');
}

/**
 * Whether the socket could not take all of a statement, so that the server cannot have executed it. A server that finds
 * a statement too long closes the connection while the rest of it is being sent: its error may never arrive.
 */
export function isUnsent(error: unknown): boolean {
  return driverError(error).syscall === 'write';
}

/** Under which drivers and libraries keep a statement, its values, or the row that it would have made. */
const REVEALING = ['sql', 'query', 'parameters', 'params', 'args', 'detail', 'where', 'internalQuery'];

/**
 * The driver's error, without values: session data and hashes of keys would get into logs with them. `mysql2` tells the
 * statement with the values in its text, PostgreSQL the row that a constraint has refused, Drizzle and TypeORM the
 * parameters.
 */
export function withoutValues(error: unknown): unknown {
  const said: unknown = driverError(error);
  if (!(said instanceof Error)) return said;
  if (REVEALING.every((name) => Reflect.deleteProperty(said, name))) return said;
  // `postgres` lets nobody delete what it has added.
  const rest = Object.entries(said).filter(([name]) => !REVEALING.includes(name));
  return Object.assign(new Error(said.message), Object.fromEntries(rest), { stack: said.stack });
}
