import { driverError, sqlStateOf, type DriverError } from '../driver-error.js';
import type { Result, Statement } from '../statement.js';
import type { Fate, Pool, PoolDriver } from './connections.js';

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
  /** Executes what has been prepared with the same text, or prepares it. */
  execute?(query: MysqlQuery, done: (error: DriverError | null, answer: Answer) => void): unknown;
  prepare?(query: MysqlQuery, done: (error: DriverError | null) => void): unknown;
  /** Lets the server forget what has been prepared. */
  unprepare?(query: MysqlQuery): unknown;
}

type Preparing = Required<Pick<MysqlClient, 'prepare' | 'execute' | 'unprepare'>>;

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
  /** Errors of statements that were still being prepared. */
  private readonly unexecuted = new WeakSet<object>();

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
    const said = driverError(error);
    const { errno = 0, message } = said;
    if (USELESS.includes(errno)) return 'useless';
    if (message.includes('in closed state')) return 'unsent';
    if (!GOING.includes(errno) && !sqlStateOf(error).startsWith('08')) return 'fine';
    return this.unexecuted.has(said) ? 'unsent' : 'lost';
  }

  /**
   * All that have parameters, because without preparing them, the driver writes values into the text. A connection only
   * keeps those with a name: the server has room for a limited number.
   */
  prepared(connection: unknown, statement: Statement, generation: number): Promise<Result> | undefined {
    const client = connection as MysqlClient;
    const { sql, params, name } = statement;
    // The driver `mysql` does not have it.
    if (!client.execute || params.length === 0) return undefined;
    if (name === undefined) return this.preparedOnce(client as Preparing, queryOf(sql, params));
    // The driver stores prepared statements by their text.
    const query = queryOf(generation === 0 ? sql : `${sql} /* ${generation} */`, params);
    return new Promise((resolve, reject) => {
      client.execute!(query, (error, answer) => {
        if (error) reject(error);
        else resolve(resultOf(answer));
      });
    });
  }

  /** Lets the server forget the statement afterwards. Until it has been prepared, nothing has happened. */
  private preparedOnce(client: Preparing, query: MysqlQuery): Promise<Result> {
    return new Promise((resolve, reject) => {
      client.prepare(query, (reason) => {
        if (reason) {
          this.unexecuted.add(reason);
          reject(reason);
          return;
        }
        client.execute(query, (error, answer) => {
          if (!error?.fatal) forget(client, query);
          if (error) reject(error);
          else resolve(resultOf(answer));
        });
      });
    });
  }

  isUnprepared(error: unknown): boolean {
    return UNPREPARED.includes(driverError(error).errno ?? 0);
  }
}

/** A connection that is being closed refuses this by the event `error`, to which nobody may listen any more. */
function forget(client: Preparing, query: MysqlQuery): void {
  try {
    client.unprepare(query);
  } catch {
    // The server forgets the statement with the connection.
  }
}

export function queryOf(sql: string, values: readonly unknown[]): MysqlQuery {
  return { sql, values, rowsAsArray: false, nestTables: false };
}

export function resultOf(answer: Answer): Result {
  return Array.isArray(answer) ? { rows: answer, affected: 0 } : { rows: [], affected: answer.affectedRows };
}
