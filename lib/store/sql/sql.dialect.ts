import type { Reference } from '../table-visit.store.js';
import { driverError, sqlStateOf, type DriverError } from './driver-error.js';
import type { Statement } from './statement.js';

/** Databases that speak alike. */
export type SqlFamily = 'mysql' | 'postgres' | 'sqlite';

/** What differs from database to database: words, and what errors mean. */
export abstract class SqlDialect {
  abstract readonly family: SqlFamily;
  /** Around names. */
  protected readonly quote: '"' | '`' = '"';
  /** The function that gives the larger of two values. */
  readonly greatest: string = 'GREATEST';
  /** A parameter that is an instant or a number, where its type cannot be seen from its place. */
  readonly number: string = '?';
  /** A parameter that is binary data, where its type cannot be seen from its place. */
  readonly bytes: string = '?';
  /** What makes a SELECT lock its rows; empty where a transaction needs no row locks. */
  readonly lock: string = ' FOR UPDATE';
  /** Behind the name of a table: rows are to be found, and so locked, by their primary key alone. */
  readonly byPrimaryKey: string = '';
  /**
   * Whether an UPDATE can tell which rows it changed. If not, `allOrNone` lets it change all that are there, or none.
   */
  readonly returning: boolean = true;
  /** Whether a parameter can be an array, so that a statement for many rows has one text. */
  readonly arrays: boolean = false;

  /** What time it is on the server, in whole seconds since 1970. */
  abstract readonly unixTime: string;

  /** A condition with two parameters, both the same text: the column equals it byte by byte, whatever its collation. */
  abstract sameText(column: string): string;

  /** What turns an INSERT into an UPDATE, ready for its assignments, when the key exists. */
  abstract onDuplicate(key: string): string;

  /** A name as it is written in SQL. */
  escape(name: string): string {
    return this.quote + name.replaceAll(this.quote, this.quote + this.quote) + this.quote;
  }

  /** A flag as a parameter. */
  flag(value: boolean): unknown {
    return value ? 1 : 0;
  }

  /**
   * A condition on a statement that writes many rows: its key is among these. Rows are locked in the order of their
   * keys.
   */
  isAmong(_table: string, key: string, ids: readonly string[]): Statement {
    return this.isOneOf(key, ids);
  }

  /** A condition with its parameters: the column has one of these values. */
  isOneOf(column: string, values: readonly string[]): Statement {
    return { sql: `${column} IN (${values.map(() => '?').join(', ') || 'NULL'})`, params: values };
  }

  /** How a column that holds whole numbers within JavaScript's safe range is read. */
  readNumber(column: string): string {
    return column;
  }

  /** As many rows as make one of few texts: what is missing is filled up with one that changes nothing. */
  padded<T>(rows: readonly T[], _filler: (row: T) => T): readonly T[] {
    return rows;
  }

  /** A condition on rows that are written, with a column that is a whole number, 0 or more. See `returning`. */
  allOrNone(condition: string, _column: string): string {
    return condition;
  }

  /** A DELETE that finds its rows by primary key, and locks no others. */
  deleteAmong(table: string, key: string, ids: readonly string[]): Statement {
    const { sql, params } = this.isOneOf(key, ids);
    return { sql: `DELETE FROM ${table} WHERE ${sql}`, params };
  }

  /** What makes a DELETE welcome that finds its rows by no key. */
  get unbounded(): string {
    return '';
  }

  /** So many bytes a statement may have, with its parameters. */
  get longestStatement(): number {
    return Infinity;
  }

  /** Goes by what the server is set to. */
  adapt(_settings: ReadonlyMap<string, string>): void {}

  /**
   * Gives the first column of each index of a table, as `first`: of that of the primary key, too.
   *
   * @param path as in `SqlTable`
   */
  abstract indexesOf(path: readonly string[]): Statement;

  /** The text of a statement as drivers want it. */
  textOf(sql: string): string {
    return sql;
  }

  /** The parameters of a statement that is not prepared, as drivers want them. */
  valuesOf(params: readonly unknown[]): readonly unknown[] {
    return params;
  }

  /** Whether a statement failed, and did nothing, because of `allOrNone`. */
  isUnmet(_error: unknown): boolean {
    return false;
  }

  /** Whether the database undid everything because others were in the way, so that the same can be tried again. */
  abstract isTransient(error: unknown): boolean;

  /** Whether a table, a column or the schema is not there: tells a wrong schema from every other trouble. */
  abstract isMissing(error: unknown): boolean;

  /**
   * Whether the database has refused the statement itself, so that it certainly did nothing. False when the connection,
   * or the server, went away: what was under way may have been done.
   */
  isRefusal(error: unknown): boolean {
    // Connection exceptions, interventions of the operator, interruptions.
    return !/^(08|57|70|XX)/.test(sqlStateOf(error));
  }

  /**
   * What an error says of a constraint that a DELETE would have broken: rows of other tables refer to those that were
   * to be deleted. Undefined for any other error.
   */
  referenceIn(error: unknown): Reference | undefined {
    // Integrity constraint violations: how they restrict (RESTRICT, NO ACTION, deferred, by a trigger) does not matter.
    return sqlStateOf(error).startsWith('23') ? { constraint: this.constraintIn(driverError(error)) } : undefined;
  }

  /** The name of the constraint that an error is about. */
  protected constraintIn(_error: DriverError): string | undefined {
    return undefined;
  }
}
