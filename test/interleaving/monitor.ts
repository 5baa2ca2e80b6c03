import { setTimeout as pause } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { DefaultSessionSerializer } from 'nest-visit';
import { toBuffer } from '../../lib/store/sql.values.js';
import type { DatabaseName } from '../support/databases.js';

/** A row of the visit table as others can see it, with whose it is. */
export interface VisitSample {
  readonly id: string;
  readonly keyHash: string;
  readonly previousKeyHash: string | null;
  readonly previousKeyUntil: number | null;
  readonly keyChanged: number;
  readonly created: number;
  readonly accessed: number;
  readonly expiry: number;
  readonly absoluteExpiry: number | null;
  readonly endedAt: number | null;
  readonly endReason: string | null;
  readonly permanent: boolean;
  readonly sessionVersion: number;
  readonly data: Readonly<Record<string, unknown>> | null;
  readonly userId: string | null;
  readonly authenticatedAt: number | null;
}

/** All visits at one moment, by id. */
export type Sample = ReadonlyMap<string, VisitSample>;

const COLUMNS = {
  id: 'v.id',
  keyHash: 'v.key_hash',
  previousKeyHash: 'v.previous_key_hash',
  previousKeyUntil: 'v.previous_key_until',
  keyChanged: 'v.key_changed',
  created: 'v.created',
  accessed: 'v.accessed',
  expiry: 'v.expiry',
  absoluteExpiry: 'v.absolute_expiry',
  endedAt: 'v.ended_at',
  endReason: 'v.end_reason',
  permanent: 'v.permanent',
  sessionVersion: 'v.session_version',
  sessionData: 'v.session_data',
  userId: 'i.user_id',
  authenticatedAt: 'i.authenticated_at',
};

const SAMPLE = `SELECT ${Object.entries(COLUMNS)
  .map(([name, column]) => `${column} AS "${name}"`)
  .join(', ')} FROM visit v LEFT JOIN visit_identity i ON i.visit_id = v.id`;

const NUMBERS = [
  'previousKeyUntil',
  'keyChanged',
  'created',
  'accessed',
  'expiry',
  'absoluteExpiry',
  'endedAt',
  'sessionVersion',
  'authenticatedAt',
];

const serializer = new DefaultSessionSerializer();

/** Looks at a database from aside, by plain SQL. */
export class Monitor {
  constructor(
    private readonly name: DatabaseName,
    private readonly dataSource: DataSource,
  ) {}

  /** What is committed. Locks nothing. */
  async sample(): Promise<Sample> {
    const rows = await this.dataSource.query<Record<string, unknown>[]>(SAMPLE);
    return new Map(
      rows.map(({ sessionData, permanent, ...row }) => {
        for (const name of NUMBERS) if (row[name] !== null) row[name] = Number(row[name]);
        const data = sessionData && Object.fromEntries(serializer.decode(toBuffer(sessionData as Uint8Array)));
        return [row['id'] as string, { ...row, permanent: Boolean(Number(permanent)), data } as VisitSample];
      }),
    );
  }

  /** Deletes the visits, and their identities with them. */
  async empty(): Promise<void> {
    await this.dataSource.query('DELETE FROM visit');
  }

  /** What the server calls the connection of a data source that has one. */
  async connectionOf(dataSource: DataSource): Promise<number> {
    if (this.name === 'sqlite') return 0;
    const [row] = await dataSource.query<{ id: string }[]>(
      `SELECT ${this.name === 'mariadb' ? 'CONNECTION_ID()' : 'pg_backend_pid()'} AS id`,
    );
    return Number(row!.id);
  }

  /**
   * Whether all of the connections wait for locks, and will until somebody else goes on. While they wait for each other
   * in a circle they will not: the database is about to see and break it.
   */
  async areHeld(connections: readonly number[]): Promise<boolean> {
    if (this.name === 'postgres') {
      const sql = 'SELECT pid AS waiter, unnest(pg_blocking_pids(pid)) AS blocker FROM unnest($1::int[]) pid';
      return areAllHeld(connections, await this.dataSource.query<Wait[]>(sql, [connections]));
    }
    // What tells who waits for whom may be a tenth of a second old; this never is.
    const [row] = await this.dataSource.query<{ Status: string }[]>('SHOW ENGINE INNODB STATUS');
    const waiting = row!.Status.split('\n---TRANSACTION ').filter((text) => text.includes('LOCK WAIT'));
    if (!connections.every((connection) => waiting.some((text) => text.includes(`thread id ${connection},`))))
      return false;
    if (connections.length === 1) return true;
    await pause(INNODB_RENEWS_AFTER);
    return areAllHeld(
      connections,
      await this.dataSource.query<Wait[]>(this.dataSource.options.type === 'mysql' ? MYSQL_WAITS : MARIADB_WAITS),
    );
  }

  /**
   * Whether the server works on a statement of one of the connections: one that takes long, and has not gone astray.
   */
  async isAtWork(connections: readonly number[]): Promise<boolean> {
    const ids = connections.join();
    const sql = {
      sqlite: undefined,
      postgres: `SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid IN (${ids})`,
      mariadb: `SELECT id FROM information_schema.processlist WHERE command <> 'Sleep' AND id IN (${ids})`,
    }[this.name];
    if (sql === undefined || connections.length === 0) return false;
    return (await this.dataSource.query<unknown[]>(sql)).length > 0;
  }
}

/** Who waits for whom. */
interface Wait {
  readonly waiter: number | string;
  readonly blocker: number | string;
}

/** InnoDB renews what its tables in information_schema show when nobody has looked at them for a tenth of a second. */
const INNODB_RENEWS_AFTER = 110;
const MARIADB_WAITS = `SELECT waiting.trx_mysql_thread_id AS waiter, blocking.trx_mysql_thread_id AS blocker
  FROM information_schema.innodb_lock_waits w
  JOIN information_schema.innodb_trx waiting ON waiting.trx_id = w.requesting_trx_id
  JOIN information_schema.innodb_trx blocking ON blocking.trx_id = w.blocking_trx_id`;
const MYSQL_WAITS = 'SELECT waiting_pid AS waiter, blocking_pid AS blocker FROM sys.innodb_lock_waits';

function areAllHeld(connections: readonly number[], waits: readonly Wait[]): boolean {
  const blockersOf = (connection: number): number[] =>
    waits.filter(({ waiter }) => Number(waiter) === connection).map(({ blocker }) => Number(blocker));
  const isInCircle = (connection: number, reached = new Set<number>()): boolean =>
    blockersOf(connection).some(
      (blocker) => reached.has(blocker) || isInCircle(blocker, new Set([...reached, blocker])),
    );
  return connections.every(
    (connection) => blockersOf(connection).length > 0 && !isInCircle(connection, new Set([connection])),
  );
}
