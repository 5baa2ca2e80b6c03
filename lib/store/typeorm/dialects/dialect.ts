import type { DataSource } from 'typeorm';
import { retryOnConflict } from '../../retry-on-conflict.js';

/** A statement with `?` for its parameters, whatever the dialect. */
export interface Statement {
  readonly sql: string;
  readonly params: readonly unknown[];
  /** Sent all the time: worth being prepared where the dialect can, under this name. Its texts differ in their number of rows only. */
  readonly name?: string;
  /** In a transaction: how many rows it must change. If it changes others, all of the transaction is undone. */
  readonly mustChange?: number;
  /** Nobody waits for it: it may take longer than `storeTimeout`. */
  readonly isSlow?: boolean;
  /** Done twice, it has done the same: it is sent again when its answer is lost. What only reads is so anyway. */
  readonly isIdempotent?: boolean;
}

export type PreparedStatement = Statement & { readonly name: string };

export interface Result {
  readonly rows: Record<string, unknown>[];
  /** How many rows a write has changed. Not known for a statement that returns rows. */
  readonly affected: number;
}

/** A statement of a transaction, or how to make it from the results so far. */
export type Step = Statement | ((results: readonly Result[]) => Statement);

/** What differs from database to database, and how statements get there. */
export abstract class Dialect {
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
  /** Whether an UPDATE can tell which rows it changed. If not, `allOrNone` lets it change all that are there, or none. */
  readonly returning: boolean = true;
  /** Whether a parameter can be an array, so that a statement for many rows has one text. */
  readonly arrays: boolean = false;

  constructor(protected readonly dataSource: DataSource) {}

  /** What time it is on the server, in whole seconds since 1970. */
  abstract readonly unixTime: string;

  /** A condition with two parameters, both the same text: the column equals it byte by byte, whatever its collation. */
  abstract sameText(column: string): string;

  /** A condition on a statement that writes many rows: its key is among these. Rows are locked in the order of their keys. */
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

  /** Whether a statement failed, and did nothing, because of `allOrNone`. */
  isUnmet(_error: unknown): boolean {
    return false;
  }

  /** So many bytes a statement may have, with its parameters. */
  get longestStatement(): number {
    return Infinity;
  }

  /** What makes a DELETE welcome that finds its rows by no key. */
  get unbounded(): string {
    return '';
  }

  /** A DELETE that finds its rows by primary key, and locks no others. */
  deleteAmong(table: string, key: string, ids: readonly string[]): Statement {
    const { sql, params } = this.isOneOf(key, ids);
    return { sql: `DELETE FROM ${table} WHERE ${sql}`, params };
  }

  /** What turns an INSERT into an UPDATE, ready for its assignments, when the key exists. */
  abstract onDuplicate(key: string): string;

  /** Whether the database undid everything because others were in the way, so that the same can be tried again. */
  protected abstract isTransient(error: DriverError): boolean;

  /** Whether a table, a column or the schema is not there. */
  protected abstract isMissing(error: DriverError): boolean;

  /** Tells a wrong schema from every other trouble. */
  isSchemaError(error: unknown): boolean {
    return this.isMissing(driverError(error));
  }

  /**
   * Whether the database has refused the statement itself, so that it certainly did nothing. False when the connection,
   * or the server, went away: what was under way may have been done.
   */
  isRefusal(error: unknown): boolean {
    // Connection exceptions, interventions of the operator, interruptions.
    return !/^(08|57|70|XX)/.test(sqlStateOf(error));
  }

  /**
   * What an error says of a constraint that a DELETE would have broken: rows of other tables refer to those that were to be deleted.
   * Undefined for any other error.
   */
  referenceIn(error: unknown): { readonly constraint: string | undefined } | undefined {
    // Integrity constraint violations: how they restrict (RESTRICT, NO ACTION, deferred, by a trigger) does not matter.
    return sqlStateOf(error).startsWith('23') ? { constraint: this.constraintIn(driverError(error)) } : undefined;
  }

  /** The name of the constraint that an error is about. */
  protected constraintIn(_error: DriverError): string | undefined {
    return undefined;
  }

  /** A name, or a path such as `schema.table`, as it is written in SQL. */
  escape(path: string): string {
    return path
      .split('.')
      .map((name) => this.dataSource.driver.escape(name))
      .join('.');
  }

  /** Nobody waits longer than this for a statement. */
  limit(_milliseconds: number): void {}

  /** Goes by what the server is set to. */
  adapt(_settings: ReadonlyMap<string, string>): void {}

  /** Runs one statement. */
  abstract run(statement: Statement): Promise<Result>;

  /** Runs statements in one transaction. Null if one did not change what it must; then nothing is changed. */
  abstract atomic(steps: readonly Step[]): Promise<Result[] | null>;

  /** Tries again when others were in the way. */
  protected retryOnConflict<T>(work: () => T | Promise<T>): Promise<T> {
    return retryOnConflict(work, (error) => this.isTransient(driverError(error)));
  }
}

/** The statement of a step. */
export function statementOf(step: Step, results: readonly Result[]): Statement {
  return typeof step === 'function' ? step(results) : step;
}

/** Whether a statement changed another number of rows than it must. */
export function isShort({ mustChange }: Statement, { affected }: Result): boolean {
  return mustChange !== undefined && affected !== mustChange;
}

/** What drivers tell about an error. */
export interface DriverError {
  readonly code?: string;
  readonly errno?: number;
  readonly sqlState?: string;
  /** Of `mysql2`: the connection has ended. */
  readonly fatal?: boolean;
  /** Of `pg`. */
  readonly constraint?: string;
  readonly message: string;
}

/** What has no state does not come from the server: the connection is gone. */
export function sqlStateOf(error: unknown): string {
  const { sqlState, code = '' } = driverError(error);
  return sqlState ?? (/^[0-9A-Z]{5}$/.test(code) ? code : code.startsWith('SQLITE_') ? 'HY000' : '08000');
}

/** The driver's error in TypeORM's. */
export function driverError(error: unknown): DriverError {
  return (error as { driverError?: DriverError } | null)?.driverError ?? (error as DriverError);
}
