import { sqlStateOf, type DriverError } from './driver-error.js';
import { SqlDialect } from './sql.dialect.js';
import type { Statement } from './statement.js';

/** serialization_failure, deadlock_detected. */
const IN_THE_WAY = ['40001', '40P01'];
/** undefined_table, undefined_column, invalid_schema_name. */
const MISSING = ['42P01', '42703', '3F000'];

/** PostgreSQL. */
export class PostgresDialect extends SqlDialect {
  readonly family = 'postgres';
  readonly unixTime = 'CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS bigint)';
  override readonly number = 'CAST(? AS bigint)';
  override readonly bytes = 'CAST(? AS bytea)';
  override readonly arrays: boolean;

  /** @param how `arrays`: whether the driver accepts arrays as parameters; by default it does */
  constructor(how: { readonly arrays?: boolean } = {}) {
    const { arrays = true } = how;
    super();
    this.arrays = arrays;
  }

  sameText(column: string): string {
    return `${column} = ? AND ${column} = ? COLLATE "C"`;
  }

  onDuplicate(key: string): string {
    return `ON CONFLICT (${key}) DO UPDATE SET`;
  }

  // Some drivers accept nothing else for a boolean.
  override flag(value: boolean): unknown {
    return value;
  }

  // An UPDATE alone locks rows in any order, so two of them can run into a deadlock. The array is created, and with it
  // the rows are locked, before the first one is written.
  override isAmong(table: string, key: string, ids: readonly string[]): Statement {
    const { sql, params } = this.isOneOf(key, ids);
    return {
      sql: `${key} = ANY (ARRAY(SELECT ${key} FROM ${table} WHERE ${sql} ORDER BY ${key} FOR NO KEY UPDATE))`,
      params,
    };
  }

  // The same text for any number of values, so that it can be prepared.
  override isOneOf(column: string, values: readonly string[]): Statement {
    return this.arrays ? { sql: `${column} = ANY (?)`, params: [values] } : super.isOneOf(column, values);
  }

  /** `?` becomes `$1`, `$2` …, but not inside quoted names. */
  override textOf(sql: string): string {
    let count = 0;
    return sql.replace(/"[^"]*"|\?/g, (match) => (match === '?' ? `$${++count}` : match));
  }

  // An index whose creation was interrupted exists, but is not used.
  indexesOf(path: readonly string[]): Statement {
    return {
      sql:
        'SELECT a.attname AS "first" FROM pg_catalog.pg_index x JOIN pg_catalog.pg_attribute a ' +
        'ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] ' +
        'WHERE x.indrelid = to_regclass(CAST(? AS text)) AND x.indisvalid',
      params: [path.map((name) => this.escape(name)).join('.')],
    };
  }

  isTransient(error: unknown): boolean {
    return IN_THE_WAY.includes(sqlStateOf(error));
  }

  isMissing(error: unknown): boolean {
    return MISSING.includes(sqlStateOf(error));
  }

  protected override constraintIn({ constraint, constraint_name: name }: DriverError): string | undefined {
    return constraint ?? name;
  }
}
