import type { QueryRunner } from 'typeorm';
import { Dialect, type DriverError, type Result, type Statement } from './dialect.js';

/** serialization_failure, deadlock_detected. */
const IN_THE_WAY = ['40001', '40P01'];
/** undefined_table, undefined_column, invalid_schema_name. */
const MISSING = ['42P01', '42703', '3F000'];

/** PostgreSQL. */
export class PostgresDialect extends Dialect {
  override readonly number = 'CAST(? AS bigint)';
  override readonly bytes = 'CAST(? AS bytea)';

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

/** `?` becomes `$1`, `$2` …, but not inside quoted names. */
function numbered(sql: string): string {
  let count = 0;
  return sql.replace(/"[^"]*"|\?/g, (match) => (match === '?' ? `$${++count}` : match));
}
