import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { VisitOptionError } from '../../errors/visit.error.js';
import type { Settings } from '../server-rules.js';
import type { MissingSchema } from '../sql/schema-check.js';
import type { SqlAccess } from '../sql/sql.connection.js';
import { SqlVisitStore } from '../sql/sql-visit.store.js';
import { VisitSql, type SqlTable } from '../sql/visit.sql.js';
import { connectionOf } from './connections/connection-of.js';
import { familyOf } from './connections/family.js';
import { OwnTransactions } from './own-transactions.js';
import { migrationsFor } from './schema-check.js';
import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';
import { namesOf, type TableNames } from './visit.tables.js';

/** How long to wait for a pool that is being closed, in milliseconds, if there is no deadline. */
const LONGEST_FAREWELL = 10_000;

/**
 * Stores visits in the application's database, through a TypeORM data source: MySQL, MariaDB, PostgreSQL, SQLite.
 *
 * It uses plain SQL, created once from the metadata of the data source, so naming strategies, prefixes, schemas and
 * extended entities are respected. The data source must contain `...visitEntities`, or subclasses of them.
 */
export class TypeOrmVisitStore extends SqlVisitStore {
  protected override readonly staleIdsAtOnce: number = 100_000;
  readonly #owned: boolean;
  #deadline: number | undefined;
  #prepared: Prepared | undefined;

  constructor(
    readonly dataSource: DataSource,
    /** `owned`: the store has opened the data source and closes it. */
    { owned = false }: { readonly owned?: boolean } = {},
  ) {
    super();
    this.#owned = owned;
  }

  /** The size of the pool, by default 10. SQLite has one connection, for which nothing has to wait. */
  get connections(): number | undefined {
    const { poolSize, extra } = this.dataSource.options as {
      poolSize?: number;
      extra?: { connectionLimit?: number; max?: number };
    };
    if (familyOf(this.dataSource) === 'sqlite') return undefined;
    return extra?.connectionLimit ?? extra?.max ?? poolSize ?? 10;
  }

  /** See `VisitServer.setDeadline`. */
  override setDeadline(milliseconds: number): void {
    this.#deadline = milliseconds;
    this.#prepared?.connection.limit?.(milliseconds);
  }

  override async check(): Promise<void> {
    warnOfType(this.dataSource, await this.checkDatabase());
  }

  /** See `VisitServer.requireConnection`. @throws VisitOpenTransactionError */
  requireConnection(): void {
    this.#prepared?.ownTransactions?.refuse();
  }

  async close(): Promise<void> {
    this.#prepared?.ownTransactions?.close();
    if (!this.#owned || !this.dataSource.isInitialized) return;
    // A pool waits for connections that may never end, and fails for one that has ended already.
    const closed = this.dataSource.destroy().catch(() => {});
    await Promise.race([closed, sleep(this.#deadline ?? LONGEST_FAREWELL, undefined, { ref: false })]);
  }

  protected access(): Prepared {
    return (this.#prepared ??= prepare(this.dataSource, this.#deadline, this.connections));
  }

  protected remedyFor(missing: MissingSchema): Promise<string> {
    return migrationsFor(missing, this.dataSource, this.access().connection);
  }
}

/** The connection and the statements, created once from the metadata of the data source. */
interface Prepared extends SqlAccess {
  /** Only if the pool has one connection. */
  readonly ownTransactions: OwnTransactions | undefined;
}

function prepare(dataSource: DataSource, deadline: number | undefined, connections: number | undefined): Prepared {
  const connection = connectionOf(dataSource);
  if (!dataSource.isInitialized)
    throw new VisitOptionError('the data source is not initialized: await `dataSource.initialize()` first');
  const visit = namesOf(dataSource, Visit);
  const identity = namesOf(dataSource, VisitIdentity);
  const revocation = namesOf(dataSource, VisitRevocation);
  if (!visit || !identity || !revocation) {
    const missing = !visit ? 'Visit' : !identity ? 'VisitIdentity' : 'VisitRevocation';
    throw new VisitOptionError(
      `the data source does not know the entity ${missing}: add \`...visitEntities\` to its \`entities\``,
    );
  }
  if (deadline !== undefined) connection.limit?.(deadline);
  const ownTransactions = connections === 1 ? new OwnTransactions(dataSource) : undefined;
  const tables = { visit: tableOf(visit), identity: tableOf(identity), revocation: tableOf(revocation) };
  return { connection, sql: new VisitSql(connection.dialect, tables), ownTransactions };
}

function tableOf<E>({ path, columns }: TableNames<E>): SqlTable<keyof E & string> {
  return { path: path.split('.'), columns };
}

/** Logs a warning; visits work with both types. */
function warnOfType({ options: { type } }: DataSource, settings: Settings): void {
  const version = settings.get('version');
  if (version === undefined) return;
  const real = version.includes('MariaDB') ? 'mariadb' : 'mysql';
  if (type !== real) {
    new Logger('Visit').warn(
      `The data source has type "${type}" and its server is ${version}: set type "${real}", or TypeORM's ` +
        '`synchronize` alters columns at every start',
    );
  }
}
