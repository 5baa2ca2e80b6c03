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
 * What makes of a stored value, which is never null, what a record has. `undefined`, or a number that is not whole: it
 * was spoiled.
 */
export type Readers = { readonly [K in keyof ColumnKinds]: (value: never) => ColumnKinds[K] | undefined };

/** What makes of a value of a record, which is never null, what is stored. */
export type Writers = { readonly [K in keyof ColumnKinds]: (value: ColumnKinds[K]) => unknown };

/** How the rows of a store are read. */
export interface RowLayout {
  readonly readers: Readers;
  /** Where in a row a field is; by default under its name. */
  readonly placeOf?: (field: string) => string | number;
  /** The row of the identity, where that is another one; null or undefined: the visit is nobody's. */
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
  /** Whether null is a value, and not a sign that the row was spoiled. */
  readonly isNullable: boolean;
}

/**
 * Made once, then called for every row. It gives the visit that a row holds, or null for a row that was spoiled: an
 * instant or a version that is no whole number compares with nothing, and so would never expire, nor ever be saved.
 */
export function recordReader<R extends object>(layout: RowLayout): (row: R) => VisitRecord | null {
  return readerOf(VISIT_COLUMNS, layout) as (row: R) => VisitRecord | null;
}

/** As `recordReader`, for rows that lists read: without session data. */
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
 * Made once, then called for every row. It gives what is to be stored in these columns, in their order; what is null
 * stays so.
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
