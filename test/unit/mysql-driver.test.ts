import { EventEmitter } from 'node:events';
import { expect, test } from 'vitest';
import { accessToPool } from '../../lib/store/sql/pool/driver-pool.js';
import type { SqlConnection } from '../../lib/store/sql/sql.connection.js';
import type { Statement } from '../../lib/store/sql/statement.js';

type Done = (error: Error | null, answer?: unknown) => void;

/**
 * Stands in for a connection of `mysql2` to a server that does not run here: MariaDB never says 1836, and says most of
 * the others only at the end of its process.
 */
class StandInConnection {
  isClosed = false;
  sent = 0;

  constructor(
    private readonly pool: StandInPool,
    private readonly error: Error | undefined,
  ) {}

  prepare(_query: object, done: Done): void {
    done(null);
  }

  execute(_query: object, done: Done): void {
    this.sent++;
    if (this.error) done(this.error);
    else done(null, { affectedRows: 1 });
  }

  unprepare(): void {}

  destroy(): void {
    this.isClosed = true;
  }

  release(): void {
    this.pool.free.push(this);
  }
}

/** Stands in for a pool of `mysql2`, whose first connection answers all statements with this error. */
class StandInPool extends EventEmitter {
  readonly config = { connectionLimit: 2, connectionConfig: {} };
  readonly opened: StandInConnection[] = [];
  readonly free: StandInConnection[] = [];

  constructor(private readonly error: Error) {
    super();
  }

  getConnection(done: (error: null, connection: StandInConnection) => void): void {
    const free = this.free.pop();
    const connection = free ?? new StandInConnection(this, this.opened.length === 0 ? this.error : undefined);
    if (!free) {
      this.opened.push(connection);
      this.emit('connection', connection);
    }
    done(null, connection);
  }
}

const WRITE: Statement = { sql: 'UPDATE t SET a = ?', params: [1] };
const AGAIN: Statement = { ...WRITE, isIdempotent: true };

function open(errno: number, sqlState: string): { pool: StandInPool; connection: SqlConnection; error: Error } {
  const error = Object.assign(new Error(`error ${errno}`), { errno, sqlState });
  const pool = new StandInPool(error);
  return { pool, connection: accessToPool('mysql', pool)!.connection, error };
}

const closed = ({ opened }: StandInPool): boolean[] => opened.map(({ isClosed }) => isClosed);

test.each([
  ['ER_OPTION_PREVENTS_STATEMENT', 1290, 'HY000'],
  ['ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION', 1792, '25006'],
  ['ER_READ_ONLY_MODE', 1836, 'HY000'],
  ['ER_UNKNOWN_COM_ERROR', 1047, '08S01'],
])(
  'B45: after %s (%i), the statement is executed on another connection, and the first one is closed',
  async (_name, errno, sqlState) => {
    const { pool, connection } = open(errno, sqlState);
    expect(await connection.run(WRITE)).toMatchObject({ affected: 1 });
    expect(pool.opened.map(({ sent }) => sent)).toEqual([1, 1]);
    expect(closed(pool)).toEqual([true, false]);
  },
);

test.each([
  ['ER_SERVER_SHUTDOWN', 1053, '08S01'],
  ['ER_NORMAL_SHUTDOWN', 1077, '08S01'],
  ['ER_SHUTDOWN_COMPLETE', 1079, '08S01'],
  ['ER_CONNECTION_KILLED', 1927, '70100'],
])(
  'B44: after %s (%i), the connection is closed, and only what may be executed twice is repeated',
  async (_name, errno, sqlState) => {
    const write = open(errno, sqlState);
    await expect(write.connection.run(WRITE)).rejects.toBe(write.error);
    expect(closed(write.pool)).toEqual([true]);
    const again = open(errno, sqlState);
    expect(await again.connection.run(AGAIN)).toMatchObject({ affected: 1 });
    expect(closed(again.pool)).toEqual([true, false]);
  },
);

test('B45: after another error (1062), the connection is used again', async () => {
  const { pool, connection, error } = open(1062, '23000');
  await expect(connection.run(AGAIN)).rejects.toBe(error);
  await expect(connection.run(AGAIN)).rejects.toBe(error);
  expect(closed(pool)).toEqual([false]);
});
