import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { DataSource, type DataSourceOptions, type QueryRunner } from 'typeorm';
import { withDeadline } from '../deadline.js';
import { driverError } from '../sql/driver-error.js';
import type { SqlFamily } from '../sql/sql.dialect.js';
import { familyOf } from './connections/family.js';

/**
 * How long a process waits for others that change the tables, in milliseconds. Their own migrations may take some time.
 */
const LONGEST_WAIT = 600_000;
const LONGEST_PAUSE = 250;

/** The name of the lock for changes of tables in the same database. */
const NAME = 'nest-visit:tables';

/**
 * The lock of a connection. `take` does not wait for long, and the lock ends with its connection, so nothing remains of
 * a process that has died.
 */
interface Lock {
  /** Runs before `take`. */
  readonly begin?: (connection: QueryRunner) => Promise<void>;
  /** Selects `taken`. */
  readonly take: string;
}

const LOCKS: Readonly<Record<'mysql' | 'postgres', Lock>> = {
  // One name for all databases of the server, of at most 64 characters.
  mysql: { take: `SELECT GET_LOCK(CONCAT('${NAME}:', MD5(COALESCE(DATABASE(), ''))), 0) AS taken` },
  // In a transaction: poolers that give each one another connection keep it together.
  postgres: {
    begin: (connection) => connection.startTransaction(),
    take: `SELECT CASE WHEN pg_try_advisory_xact_lock(${numberOf(NAME)}) THEN 1 ELSE 0 END AS taken`,
  },
};

/**
 * ER_SP_DOES_NOT_EXIST, ER_NOT_SUPPORTED_YET, ER_UNKNOWN_ERROR (by which a cluster refuses `GET_LOCK`);
 * undefined_function, feature_not_supported: a server that only speaks as MySQL or PostgreSQL, and has no such locks.
 */
const UNKNOWN = [1305, 1235, 1105, '42883', '0A000'];

/**
 * Changes the tables while no other process does. Otherwise several processes that start on an empty database would
 * create the same tables, and all but one would fail. The lock has its own connection, which also shows whether the
 * database still answers; the duration of the work is not limited.
 *
 * @param deadline how long an answer may take, in milliseconds
 */
export async function changeTables(
  options: DataSourceOptions,
  deadline: number,
  work: () => Promise<void>,
): Promise<void> {
  const family = familyOf({ options });
  if (!family || family === 'sqlite') return work();
  const guard = new DataSource(alone(options));
  const opening = guard.initialize();
  try {
    await withDeadline(opening, deadline);
    const connection = guard.createQueryRunner();
    await take(connection, LOCKS[family], deadline);
    await whileAnswering(work(), () => connection.query('SELECT 1'), deadline);
  } finally {
    void opening.then(() => guard.destroy()).catch(() => {});
  }
}

/**
 * The same inside a migration that was started without this lock: a later process finds what the first one has created.
 * If there is no such lock, or no transaction on PostgreSQL, it runs without one.
 */
export async function migrateAlone(
  connection: QueryRunner,
  family: SqlFamily,
  work: () => Promise<void>,
): Promise<void> {
  if (family === 'postgres' && connection.isTransactionActive) {
    const none = 'feature_not_supported OR undefined_function';
    const lock = `PERFORM pg_advisory_xact_lock(${numberOf(`${NAME}:migration`)})`;
    // An error would end the transaction.
    await connection.query(`DO $$ BEGIN ${lock}; EXCEPTION WHEN ${none} THEN NULL; END $$`);
  }
  if (family !== 'mysql') return work();
  const name = `CONCAT('${NAME}:migration:', MD5(COALESCE(DATABASE(), '')))`;
  await connection.query(`SELECT GET_LOCK(${name}, ${LONGEST_WAIT / 1000})`).catch(() => {});
  try {
    await work();
  } finally {
    await connection.query(`SELECT RELEASE_LOCK(${name})`).catch(() => {});
  }
}

/**
 * The same for work that waits for snapshots, as `CREATE INDEX CONCURRENTLY` does on PostgreSQL. A process that waits
 * here has a snapshot only for the instant of its query. Without a transaction, no lock is needed.
 */
export async function migrateByTurns(connection: QueryRunner, work: () => Promise<void>): Promise<void> {
  const sql = `SELECT pg_try_advisory_xact_lock(${numberOf(`${NAME}:migration`)}) AS taken`;
  while (connection.isTransactionActive) {
    const [row] = (await connection.query(sql)) as { taken: boolean }[];
    if (row?.taken) break;
    await sleep(Math.random() * LONGEST_PAUSE);
  }
  await work();
}

/** Options for a single connection. */
export function alone(options: DataSourceOptions): DataSourceOptions {
  const nothing = { entities: [], migrations: [], subscribers: [], cache: false };
  return {
    ...options,
    ...nothing,
    migrationsRun: false,
    synchronize: false,
    dropSchema: false,
    poolSize: 1,
  } as DataSourceOptions;
}

async function take(connection: QueryRunner, lock: Lock, deadline: number): Promise<void> {
  const began = performance.now();
  await withDeadline(lock.begin?.(connection) ?? Promise.resolve(), deadline);
  for (let tries = 0; ; tries++) {
    if (await isTaken(connection, lock, deadline)) return;
    if (tries === 0) new Logger('Visit').log('Waiting for another process that is changing the tables of the database');
    if (performance.now() - began > LONGEST_WAIT) {
      throw new Error(`another process has been changing its tables for more than ${LONGEST_WAIT / 1000} s`);
    }
    await sleep(Math.random() * LONGEST_PAUSE);
  }
}

async function isTaken(connection: QueryRunner, { take: sql }: Lock, deadline: number): Promise<boolean> {
  try {
    const [row] = (await withDeadline(connection.query(sql), deadline)) as { taken: unknown }[];
    return Number(row?.taken) === 1;
  } catch (error) {
    const { errno, code = '' } = driverError(error);
    if (UNKNOWN.includes(errno ?? code)) return true;
    throw error;
  }
}

/** Returns the result of the work, or rejects if the database stops answering meanwhile. */
async function whileAnswering<T>(work: Promise<T>, ask: () => Promise<unknown>, deadline: number): Promise<T> {
  const over = new AbortController();
  const watching = (async (): Promise<never> => {
    for (;;) {
      await sleep(deadline / 2, undefined, { signal: over.signal });
      await withDeadline(ask(), deadline);
    }
  })();
  try {
    return await Promise.race([work, watching]);
  } finally {
    over.abort();
    for (const one of [work, watching]) one.catch(() => {});
  }
}

/** The lock as a number of 63 bits, because such locks have no names. */
function numberOf(name: string): bigint {
  return createHash('sha256').update(name).digest().readBigUInt64BE() >> 1n;
}
