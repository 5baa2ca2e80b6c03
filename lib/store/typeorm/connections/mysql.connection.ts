import type { DataSource, QueryRunner } from 'typeorm';
import { driverError, sqlStateOf, type DriverError } from '../../sql/driver-error.js';
import { MysqlDialect } from '../../sql/mysql.dialect.js';
import type { Result } from '../../sql/statement.js';
import type { ConnectionDriver, Fate, Pool } from './connections.js';
import { PooledConnection, type PreparedStatement } from './pooled.connection.js';

/**
 * ER_UNKNOWN_STMT_HANDLER, ER_UNSUPPORTED_PS, ER_MAX_PREPARED_STMT_COUNT_REACHED, ER_NEED_REPREPARE: a proxy between us
 * and the server does not know prepared statements, the server has no room for more of them, or the table has been
 * altered.
 */
const UNPREPARED = [1243, 1295, 1461, 1615];

/**
 * ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE: the server has become one
 * that can only be read. ER_UNKNOWN_COM_ERROR, by which a node of Galera says that it has left its cluster.
 */
const USELESS = [1290, 1792, 1836, 1047];

/** ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_SHUTDOWN_COMPLETE, ER_CONNECTION_KILLED. */
const GOING = [1053, 1077, 1079, 1927];

/** The part of a connection of `mysql2` that is used here. */
interface Client {
  destroy(): void;
  readonly stream?: { destroy?(): void };
  execute?(
    sql: string,
    params: readonly unknown[],
    done: (error: DriverError | null, answer: Record<string, unknown>[] | { affectedRows: number }) => void,
  ): unknown;
}

interface MysqlPool extends Pool {
  readonly config?: { readonly connectionConfig?: { connectTimeout?: number } };
}

class MysqlConnections implements ConnectionDriver<MysqlPool> {
  readonly opened = 'connection';

  constructor(private readonly dataSource: DataSource) {}

  // Those of a cluster of pools come and go.
  pools(): readonly MysqlPool[] {
    const { pool } = this.dataSource.driver as unknown as { pool?: MysqlPool };
    return pool ? [pool] : [];
  }

  limitConnects({ config }: MysqlPool, milliseconds: number): void {
    const options = config?.connectionConfig;
    if (options) options.connectTimeout = Math.min(options.connectTimeout || Infinity, milliseconds);
  }

  discard(queryRunner: QueryRunner, connection: unknown): void {
    const { stream } = connection as Client;
    (connection as Client).destroy();
    // Without it, the socket waits for a farewell of the other side.
    stream?.destroy?.();
    void queryRunner.release();
  }

  fateOf(error: unknown): Fate {
    const { errno = 0, message } = driverError(error);
    if (USELESS.includes(errno)) return 'useless';
    if (message.includes('in closed state')) return 'unsent';
    return GOING.includes(errno) || sqlStateOf(error).startsWith('08') ? 'lost' : 'fine';
  }
}

/** MySQL and MariaDB. */
export class MysqlConnection extends PooledConnection {
  readonly dialect = new MysqlDialect({ prepares: true });
  // The usual REPEATABLE READ locks the gaps between rows too, and inserts of others run into them.
  protected override readonly isolation = 'READ COMMITTED';

  protected driver(dataSource: DataSource): ConnectionDriver {
    return new MysqlConnections(dataSource);
  }

  protected prepared(
    connection: unknown,
    { sql, params }: PreparedStatement,
    generation: number,
  ): Promise<Result> | undefined {
    const client = connection as Client;
    // The driver `mysql` has none.
    if (!client.execute) return undefined;
    // The driver keeps what it has prepared by its text.
    const text = generation === 0 ? sql : `${sql} /* ${generation} */`;
    return new Promise((resolve, reject) => {
      client.execute!(text, params, (error, answer) => {
        if (error) reject(error);
        else if (Array.isArray(answer)) resolve({ rows: answer, affected: 0 });
        else resolve({ rows: [], affected: answer.affectedRows });
      });
    });
  }

  protected isUnprepared({ errno = 0 }: DriverError): boolean {
    return UNPREPARED.includes(errno);
  }
}
