import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { DataSource, type DataSourceOptions, type QueryRunner } from 'typeorm';
import { withDeadline } from '../deadline.js';
import { driverError } from '../sql/driver-error.js';
import type { SqlFamily } from '../sql/sql.dialect.js';
import { familyOf } from './connections/family.js';

/**
 * How long a process waits for others that change the tables: their own migrations may take some time. In milliseconds.
 */
const LONGEST_WAIT = 600_000;
const LONGEST_PAUSE = 250;

/** What the lock is called. Whoever changes tables of the same database waits for each other. */
const NAME = 'nest-visit:tables';

/**
 * The lock of a connection: `take` does not wait for long, and the lock goes with its connection, so that of a process
 * that has died nothing is left.
 */
interface Lock {
  /** Before `take`. */
  readonly begin?: (connection: QueryRunner) => Promise<void>;
  /** Gives `taken`. */
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
 * Changes the tables while no other process does: several that start on an empty database would make the same tables at
 * once, and all but one fail. The lock has a connection of its own, which also tells whether the database still
 * answers; how long the work itself takes is its own affair.
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
 * The same within a migration, whoever runs it and has no such lock: one that comes later finds what the first has
 * made. Where there is no such lock, or on PostgreSQL no transaction, all is done as without it.
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
 * The same for what waits for snapshots, as indexes do that PostgreSQL makes `CONCURRENTLY`. Whoever waits here has
 * none but for an instant, while it asks. Without a transaction nothing is to be taken, and nothing waits for anybody.
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

/** One connection, and nothing else. */
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

/** What the work gives, unless the database stops answering meanwhile. */
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

/** A number of 63 bits: such locks have no names. */
function numberOf(name: string): bigint {
  return createHash('sha256').update(name).digest().readBigUInt64BE() >> 1n;
}
