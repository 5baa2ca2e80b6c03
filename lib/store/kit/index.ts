/**
 * What an author of a store needs beside `VisitStore`: `docs/writing-a-store.md` shows it at work.
 *
 * @module nest-visit/store-kit
 */

export {
  columnNameOf,
  IDENTITY_COLUMNS,
  IDENTITY_FIELDS,
  listed,
  LISTED_COLUMNS,
  LOCK_COLUMNS,
  namesIn,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type Column,
  type ColumnKind,
  type ColumnKinds,
  type IdentityColumn,
  type LockColumn,
  type RevocationColumn,
  type RowOf,
  type VisitColumn,
} from '../visit.columns.js';
export { listedReader, recordReader, rowWriter, type Readers, type RowLayout, type Writers } from '../record.rows.js';
export {
  byAccess,
  copyOf,
  created,
  emptied,
  ended,
  isHeldBy,
  isLive,
  isStale,
  isUnwiped,
  listedCopyOf,
  locked,
  pageOf,
  refusalOf,
  rekeyed,
  rekeyGuard,
  saved,
  touched,
  verdictOn,
  type Lease,
  type NewVisit,
  type Transition,
} from '../visit.record.js';
export {
  byId,
  chunks,
  EVERYBODY,
  MAX_BYTES,
  MAX_ROWS,
  MAX_UNEXPLAINED,
  NO_ID,
  TableVisitStore,
  unexplainedRefusal,
  userHashOf,
  type Reference,
  type StalePlace,
  type VisitToEnd,
} from '../table-visit.store.js';
export { askEach, Failed, isFailed, type Asking, type Outcome } from '../ask-each.js';
export { inParallel, saveEach, type SavingEach, type StoredVisit } from '../save-each.js';
export { retryOnConflict } from '../retry-on-conflict.js';
export { toBuffer, toConfidential, toMysqlValue } from '../sql.values.js';
export { driverError, sqlStateOf, withoutValues, type DriverError } from '../sql/driver-error.js';
export { MysqlDialect } from '../sql/mysql.dialect.js';
export { PostgresDialect } from '../sql/postgres.dialect.js';
export { type MissingSchema } from '../sql/schema-check.js';
export { SqlDialect, type SqlFamily } from '../sql/sql.dialect.js';
export { type SqlAccess, type SqlConnection } from '../sql/sql.connection.js';
export { SqlVisitStore } from '../sql/sql-visit.store.js';
export { SqliteConnection, type SqliteDatabase } from '../sql/sqlite.connection.js';
export { SqliteDialect } from '../sql/sqlite.dialect.js';
export { runSteps, type Result, type Statement, type Step } from '../sql/statement.js';
export { TABLE_COLUMNS, VisitSql, visitTablesIn, type SqlTable, type VisitTables } from '../sql/visit.sql.js';
