import type { DataSource } from 'typeorm';
import { DefaultSessionSerializer } from 'nest-visit';
import { toBuffer } from '../../lib/store/typeorm/column.transformers.js';
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

  /** Those of the connections that wait for a lock at this moment. */
  async blocked(connections: readonly number[]): Promise<number[]> {
    if (this.name === 'postgres') {
      const sql = 'SELECT pid FROM unnest($1::int[]) pid WHERE cardinality(pg_blocking_pids(pid)) > 0';
      return (await this.dataSource.query<{ pid: number }[]>(sql, [connections])).map(({ pid }) => pid);
    }
    // The tables of information_schema that would tell are up to a tenth of a second old.
    const [row] = await this.dataSource.query<{ Status: string }[]>('SHOW ENGINE INNODB STATUS');
    const waiting = row!.Status.split('\n---TRANSACTION ').filter((text) => text.includes('LOCK WAIT'));
    return connections.filter((connection) => waiting.some((text) => new RegExp(`thread id ${connection},`).test(text)));
  }
}
