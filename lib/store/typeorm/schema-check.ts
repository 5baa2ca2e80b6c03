import type { DataSource } from 'typeorm';
import type { MissingSchema } from '../sql/schema-check.js';
import type { SqlConnection } from '../sql/sql.connection.js';
import { visitMigrations } from './migrations/index.js';

/** What to do if tables lack a column: the migrations to run, or that they have already run. */
export async function migrationsFor(
  { version }: MissingSchema,
  dataSource: DataSource,
  connection: SqlConnection,
): Promise<string> {
  const names = visitMigrations.slice(version).map((Migration) => new Migration().name);
  const recorded = await recordedIn(dataSource, connection);
  const done = names.filter((name) => recorded.has(name));
  return done.length > 0
    ? `${listOf(done)} was run on this database, and the tables have been changed since: compare them with the entities`
    : `run ${listOf(names)}: add \`...visitMigrations\` to \`migrations\` of the data source, and run ` +
        '`npx typeorm migration:run -d <file of the data source>` (or `dataSource.runMigrations()`, or ' +
        '`migrationsRun: true`) before this ' +
        'version of nest-visit starts';
}

/** The names of the migrations that TypeORM has recorded; none if it has no such table, as with `synchronize`. */
async function recordedIn(dataSource: DataSource, connection: SqlConnection): Promise<Set<string>> {
  const { migrationsTableName = 'migrations', ...options } = dataSource.options;
  const schema = 'schema' in options ? options.schema : undefined;
  const path = dataSource.driver.buildTableName(migrationsTableName, schema).split('.');
  const table = path.map((name) => connection.dialect.escape(name)).join('.');
  try {
    const { rows } = await connection.run({ sql: `SELECT name AS "name" FROM ${table}`, params: [] });
    return new Set(rows.map(({ name }) => String(name)));
  } catch (error) {
    if (!connection.dialect.isMissing(error)) throw error;
    return new Set();
  }
}

function listOf(names: readonly string[]): string {
  return `the migration${names.length === 1 ? '' : 's'} ${names.join(', ')}`;
}
