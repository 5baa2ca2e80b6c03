import type { SqlConnection } from './sql.connection.js';
import { SCHEMA_VERSION } from '../visit.columns.js';
import type { VisitSql } from './visit.sql.js';

/** The missing tables or columns of this version of the library. */
export interface MissingSchema {
  /** The first table that is missing or lacks a column. */
  readonly table: string;
  /** The error of the database. */
  readonly error: Error;
  /** The last version of the schema that the tables have completely; 0: none. */
  readonly version: number;
}

/** Checks whether the tables have all columns. Undefined: they do. */
export async function missingSchema(connection: SqlConnection, sql: VisitSql): Promise<MissingSchema | undefined> {
  const missing = await missingIn(connection, sql, SCHEMA_VERSION);
  if (!missing) return undefined;
  let version = 0;
  while (version + 1 < SCHEMA_VERSION && !(await missingIn(connection, sql, version + 1))) version++;
  return { ...missing, version };
}

/** The first table that lacks columns of this version. */
async function missingIn(
  connection: SqlConnection,
  sql: VisitSql,
  version: number,
): Promise<Pick<MissingSchema, 'table' | 'error'> | undefined> {
  for (const { table, statement } of sql.probes(version)) {
    try {
      await connection.run(statement);
    } catch (error) {
      if (!connection.dialect.isMissing(error)) throw error;
      return { table, error: error as Error };
    }
  }
  return undefined;
}
