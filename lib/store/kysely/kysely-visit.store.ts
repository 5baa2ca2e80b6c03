import { VisitOptionError } from '../../errors/visit.error.js';
import { accessToPool } from '../sql/pool/driver-pool.js';
import type { SqlAccess } from '../sql/sql.connection.js';
import { SqlVisitStore } from '../sql/sql-visit.store.js';
import { VisitSql, visitTablesIn } from '../sql/visit.sql.js';
import { connectionOf, type AnyKysely } from './kysely.connection.js';
import { dialectOf, type KyselyVisitPlace } from './kysely.place.js';

/** The size of a pool, by default, of `pg` and of `mysql2`. */
const USUAL_CONNECTIONS = 10;

/**
 * What the store calls. Kysely is an optional peer of any version, so that npm installs the package beside all of them.
 */
const USED = ['executeQuery', 'withoutPlugins', 'transaction', 'connection'] as const;

/** What `KyselyVisitStore` is made of. */
export interface KyselyVisitStoreOptions extends KyselyVisitPlace {
  /** The application's own instance; no transaction. It is not destroyed with the store. */
  readonly db: AnyKysely;
  /**
   * The pool of `pg` or `mysql2` that the dialect of `db` was given. Kysely does not hand it out; with it, statements are
   * prepared, and connections that lead nowhere are closed, which Kysely offers no way to. Statements of visits then do
   * not pass through Kysely, nor its `log`. @default none: all goes through Kysely
   */
  readonly pool?: object;
  /**
   * How many connections the pool has, which Kysely does not tell: 1 or more. SQLite has one, whatever is said.
   *
   * @default those of `pool`, or else 10
   */
  readonly connections?: number;
}

/**
 * Visits in the application's own database, through its own Kysely instance: PostgreSQL, MySQL, MariaDB, SQLite.
 * `createVisitTables` makes the tables, which are those of `TypeOrmVisitStore`: both may use them at the same time.
 *
 * @throws VisitOptionError when `db` is a transaction or no instance of Kysely, or its database is not supported
 */
export class KyselyVisitStore extends SqlVisitStore {
  /** How many calls it can have under way at once; undefined: any number, one after the other. */
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
        'option "pool" must be the pool of `pg` or `mysql2` that the dialect of "db" was given; leave it out for others',
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
