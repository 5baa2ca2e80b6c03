import { VisitOptionError } from '../../errors/visit.error.js';
import { accessToPool } from '../sql/pool/driver-pool.js';
import type { SqlAccess } from '../sql/sql.connection.js';
import { SqlVisitStore } from '../sql/sql-visit.store.js';
import { VisitSql, visitTablesIn } from '../sql/visit.sql.js';
import { connectionOf, type AnyKysely } from './kysely.connection.js';
import { dialectOf, type KyselyVisitPlace } from './kysely.place.js';

/** The default pool size of `pg` and `mysql2`. */
const USUAL_CONNECTIONS = 10;

/**
 * The methods that the store calls. Kysely is an optional peer dependency of any version, so that npm installs this
 * package beside all of them.
 */
const USED = ['executeQuery', 'withoutPlugins', 'transaction', 'connection'] as const;

/** Options of `KyselyVisitStore`. */
export interface KyselyVisitStoreOptions extends KyselyVisitPlace {
  /** The application's Kysely instance, not a transaction. It is not destroyed with the store. */
  readonly db: AnyKysely;
  /**
   * The pool of `pg` or `mysql2` that the dialect of `db` uses, which Kysely does not expose. With it, statements are
   * prepared, and broken connections are closed, which is not possible through Kysely. The statements of the store then
   * bypass Kysely and its `log`. @default none: all statements are sent through Kysely
   */
  readonly pool?: object;
  /**
   * The number of connections in the pool, which Kysely does not expose: 1 or more. For SQLite, it is always one.
   * @default that of `pool`, or 10
   */
  readonly connections?: number;
}

/**
 * Stores visits in the application's database, through its Kysely instance: PostgreSQL, MySQL, MariaDB, SQLite.
 * `createVisitTables` creates the tables. They are the same as those of `TypeOrmVisitStore`, and both stores can use
 * them at the same time.
 *
 * @throws VisitOptionError if `db` is a transaction or not an instance of Kysely, or if its database is not supported
 */
export class KyselyVisitStore extends SqlVisitStore {
  /** The number of concurrent calls; undefined: no limit, because they run one after the other. */
  readonly connections: number | undefined;
  readonly #access: SqlAccess;

  constructor({ db, schema, dialect, pool, connections }: KyselyVisitStoreOptions) {
    super();
    if (typeof db?.getExecutor !== 'function') throw new VisitOptionError('option "db" must be an instance of Kysely');
    const missing = USED.filter((name) => typeof db[name] !== 'function');
    if (missing.length > 0) {
      throw new VisitOptionError(
        `the installed kysely is too old: its instances have no ${missing.join(', ')}; install 0.24 or later`,
      );
    }
    if (db.isTransaction)
      throw new VisitOptionError('option "db" must be the Kysely instance itself, not a transaction');
    if (connections !== undefined && (!Number.isInteger(connections) || connections < 1)) {
      throw new VisitOptionError(
        `option "connections" must be a whole number of at least 1, got ${String(connections)}`,
      );
    }
    const used = dialectOf(db, dialect);
    const pooled = accessToPool(used.family, pool);
    if (pool !== undefined && !pooled) {
      throw new VisitOptionError(
        'option "pool" must be the pool of `pg` or `mysql2` that the dialect of "db" uses; omit it for other drivers',
      );
    }
    const connection = pooled?.connection ?? connectionOf(db, used);
    const inPool = connections ?? pooled?.connections ?? USUAL_CONNECTIONS;
    this.connections = used.family === 'sqlite' ? undefined : inPool;
    this.#access = { connection, sql: new VisitSql(connection.dialect, visitTablesIn(schema)) };
  }

  async close(): Promise<void> {}

  protected access(): SqlAccess {
    return this.#access;
  }

  protected remedyFor(): string {
    return (
      'add a migration to those of the application that exports `createVisitTables` of nest-visit/kysely as `up`, ' +
      'and run it'
    );
  }
}
