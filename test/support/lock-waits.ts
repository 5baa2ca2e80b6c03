import type { DataSource } from 'typeorm';
import { expect } from 'vitest';

/**
 * Waits until a statement in the database of this data source waits for a lock. On SQLite this cannot be seen, and is
 * not waited for.
 */
export async function untilOneWaits(dataSource: DataSource): Promise<void> {
  const { type } = dataSource.options;
  if (type === 'better-sqlite3') return;
  const waiting = type === 'postgres' ? waitingOnPostgres : waitingOnMysql;
  await expect.poll(() => waiting(dataSource)).toBeGreaterThan(0);
}

async function waitingOnPostgres(dataSource: DataSource): Promise<number> {
  const sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
  return (await dataSource.query<unknown[]>(sql)).length;
}

/** `information_schema.innodb_trx` is updated only if nobody has read it within the last tenth of a second. */
async function waitingOnMysql(dataSource: DataSource): Promise<number> {
  const threads = await dataSource.query<{ id: number }[]>(
    'SELECT id AS id FROM information_schema.processlist WHERE db = DATABASE()',
  );
  const [row] = await dataSource.query<{ Status: string }[]>('SHOW ENGINE INNODB STATUS');
  const waiting = row!.Status.split('\n---TRANSACTION ').filter((text) => text.includes('LOCK WAIT'));
  return threads.filter(({ id }) => waiting.some((text) => text.includes(`thread id ${id},`))).length;
}
