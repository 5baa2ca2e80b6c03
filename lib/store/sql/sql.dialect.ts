import type { Reference } from '../table-visit.store.js';
import { driverError, sqlStateOf, type DriverError } from './driver-error.js';
import type { Statement } from './statement.js';

/** Databases with the same SQL dialect. */
export type SqlFamily = 'mysql' | 'postgres' | 'sqlite';

/** The differences between databases: their syntax, and the meaning of their errors. */
export abstract class SqlDialect {
  abstract readonly family: SqlFamily;
  /** The quote character for names. */
  protected readonly quote: '"' | '`' = '"';
  /** The function that gives the larger of two values. */
  readonly greatest: string = 'GREATEST';
  /** A parameter for an instant or a number, where its type does not follow from the context. */
  readonly number: string = '?';
  /** A parameter for binary data, where its type does not follow from the context. */
  readonly bytes: string = '?';
  /** The clause that makes a SELECT lock its rows; empty if a transaction needs no row locks. */
  readonly lock: string = ' FOR UPDATE';
  /** A clause after the name of a table: rows are found, and therefore locked, only by their primary key. */
  readonly byPrimaryKey: string = '';
  /**
   * Whether an UPDATE can return the rows that it has changed. If not, `allOrNone` makes it change all rows or none.
   */
  readonly returning: boolean = true;
  /** Whether a parameter can be an array, so that a statement for several rows always has the same text. */
  readonly arrays: boolean = false;

  /** The time of the server, in whole seconds since 1970. */
  abstract readonly unixTime: string;

  /** A condition with two parameters, both the same text: the column equals it byte by byte, whatever its collation. */
  abstract sameText(column: string): string;

  /** The clause that turns an INSERT into an UPDATE if the key exists, followed by its assignments. */
  abstract onDuplicate(key: string): string;

  /** A name, quoted for SQL. */
  escape(name: string): string {
    return this.quote + name.replaceAll(this.quote, this.quote + this.quote) + this.quote;
  }

  /** A flag as a parameter. */
  flag(value: boolean): unknown {
    return value ? 1 : 0;
  }

  /**
   * The condition of a statement that writes several rows: the key is one of these. Rows are locked in the order of
   * their keys.
   */
  isAmong(_table: string, key: string, ids: readonly string[]): Statement {
    return this.isOneOf(key, ids);
  }

  /** A condition and its parameters: the column has one of these values. */
  isOneOf(column: string, values: readonly string[]): Statement {
    return { sql: `${column} IN (${values.map(() => '?').join(', ') || 'NULL'})`, params: values };
  }

  /** The expression that reads a column of whole numbers within JavaScript's safe range. */
  readNumber(column: string): string {
    return column;
  }

  /** Pads the rows to one of few sizes, with fillers that change nothing, so that there are few texts. */
  padded<T>(rows: readonly T[], _filler: (row: T) => T): readonly T[] {
    return rows;
  }

  /** A condition on the rows of a write, with a column that contains a whole number of 0 or more. See `returning`. */
  allOrNone(condition: string, _column: string): string {
    return condition;
  }

  /** A DELETE that finds its rows by primary key, and locks no other rows. */
  deleteAmong(table: string, key: string, ids: readonly string[]): Statement {
    const { sql, params } = this.isOneOf(key, ids);
    return { sql: `DELETE FROM ${table} WHERE ${sql}`, params };
  }

  /** The clause that permits a DELETE without a key. */
  get unbounded(): string {
    return '';
  }

  /** The maximum size of a statement with its parameters, in bytes. */
  get longestStatement(): number {
    return Infinity;
  }

  /** Adapts to the settings of the server. */
  adapt(_settings: ReadonlyMap<string, string>): void {}

  /**
   * Selects the first column of each index of a table as `first`, including that of the primary key.
   *
   * @param path as in `SqlTable`
   */
  abstract indexesOf(path: readonly string[]): Statement;

  /** The text of a statement in the form that the driver expects. */
  textOf(sql: string): string {
    return sql;
  }

  /** The parameters of a statement that is not prepared, in the form that the driver expects. */
  valuesOf(params: readonly unknown[]): readonly unknown[] {
    return params;
  }

  /** Whether a statement failed because of `allOrNone`, and has changed nothing. */
  isUnmet(_error: unknown): boolean {
    return false;
  }

  /** Whether the database has rolled the statement back on a conflict, so that it can be retried. */
  abstract isTransient(error: unknown): boolean;

  /** Whether a table, a column or the schema is missing. */
  abstract isMissing(error: unknown): boolean;

  /**
   * Whether the database has refused the statement itself, so that it has certainly changed nothing. False if the
   * connection was lost or the server stopped: then the statement may have been executed.
   */
  isRefusal(error: unknown): boolean {
    // Connection exceptions, interventions of the operator, interruptions.
    return !/^(08|57|70|XX)/.test(sqlStateOf(error));
  }

  /**
   * The constraint that a DELETE would have violated, because rows of other tables refer to the rows to delete.
   * Undefined for any other error.
   */
  referenceIn(error: unknown): Reference | undefined {
    // Integrity constraint violations: how they restrict (RESTRICT, NO ACTION, deferred, by a trigger) is irrelevant.
    return sqlStateOf(error).startsWith('23') ? { constraint: this.constraintIn(driverError(error)) } : undefined;
  }

  /** The name of the constraint in an error. */
  protected constraintIn(_error: DriverError): string | undefined {
    return undefined;
  }
}
