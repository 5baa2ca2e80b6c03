import { driverError, sqlStateOf, type DriverError } from '../driver-error.js';
import type { Result } from '../statement.js';
import type { Fate, Pool, PoolDriver, PreparedStatement } from './connections.js';

/**
 * ER_UNKNOWN_STMT_HANDLER, ER_UNSUPPORTED_PS, ER_MAX_PREPARED_STMT_COUNT_REACHED, ER_NEED_REPREPARE: a proxy in between
 * does not support prepared statements, the server has no room for more of them, or the table was altered.
 */
const UNPREPARED = [1243, 1295, 1461, 1615];

/**
 * ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE: the server has become
 * read-only. ER_UNKNOWN_COM_ERROR: a Galera node has left its cluster.
 */
const USELESS = [1290, 1792, 1836, 1047];

/** ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_SHUTDOWN_COMPLETE, ER_CONNECTION_KILLED. */
const GOING = [1053, 1077, 1079, 1927];

type Answer = Record<string, unknown>[] | { affectedRows: number };

/** The part of a connection of `mysql2` that is used. */
export interface MysqlClient {
  destroy(): void;
  readonly stream?: { destroy?(): void };
  execute?(query: MysqlQuery, done: (error: DriverError | null, answer: Answer) => void): unknown;
}

/** The format of rows, whatever the options of the pool. */
export interface MysqlQuery {
  readonly sql: string;
  readonly values: readonly unknown[];
  readonly rowsAsArray?: false;
  readonly nestTables?: false;
}

interface MysqlPool extends Pool {
  readonly config?: { readonly connectionConfig?: { connectTimeout?: number } };
}

/** `mysql2`, and `mysql`. */
export class MysqlDriver implements PoolDriver {
  readonly opened = 'connection';

  limitConnects({ config }: MysqlPool, milliseconds: number): void {
    const options = config?.connectionConfig;
    if (options) options.connectTimeout = Math.min(options.connectTimeout || Infinity, milliseconds);
  }

  close(connection: unknown, abandon: () => void): void {
    const { stream } = connection as MysqlClient;
    (connection as MysqlClient).destroy();
    // Otherwise, the socket would wait for the other side to close.
    stream?.destroy?.();
    abandon();
  }

  fateOf(error: unknown): Fate {
    const { errno = 0, message } = driverError(error);
    if (USELESS.includes(errno)) return 'useless';
    if (message.includes('in closed state')) return 'unsent';
    return GOING.includes(errno) || sqlStateOf(error).startsWith('08') ? 'lost' : 'fine';
  }

  prepared(connection: unknown, { sql, params }: PreparedStatement, generation: number): Promise<Result> | undefined {
    const client = connection as MysqlClient;
    // The driver `mysql` does not have it.
    if (!client.execute) return undefined;
    // The driver stores prepared statements by their text.
    const text = generation === 0 ? sql : `${sql} /* ${generation} */`;
    return new Promise((resolve, reject) => {
      client.execute!({ sql: text, values: params, rowsAsArray: false, nestTables: false }, (error, answer) => {
        if (error) reject(error);
        else resolve(resultOf(answer));
      });
    });
  }

  isUnprepared(error: unknown): boolean {
    return UNPREPARED.includes(driverError(error).errno ?? 0);
  }
}

export function resultOf(answer: Answer): Result {
  return Array.isArray(answer) ? { rows: answer, affected: 0 } : { rows: [], affected: answer.affectedRows };
}
