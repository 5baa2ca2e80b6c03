import type { DataSource, QueryRunner } from 'typeorm';
import { Dialect, type DriverError, type Result, type Statement } from './dialect.js';

/** serialization_failure, deadlock_detected. */
const IN_THE_WAY = ['40001', '40P01'];
/** undefined_table, undefined_column, invalid_schema_name. */
const MISSING = ['42P01', '42703', '3F000'];

/** The part of a pool of `pg` that is used here. */
interface Pool {
  on(event: 'acquire', listener: (client: Client) => void): unknown;
}

interface Client {
  listeners(event: 'error'): unknown[];
  on(event: 'error', listener: () => void): unknown;
}

/** PostgreSQL. */
export class PostgresDialect extends Dialect {
  override readonly number = 'CAST(? AS bigint)';
  override readonly bytes = 'CAST(? AS bytea)';

  /**
   * A connection that the server ends tells so by the event `error`, sometimes twice, and at moments at which TypeORM does
   * not listen or not any more; nobody listening would end the process (B19). Whoever uses the connection learns of it
   * from the statement that fails.
   */
  constructor(dataSource: DataSource) {
    super(dataSource);
    const { master, slaves = [] } = dataSource.driver as unknown as { master?: Pool; slaves?: Pool[] };
    for (const pool of [master, ...slaves]) {
      pool?.on('acquire', (client) => {
        if (!client.listeners('error').includes(ignore)) client.on('error', ignore);
      });
    }
  }

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE "C"`;
  }

  // An UPDATE by itself locks rows in whatever order it finds them, and two of them run into a deadlock. The array is made,
  // and so the rows are locked, before the first is written.
  override isAmong(table: string, key: string, marks: string): string {
    return `${key} = ANY (ARRAY(SELECT ${key} FROM ${table} WHERE ${key} IN (${marks}) ORDER BY ${key} FOR NO KEY UPDATE))`;
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  protected override send(queryRunner: QueryRunner, { sql, params }: Statement): Promise<Result> {
    return super.send(queryRunner, { sql: numbered(sql), params });
  }

  protected isTransient({ code = '' }: DriverError): boolean {
    return IN_THE_WAY.includes(code);
  }

  protected isMissing({ code = '' }: DriverError): boolean {
    return MISSING.includes(code);
  }
}

function ignore(): void {}

/** `?` becomes `$1`, `$2` …, but not inside quoted names. */
function numbered(sql: string): string {
  let count = 0;
  return sql.replace(/"[^"]*"|\?/g, (match) => (match === '?' ? `$${++count}` : match));
}
