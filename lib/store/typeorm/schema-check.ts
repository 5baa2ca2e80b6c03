import type { DataSource } from 'typeorm';
import { VisitSchemaError } from '../../errors/visit.error.js';
import { SCHEMA_VERSION } from '../visit.columns.js';
import type { Dialect } from './dialects/dialect.js';
import { visitMigrations } from './migrations/index.js';
import type { VisitSql } from './visit.sql.js';

/**
 * Looks whether the tables have all columns. A column that is missing is told by the migration that brings it: that of the first version of
 * the schema that the tables do not have whole.
 *
 * @throws VisitSchemaError
 */
export async function checkSchema(dataSource: DataSource, dialect: Dialect, sql: VisitSql): Promise<void> {
  const missing = await missingIn(dialect, sql, SCHEMA_VERSION);
  if (!missing) return;
  let version = 0;
  while (version + 1 < SCHEMA_VERSION && !(await missingIn(dialect, sql, version + 1))) version++;
  const names = visitMigrations.slice(version).map((Migration) => new Migration().name);
  const recorded = await recordedIn(dataSource, dialect);
  const done = names.filter((name) => recorded.has(name));
  const what = `table "${missing.table}" is missing or lacks a column (${missing.error.message})`;
  const remedy =
    done.length > 0
      ? `${listOf(done)} was run on this database, and the tables have been changed since: compare them with the entities`
      : `run ${listOf(names)}: add \`...visitMigrations\` to \`migrations\` of the data source, and run ` +
        '`npx typeorm migration:run -d <file of the data source>` (or `dataSource.runMigrations()`, or `migrationsRun: true`) before this ' +
        'version of nest-visit starts';
  throw new VisitSchemaError(`${what}; ${remedy}`, { cause: missing.error });
}

/** The first table that lacks columns of this version, and what the database says of it. */
async function missingIn(dialect: Dialect, sql: VisitSql, version: number): Promise<{ table: string; error: Error } | undefined> {
  for (const { table, statement } of sql.probes(version)) {
    try {
      await dialect.run(statement);
    } catch (error) {
      if (!dialect.isSchemaError(error)) throw error;
      return { table, error: error as Error };
    }
  }
  return undefined;
}

/** The names of the migrations that TypeORM has noted; none where it has no such table, as with `synchronize`. */
async function recordedIn(dataSource: DataSource, dialect: Dialect): Promise<Set<string>> {
  const { migrationsTableName = 'migrations', ...options } = dataSource.options;
  const schema = 'schema' in options ? options.schema : undefined;
  const table = dialect.escape(dataSource.driver.buildTableName(migrationsTableName, schema));
  try {
    const { rows } = await dialect.run({ sql: `SELECT name AS "name" FROM ${table}`, params: [] });
    return new Set(rows.map(({ name }) => String(name)));
  } catch (error) {
    if (!dialect.isSchemaError(error)) throw error;
    return new Set();
  }
}

function listOf(names: readonly string[]): string {
  return `the migration${names.length === 1 ? '' : 's'} ${names.join(', ')}`;
}
