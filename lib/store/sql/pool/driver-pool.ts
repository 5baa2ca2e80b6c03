import { MysqlDialect } from '../mysql.dialect.js';
import { PostgresDialect } from '../postgres.dialect.js';
import type { SqlConnection } from '../sql.connection.js';
import type { SqlFamily } from '../sql.dialect.js';
import type { Statement } from '../statement.js';
import { MysqlDriver } from './mysql.driver.js';
import { MysqlLender, type Mysql2Pool } from './mysql.lender.js';
import { PooledConnection } from './pooled.connection.js';
import { PostgresDriver } from './postgres.driver.js';
import { PostgresLender, type PgPool } from './postgres.lender.js';

/** The access to a driver's pool. */
export interface PooledAccess {
  readonly connection: SqlConnection;
  /** The maximum number of connections in the pool. */
  readonly connections: number;
}

/** The default of the option `max` of `pg`. */
const USUAL_POOL = 10;

/**
 * The application's own pool, of `pg` or `mysql2`, if it is one: statements are prepared, and broken connections are
 * closed. A SQL library that uses the pool offers neither.
 *
 * @param onStatement called for each statement that is sent
 * @returns undefined for any other pool
 */
export function accessToPool(
  family: SqlFamily,
  pool: unknown,
  onStatement?: (statement: Statement) => void,
): PooledAccess | undefined {
  if (family === 'postgres' && isPgPool(pool)) {
    const dialect = new PostgresDialect();
    const lender = new PostgresLender(pool, dialect, onStatement);
    const connection = new PooledConnection(dialect, new PostgresDriver(dialect), lender);
    return { connection, connections: pool.options.max ?? USUAL_POOL };
  }
  const mysql = family === 'mysql' ? mysql2PoolOf(pool) : undefined;
  if (!mysql) return undefined;
  const dialect = new MysqlDialect({ prepares: true });
  const connection = new PooledConnection(dialect, new MysqlDriver(), new MysqlLender(mysql, dialect, onStatement));
  return { connection, connections: mysql.config.connectionLimit };
}

function isPgPool(pool: unknown): pool is PgPool {
  const { connect, on, options, totalCount } = (pool ?? {}) as Partial<Record<string, unknown>>;
  return (
    typeof connect === 'function' &&
    typeof on === 'function' &&
    typeof options === 'object' &&
    typeof totalCount === 'number'
  );
}

/** The pool that a pool of `mysql2/promise` wraps. */
function mysql2PoolOf(pool: unknown): Mysql2Pool | undefined {
  const one = (pool as { readonly pool?: unknown } | null | undefined)?.pool ?? pool;
  const { getConnection, config } = (one ?? {}) as Partial<Mysql2Pool>;
  return typeof getConnection === 'function' && config?.connectionConfig ? (one as Mysql2Pool) : undefined;
}
