import type { IdentityRecord, ListedVisit, VisitRecord } from './visit.store.js';

/** What a column can hold, and as what a record has it. */
export interface ColumnKinds {
  /** Lower-case hexadecimal digits. */
  readonly hex: string;
  /** Text for people; how it is compared does not matter. */
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

/** A column, as every store needs to know it. */
export interface Column {
  readonly kind: ColumnKind;
  /** Of text: the most characters that it may have. */
  readonly length?: number;
  /** @default false */
  readonly nullable?: boolean;
  /** Whether rows are looked for by it. @default false */
  readonly indexed?: boolean;
  /**
   * The version of the schema that has it first. One that came later is nullable: what was stored before is without it.
   * It stands behind the others, for formats that go by position.
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

/** The columns of a row, no more and no less than it has properties. */
type ColumnsOf<Row> = { readonly [Name in keyof Row]-?: ColumnOf<Row[Name]> };

/**
 * All of a visit but whose it is. A new column is named here, in `VisitRecord`, and in a migration; stores take it from
 * here.
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

/** The columns that lists load: all but the session data. */
export const LISTED_COLUMNS = listedColumns satisfies ColumnsOf<Omit<ListedVisit, 'identity'>>;

/**
 * Who has exclusive access to a session, and until when at the latest. Not part of a record: whoever needs a lock asks
 * for it.
 */
export const LOCK_COLUMNS = {
  lockOwner: { kind: 'hex', length: 32, nullable: true, since: 1 },
  lockedUntil: { kind: 'instant', nullable: true, since: 1 },
} as const satisfies ColumnsOf<{ lockOwner: string | null; lockedUntil: number | null }>;

/** Whose a visit is. */
export const IDENTITY_COLUMNS = {
  userId: { kind: 'exact', length: 255, indexed: true, since: 1 },
  created: { kind: 'instant', since: 1 },
  authenticatedAt: { kind: 'instant', since: 1 },
} as const satisfies ColumnsOf<IdentityRecord>;

/** When all visits of a user were ended last. */
export const REVOCATION_COLUMNS = {
  /** SHA-256 of the user id, so that no collation takes two for one; that of the empty text: everybody. */
  userHash: { kind: 'hex', length: 64, since: 1 },
  endedAt: { kind: 'instant', indexed: true, since: 1 },
} as const satisfies ColumnsOf<{ userHash: string; endedAt: number }>;

/** The latest version of the schema: the migration of that number brings it. */
export const SCHEMA_VERSION = Math.max(
  ...[VISIT_COLUMNS, LOCK_COLUMNS, IDENTITY_COLUMNS, REVOCATION_COLUMNS].flatMap((columns) =>
    Object.values<Column>(columns).map(({ since }) => since),
  ),
);

/** The name of a column of a visit, as `VisitRecord` names it. */
export type VisitColumn = keyof typeof VISIT_COLUMNS;
/** The name of a column of a lease on a session. */
export type LockColumn = keyof typeof LOCK_COLUMNS;
/** The name of a column of a link between visit and user. */
export type IdentityColumn = keyof typeof IDENTITY_COLUMNS;
/** The name of a column of a record that all visits of a user have ended. */
export type RevocationColumn = keyof typeof REVOCATION_COLUMNS;

/** A row, where the values of each kind are what `Values` says. */
export type RowOf<
  Columns extends Readonly<Record<string, Column>>,
  Values extends Readonly<Record<ColumnKind, unknown>>,
> = {
  readonly [Name in keyof Columns]:
    | Values[Columns[Name]['kind']]
    | (Columns[Name] extends { readonly nullable: true } ? null : never);
};

/** As what the columns of an identity stand beside those of its visit, where one row has both. */
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
