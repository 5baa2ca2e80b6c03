import type { IdentityRecord, ListedVisit, VisitRecord } from './visit.store.js';

/** The kinds of columns, and the type of their values in a record. */
export interface ColumnKinds {
  /** Lower-case hexadecimal digits. */
  readonly hex: string;
  /** Text for people; its collation does not matter. */
  readonly text: string;
  /** Text that is compared byte by byte. */
  readonly exact: string;
  /** Milliseconds since 1970 UTC. */
  readonly instant: number;
  /** A whole number. */
  readonly count: number;
  readonly flag: boolean;
  readonly bytes: Uint8Array;
}

/** A kind of column, such as `hex`. */
export type ColumnKind = keyof ColumnKinds;

/** The definition of a column. */
export interface Column {
  readonly kind: ColumnKind;
  /** For text: the maximum number of characters. */
  readonly length?: number;
  /** @default false */
  readonly nullable?: boolean;
  /** Whether rows are searched by it. @default false */
  readonly indexed?: boolean;
  /**
   * The version of the schema that introduced it. A column of a later version is nullable, because rows from before do
   * not have it. It comes after the others, for formats that go by position.
   */
  readonly since: number;
}

/** The column of a property of this type. */
type ColumnOf<T> = {
  [K in ColumnKind]: NonNullable<T> extends ColumnKinds[K]
    ? Column & { readonly kind: K } & (null extends T
          ? { readonly nullable: true }
          : { readonly nullable?: false; readonly since: 1 })
    : never;
}[ColumnKind];

/** The columns of a row: exactly one for each property. */
type ColumnsOf<Row> = { readonly [Name in keyof Row]-?: ColumnOf<Row[Name]> };

/**
 * All columns of a visit except its identity. A new column is added here, in `VisitRecord`, and in a migration; stores
 * derive it from here.
 */
export const VISIT_COLUMNS = {
  id: { kind: 'hex', length: 32, since: 1 },
  keyHash: { kind: 'hex', length: 64, since: 1 },
  previousKeyHash: { kind: 'hex', length: 64, nullable: true, since: 1 },
  previousKeyUntil: { kind: 'instant', nullable: true, since: 1 },
  keyChanged: { kind: 'instant', since: 1 },
  created: { kind: 'instant', since: 1 },
  accessed: { kind: 'instant', since: 1 },
  expiry: { kind: 'instant', indexed: true, since: 1 },
  absoluteExpiry: { kind: 'instant', nullable: true, since: 1 },
  endedAt: { kind: 'instant', nullable: true, indexed: true, since: 1 },
  endReason: { kind: 'text', length: 32, nullable: true, since: 1 },
  permanent: { kind: 'flag', since: 1 },
  remoteAddress: { kind: 'text', length: 45, nullable: true, since: 1 },
  userAgent: { kind: 'text', length: 255, nullable: true, since: 1 },
  sessionData: { kind: 'bytes', nullable: true, since: 1 },
  sessionVersion: { kind: 'count', since: 1 },
} as const satisfies ColumnsOf<Omit<VisitRecord, 'identity'>>;

const { sessionData: _data, ...listedColumns } = VISIT_COLUMNS;

/** The columns that lists load: all except the session data. */
export const LISTED_COLUMNS = listedColumns satisfies ColumnsOf<Omit<ListedVisit, 'identity'>>;

/** The owner of the exclusive access to a session, and its expiry. Not part of a record: only locks use them. */
export const LOCK_COLUMNS = {
  lockOwner: { kind: 'hex', length: 32, nullable: true, since: 1 },
  lockedUntil: { kind: 'instant', nullable: true, since: 1 },
} as const satisfies ColumnsOf<{ lockOwner: string | null; lockedUntil: number | null }>;

/** The user of a visit. */
export const IDENTITY_COLUMNS = {
  userId: { kind: 'exact', length: 255, indexed: true, since: 1 },
  created: { kind: 'instant', since: 1 },
  authenticatedAt: { kind: 'instant', since: 1 },
} as const satisfies ColumnsOf<IdentityRecord>;

/** When all visits of a user were last ended. */
export const REVOCATION_COLUMNS = {
  /**
   * SHA-256 of the user id, so that no collation treats two ids as equal. The hash of an empty text stands for all
   * users.
   */
  userHash: { kind: 'hex', length: 64, since: 1 },
  endedAt: { kind: 'instant', indexed: true, since: 1 },
} as const satisfies ColumnsOf<{ userHash: string; endedAt: number }>;

/** The latest version of the schema. The migration with this number creates it. */
export const SCHEMA_VERSION = Math.max(
  ...[VISIT_COLUMNS, LOCK_COLUMNS, IDENTITY_COLUMNS, REVOCATION_COLUMNS].flatMap((columns) =>
    Object.values<Column>(columns).map(({ since }) => since),
  ),
);

/** The name of a column of a visit, as in `VisitRecord`. */
export type VisitColumn = keyof typeof VISIT_COLUMNS;
/** The name of a column of a lease on a session. */
export type LockColumn = keyof typeof LOCK_COLUMNS;
/** The name of a column of a link between visit and user. */
export type IdentityColumn = keyof typeof IDENTITY_COLUMNS;
/** The name of a column of a record that all visits of a user have ended. */
export type RevocationColumn = keyof typeof REVOCATION_COLUMNS;

/** A row whose values have the types that `Values` defines for each kind. */
export type RowOf<
  Columns extends Readonly<Record<string, Column>>,
  Values extends Readonly<Record<ColumnKind, unknown>>,
> = {
  readonly [Name in keyof Columns]:
    | Values[Columns[Name]['kind']]
    | (Columns[Name] extends { readonly nullable: true } ? null : never);
};

/** The names of the identity's columns in a row that also contains the visit. */
export const IDENTITY_FIELDS = {
  userId: 'userId',
  created: 'linked',
  authenticatedAt: 'authenticatedAt',
} as const satisfies Record<IdentityColumn, string>;

/** The columns in their order, each with its name. */
export function listed<Name extends string>(
  columns: Readonly<Record<Name, Column>>,
): readonly (Column & { readonly name: Name })[] {
  return Object.entries<Column>(columns).map(([name, column]) => ({ ...column, name: name as Name }));
}

/** The names of columns, in their order. */
export function namesIn<Name extends string>(columns: Readonly<Record<Name, Column>>): readonly Name[] {
  return Object.keys(columns) as Name[];
}

/** The name of a property's column in a table: `key_hash` of `keyHash`. */
export function columnNameOf(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
