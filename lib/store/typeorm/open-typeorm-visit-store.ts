import { DataSource, type DataSourceOptions } from 'typeorm';
import { VisitError } from '../../errors/visit.error.js';
import { USUAL_DEADLINE, withDeadline } from '../deadline.js';
import { familyOf } from './connections/family.js';
import { notInstalled } from '../optional-package.js';
import { requireFamily } from './connections/connection-of.js';
import { visitEntities } from './entities.js';
import { visitMigrations } from './migrations/index.js';
import { changeTables } from './schema-turn.js';
import { TypeOrmVisitStore } from './typeorm-visit.store.js';
import { isSameOrSubclass } from './visit.tables.js';

/**
 * Opens a store on an open data source, which is not closed with the store; or on a new one created from options, which
 * contains the entities and migrations of the library and is closed with the store. Tables are neither created nor
 * changed, unless the options contain `migrationsRun` or `synchronize`; then one process does so at a time.
 *
 * @param how.deadline how long the database may take for an answer, in milliseconds
 * @param how.owned whether an open data source is closed with the store
 * @throws VisitError `VISIT_STORE_UNAVAILABLE` if it cannot be reached or does not answer
 */
export async function openTypeOrmVisitStore(
  source: DataSource | DataSourceOptions,
  { deadline = USUAL_DEADLINE, owned = false }: { readonly deadline?: number; readonly owned?: boolean } = {},
): Promise<TypeOrmVisitStore> {
  // Not `instanceof`: an application may have a second copy of TypeORM.
  if ('createQueryRunner' in source) return new TypeOrmVisitStore(source, { owned });
  requireFamily(source);
  try {
    // The constructor loads the package of the driver.
    const dataSource = new DataSource(withVisits(withConnectLimit(source, deadline)));
    const opening = dataSource.initialize();
    try {
      await withDeadline(opening, deadline);
      await makeTables(dataSource, source, deadline);
    } catch (error) {
      // Not awaited, because it may hang.
      opening.then(() => dataSource.destroy()).catch(() => {});
      throw error;
    }
    liftConnectLimit(dataSource, source);
    return new TypeOrmVisitStore(dataSource, { owned: true });
  } catch (error) {
    throw connectionError(source, error);
  }
}

/** Does what TypeORM does at the end of `initialize()`, in the same order. */
async function makeTables(dataSource: DataSource, options: DataSourceOptions, deadline: number): Promise<void> {
  const { dropSchema, migrationsRun, migrationsTransactionMode, synchronize } = options;
  if (!dropSchema && !migrationsRun && !synchronize) return;
  await changeTables(options, deadline, async () => {
    if (dropSchema) await dataSource.dropDatabase();
    if (migrationsRun) await dataSource.runMigrations({ transaction: migrationsTransactionMode });
    if (synchronize) await dataSource.synchronize();
  });
}

function withVisits(options: DataSourceOptions): DataSourceOptions {
  const entities = listOf(options.entities);
  const migrations = listOf(options.migrations);
  const missing = visitEntities.filter((entity) => !entities.some((one) => isSameOrSubclass(one, entity)));
  return {
    ...options,
    entities: [...entities, ...missing],
    migrations: [...migrations, ...visitMigrations.filter((migration) => !migrations.includes(migration))],
    migrationsRun: false,
    synchronize: false,
    dropSchema: false,
  };
}

/**
 * A driver may wait forever for a server that accepts connections and does not answer. The library stops waiting
 * earlier; this limit ends the driver's attempt.
 */
function withConnectLimit(options: DataSourceOptions, deadline: number): DataSourceOptions {
  const name = { mysql: 'connectTimeout', postgres: 'connectTimeoutMS', sqlite: undefined }[familyOf({ options })!];
  return name === undefined ? options : { [name]: 2 * deadline, ...options };
}

/** For PostgreSQL, where it would also limit how long a call waits for a connection that is in use. */
function liftConnectLimit({ driver }: DataSource, { type, ...given }: DataSourceOptions): void {
  if (type !== 'postgres' || 'connectTimeoutMS' in given) return;
  const { connectionTimeoutMillis } = (given.extra ?? {}) as { connectionTimeoutMillis?: number };
  const { master, slaves = [] } = driver as unknown as { master?: Limited; slaves?: Limited[] };
  for (const pool of master ? [master, ...slaves] : slaves) {
    if (pool.options) pool.options.connectionTimeoutMillis = connectionTimeoutMillis;
  }
}

/** A pool of `pg`. */
interface Limited {
  readonly options?: { connectionTimeoutMillis: number | undefined };
}

/** TypeORM accepts lists as arrays or as objects, such as the namespace of `import * as entities`. */
function listOf<T>(mixed: T[] | Record<string, T> | undefined): T[] {
  return Object.values(mixed ?? []);
}

/** The package of the driver; TypeORM itself names one that is no longer maintained. */
const PACKAGES: Readonly<Partial<Record<DataSourceOptions['type'], string>>> = {
  mysql: 'mysql2',
  mariadb: 'mysql2',
  postgres: 'pg',
  'better-sqlite3': 'better-sqlite3',
};

function connectionError(options: DataSourceOptions, cause: unknown): Error {
  if (cause instanceof VisitError) return cause;
  const { type } = options;
  const driver = PACKAGES[type];
  if (driver && (cause as Error | null)?.name === 'DriverPackageNotInstalledError') {
    return notInstalled(`a data source of type "${type}"`, driver);
  }
  const { url, host, port, database } = options as { url?: string; host?: string; port?: number; database?: unknown };
  const given = typeof url === 'string' && URL.canParse(url) ? new URL(url) : undefined;
  const place = given
    ? `${given.host}${given.pathname}`
    : [host && `${host}:${port ?? 'default port'}`, database].filter(Boolean).join('/');
  let text = `cannot open the data source of type "${type}"${place ? ` at ${place}` : ''}: ${messageOf(cause)}`;
  for (const secret of [url, given?.password, decoded(given?.password), ...secretsIn(options)]) {
    if (secret) text = text.replaceAll(secret, '***');
  }
  return new VisitError('VISIT_STORE_UNAVAILABLE', text, { cause });
}

/** All passwords in the options, including those of replication servers and certificates. */
function secretsIn(options: object, depth = 0): string[] {
  return Object.entries(options).flatMap(([name, value]: [string, unknown]) => {
    if (typeof value === 'string') return /pass|secret|^key$|^url$/i.test(name) ? [value] : [];
    const isMore =
      typeof value === 'object' && value !== null && ['replication', 'master', 'slaves', 'extra', 'ssl'].includes(name);
    if (!isMore || depth > 3) return [];
    return (Array.isArray(value) ? (value as object[]) : [value]).flatMap((one) => secretsIn(one, depth + 1));
  });
}

function decoded(part = ''): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A refused connection to a name with several addresses is an AggregateError, whose own message is empty. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError && !error.message) return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message || error.name : String(error);
}
