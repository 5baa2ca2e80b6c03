/** The properties of a driver's error. */
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

/** The driver's error within the error of a library: TypeORM and Drizzle wrap it, and Kysely passes it on. */
export function driverError(error: unknown): DriverError {
  const {
    driverError: wrapped,
    cause,
    query,
  } = (error ?? {}) as { driverError?: DriverError; cause?: DriverError; query?: unknown };
  return wrapped ?? (query !== undefined && cause ? cause : ((error ?? { message: '' }) as DriverError));
}

/**
 * An error without a state is not from the server: the connection is broken. Names such as `EPIPE` are not states,
 * which contain digits.
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

/**
 * The properties in which drivers and libraries store a statement, its values, or the row that it would have created.
 */
const REVEALING = ['sql', 'query', 'parameters', 'params', 'args', 'detail', 'where', 'internalQuery'];

/**
 * The driver's error without values, which would write session data and hashes of keys to logs. `mysql2` adds the
 * statement with the values in its text, PostgreSQL the row that a constraint has refused, and Drizzle and TypeORM the
 * parameters.
 */
export function withoutValues(error: unknown): unknown {
  const said: unknown = driverError(error);
  if (!(said instanceof Error)) return said;
  if (REVEALING.every((name) => Reflect.deleteProperty(said, name))) return said;
  // `postgres` does not allow deleting the properties that it has added.
  const rest = Object.entries(said).filter(([name]) => !REVEALING.includes(name));
  return Object.assign(new Error(said.message), Object.fromEntries(rest), { stack: said.stack });
}
