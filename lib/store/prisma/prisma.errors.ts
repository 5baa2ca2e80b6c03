/** What a driver adapter tells about an error. */
interface AdapterError {
  readonly cause?: {
    readonly kind?: string;
    readonly code?: number | string;
    readonly originalCode?: string;
    readonly originalMessage?: string;
    readonly constraint?: { readonly index?: string };
  };
}

/** What Prisma makes of it; an error from the end of a transaction may come as it was. */
interface PrismaError extends AdapterError {
  readonly name?: string;
  readonly code?: string;
  readonly meta?: { readonly driverAdapterError?: AdapterError };
}

/** The code that the server itself gave to an error; empty if no server did. */
export function serverCodeOf(error: unknown): string {
  const { cause: own, meta } = (error ?? {}) as PrismaError;
  const cause = meta?.driverAdapterError?.cause ?? own;
  return String(cause?.originalCode ?? cause?.code ?? '');
}

/**
 * ER_LOCK_WAIT_TIMEOUT, ER_CHECKREAD (MariaDB 11.6 and later, when a snapshot is no longer current),
 * ER_TRANSACTION_ROLLBACK_DURING_COMMIT (group replication of MySQL): Prisma has no code of its own for them.
 */
const IN_THE_WAY: readonly unknown[] = [1205, 1020, 3101];

/**
 * Whether the database undid everything because others were in the way (a deadlock, above all), so that the same can be
 * tried again.
 */
export function isTransient(error: unknown): boolean {
  const { code, cause: own, meta } = (error ?? {}) as PrismaError;
  const cause = meta?.driverAdapterError?.cause ?? own;
  return (
    code === 'P2034' ||
    cause?.kind === 'TransactionWriteConflict' ||
    (cause?.kind === 'mysql' && IN_THE_WAY.includes(cause.code))
  );
}

/** Whether a table, a column, or a field of a model is not there. */
export function isMissing(error: unknown): boolean {
  const { name, code } = (error ?? {}) as PrismaError;
  return code === 'P2021' || code === 'P2022' || name === 'PrismaClientValidationError';
}

/**
 * What an error says of rows that refer to those that were to be deleted, by a foreign key that restricts (P2003), or
 * by a relation that Prisma itself looks after (P2014). Undefined for any other error.
 */
export function referenceIn(error: unknown): { readonly constraint: string | undefined } | undefined {
  const { code, cause: own, meta } = (error ?? {}) as PrismaError;
  if (code !== 'P2003' && code !== 'P2014' && own?.kind !== 'ForeignKeyConstraintViolation') return undefined;
  const { constraint, originalMessage = '' } = meta?.driverAdapterError?.cause ?? own ?? {};
  return { constraint: constraint?.index ?? /CONSTRAINT `([^`]+)`/.exec(originalMessage)?.[1] };
}
