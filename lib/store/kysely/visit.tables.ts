import {
  IDENTITY_COLUMNS,
  LOCK_COLUMNS,
  namesIn,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type Column,
  type IdentityColumn,
  type LockColumn,
  type RevocationColumn,
  type VisitColumn,
} from '../visit.columns.js';
import { quoted, type Dialect } from './kysely.dialects.js';

/** The columns of a row of `visit`. */
export const VISIT_ROW = { ...VISIT_COLUMNS, ...LOCK_COLUMNS };
/** The columns of a row of `visit_identity`. */
export const IDENTITY_ROW: Readonly<Record<'visitId' | IdentityColumn, Column>> = { visitId: VISIT_COLUMNS.id, ...IDENTITY_COLUMNS };

/** A table and its columns, as they are written in SQL. */
interface Table<Name extends string> {
  readonly path: string;
  readonly columns: Readonly<Record<Name, string>>;
}

export interface Tables {
  readonly visit: Table<VisitColumn | LockColumn>;
  readonly identity: Table<'visitId' | IdentityColumn>;
  readonly revocation: Table<RevocationColumn>;
}

/** The tables that all stores over SQL share, as this dialect writes their names. */
export function tablesIn(dialect: Dialect, schema?: string): Tables {
  const table = <Name extends string>(name: string, columns: Readonly<Record<Name, Column>>): Table<Name> => ({
    path: (schema === undefined ? '' : `${quoted(dialect, schema)}.`) + quoted(dialect, name),
    columns: Object.fromEntries(namesIn(columns).map((column) => [column, quoted(dialect, snakeCase(column))])) as Record<Name, string>,
  });
  return {
    visit: table('visit', VISIT_ROW),
    identity: table('visit_identity', IDENTITY_ROW),
    revocation: table('visit_revocation', REVOCATION_COLUMNS),
  };
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
