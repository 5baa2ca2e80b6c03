import { IDENTITY_COLUMNS, IDENTITY_FIELDS, listed, VISIT_COLUMNS, type Column, type ColumnKinds } from './visit.columns.js';
import type { VisitRecord } from './visit.store.js';

/** What makes of a stored value, which is never null, what a record has. `undefined`, or a number that is not whole: it was spoiled. */
export type Readers = { readonly [K in keyof ColumnKinds]: (value: never) => ColumnKinds[K] | undefined };

/** What makes of a value of a record, which is never null, what is stored. */
export type Writers = { readonly [K in keyof ColumnKinds]: (value: ColumnKinds[K]) => unknown };

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

/** An object made of these fields of a row, or null where one was spoiled; with `identity`, if it is given. */
type ReadObject = (row: Row, identity?: unknown) => object | null;

/**
 * Made once, then called for every row. It gives the visit that a row holds, or null for a row that was spoiled: an instant or a version that
 * is no whole number compares with nothing, and so would never expire, nor ever be saved.
 */
export function recordReader<R extends object>(layout: RowLayout, compile = compiled): (row: R) => VisitRecord | null {
  const { readers, placeOf = (field) => field } = layout;
  const identityOf = layout.identityOf as ((row: object) => Row | null | undefined) | undefined;
  const fieldOf = (column: Column & { readonly name: string }, place: string | number): Field => ({
    name: column.name,
    place,
    read: readers[column.kind] as Read,
    isNumber: column.kind === 'instant' || column.kind === 'count',
    isNullable: column.nullable === true,
  });
  const readVisit = compile(
    listed(VISIT_COLUMNS).map((column) => fieldOf(column, placeOf(column.name))),
    true,
  );
  const readIdentity = compile(
    listed(IDENTITY_COLUMNS).map((column) => fieldOf(column, identityOf ? column.name : placeOf(IDENTITY_FIELDS[column.name]))),
    false,
  );
  const userPlace = placeOf(IDENTITY_FIELDS.userId);
  const ownerOf = identityOf ?? ((row: object) => ((row as Row)[userPlace] === null ? null : (row as Row)));
  return (row) => {
    const owner = ownerOf(row) ?? null;
    const identity = owner && readIdentity(owner);
    return owner && !identity ? null : (readVisit(row as Row, identity) as VisitRecord | null);
  };
}

/**
 * As code, because each look-up comes by here: a loop over the columns takes more than twice as long. What it is made of are the names of our
 * columns and nothing else. Where a process is not allowed to make code (`--disallow-code-generation-from-strings`), the loop does it.
 */
export function compiled(fields: readonly Field[], hasIdentity: boolean): ReadObject {
  const reads = fields.map(({ place, isNumber, isNullable }, index) => {
    const value = `value${index}`;
    const isSpoiled = isNumber ? `!Number.isSafeInteger(${value})` : `${value} === undefined`;
    return `let ${value} = row[${JSON.stringify(place)}];
      if (${value} === null || ${value} === undefined) ${isNullable ? `${value} = null` : 'return null'};
      else { ${value} = read${index}(${value}); if (${isSpoiled}) return null; }`;
  });
  const entries = fields.map(({ name }, index) => `${JSON.stringify(name)}: value${index}`);
  if (hasIdentity) entries.push('identity');
  const source = `return (row, identity) => { ${reads.join('\n')}\nreturn { ${entries.join(', ')} }; };`;
  try {
    // oxlint-disable-next-line typescript/no-implied-eval, eslint/no-new-func -- made at the start, of constants of this library
    const make = new Function(...fields.map((_, index) => `read${index}`), source) as (...reads: Read[]) => ReadObject;
    return make(...fields.map(({ read }) => read));
  } catch (error) {
    if (!(error instanceof EvalError)) throw error;
    return looped(fields, hasIdentity);
  }
}

/** The same as a loop. */
export function looped(fields: readonly Field[], hasIdentity: boolean): ReadObject {
  return (row, identity) => {
    const made: Record<string, unknown> = {};
    for (const { name, place, read, isNumber, isNullable } of fields) {
      const stored = row[place] ?? null;
      // A row from before the column came has none.
      if (stored === null && !isNullable) return null;
      const value = stored === null ? null : read(stored);
      if (value !== null && (isNumber ? !Number.isSafeInteger(value) : value === undefined)) return null;
      made[name] = value;
    }
    if (hasIdentity) made['identity'] = identity;
    return made;
  };
}

/** Made once, then called for every row. It gives what is to be stored in these columns, in their order; what is null stays so. */
export function rowWriter<R extends object>(columns: Readonly<Record<string, Column>>, writers: Writers): (row: R) => unknown[] {
  const fields = listed(columns).map(({ name, kind }) => ({ name, write: writers[kind] as (value: unknown) => unknown }));
  return (row) =>
    fields.map(({ name, write }) => {
      const value = (row as Row)[name] ?? null;
      return value === null ? null : write(value);
    });
}
