import {
  IDENTITY_COLUMNS,
  IDENTITY_FIELDS,
  listed,
  LISTED_COLUMNS,
  VISIT_COLUMNS,
  type Column,
  type ColumnKinds,
} from './visit.columns.js';
import type { ListedVisit, VisitRecord } from './visit.store.js';

/**
 * Functions that convert stored values, which are never null, to values of a record. `undefined`, or a number that is
 * not an integer, means a corrupted value.
 */
export type Readers = { readonly [K in keyof ColumnKinds]: (value: never) => ColumnKinds[K] | undefined };

/** Functions that convert values of a record, which are never null, to stored values. */
export type Writers = { readonly [K in keyof ColumnKinds]: (value: ColumnKinds[K]) => unknown };

/** How the rows of a store are read. */
export interface RowLayout {
  readonly readers: Readers;
  /** The name of a field in a row; by default its own name. */
  readonly placeOf?: (field: string) => string | number;
  /** The row of the identity, if it is a separate one; null or undefined: the visit has no user. */
  readonly identityOf?: (row: never) => object | null | undefined;
}

type Row = Readonly<Record<string | number, unknown>>;
type Read = (value: unknown) => unknown;

/** One column of a row. */
interface Field {
  readonly name: string;
  readonly place: string | number;
  readonly read: Read;
  readonly isNumber: boolean;
  /** Whether null is a valid value; otherwise it means a corrupted row. */
  readonly isNullable: boolean;
}

/**
 * Creates a function that reads rows; create it once. It returns the visit of a row, or null for a corrupted row: an
 * instant or a version that is not an integer cannot be compared, so the visit would never expire and could never be
 * saved.
 */
export function recordReader<R extends object>(layout: RowLayout): (row: R) => VisitRecord | null {
  return readerOf(VISIT_COLUMNS, layout) as (row: R) => VisitRecord | null;
}

/** Like `recordReader`, for rows of lists, without session data. */
export function listedReader<R extends object>(layout: RowLayout): (row: R) => ListedVisit | null {
  return readerOf(LISTED_COLUMNS, layout) as (row: R) => ListedVisit | null;
}

function readerOf(columns: Readonly<Record<string, Column>>, layout: RowLayout): (row: object) => object | null {
  const { readers, placeOf = (field) => field } = layout;
  const identityOf = layout.identityOf as ((row: object) => Row | null | undefined) | undefined;
  const fieldOf = (column: Column & { readonly name: string }, place: string | number): Field => ({
    name: column.name,
    place,
    read: readers[column.kind] as Read,
    isNumber: column.kind === 'instant' || column.kind === 'count',
    isNullable: column.nullable === true,
  });
  const visitFields = listed(columns).map((column) => fieldOf(column, placeOf(column.name)));
  const identityFields = listed(IDENTITY_COLUMNS).map((column) =>
    fieldOf(column, identityOf ? column.name : placeOf(IDENTITY_FIELDS[column.name])),
  );
  const emptyVisit = { ...emptyOf(visitFields), identity: null };
  const emptyIdentity = emptyOf(identityFields);
  const userPlace = placeOf(IDENTITY_FIELDS.userId);
  const ownerOf = identityOf ?? ((row: object) => ((row as Row)[userPlace] === null ? null : (row as Row)));
  return (row) => {
    const owner = ownerOf(row) ?? null;
    const identity = owner && filled(identityFields, owner, { ...emptyIdentity });
    if (owner && !identity) return null;
    return filled(visitFields, row as Row, { ...emptyVisit, identity });
  };
}

/**
 * An object with all of the fields, so that what is made of it has one shape from the start: that is half of the time.
 */
function emptyOf(fields: readonly Field[]): Record<string, unknown> {
  return Object.fromEntries(fields.map(({ name }) => [name, null]));
}

/** Each look-up comes by here. Null: a value was spoiled. */
function filled(fields: readonly Field[], row: Row, made: Record<string, unknown>): object | null {
  for (const { name, place, read, isNumber, isNullable } of fields) {
    const stored = row[place];
    // A row from before the column came has none.
    if (stored === null || stored === undefined) {
      if (!isNullable) return null;
      continue;
    }
    const value = read(stored);
    if (isNumber ? !Number.isSafeInteger(value) : value === undefined) return null;
    made[name] = value;
  }
  return made;
}

/**
 * Creates a function that writes rows; create it once. It returns the values to store in these columns, in their order;
 * null stays null.
 */
export function rowWriter<R extends object>(
  columns: Readonly<Record<string, Column>>,
  writers: Writers,
): (row: R) => unknown[] {
  const fields = listed(columns).map(({ name, kind }) => ({
    name,
    write: writers[kind] as (value: unknown) => unknown,
  }));
  return (row) =>
    fields.map(({ name, write }) => {
      const value = (row as Row)[name] ?? null;
      return value === null ? null : write(value);
    });
}
