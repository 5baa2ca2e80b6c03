import type { IDENTITY_COLUMNS, LOCK_COLUMNS, REVOCATION_COLUMNS, RowOf, VISIT_COLUMNS } from '../visit.columns.js';

/**
 * The part of a `PrismaClient` that the store uses: the three models of `nest-visit`, and transactions. The types are
 * so wide that every generated or extended client fits; `check()` examines the rest at startup.
 */
export interface PrismaVisitClient {
  readonly visit: PrismaVisitModel;
  readonly visitIdentity: PrismaVisitModel;
  readonly visitRevocation: PrismaVisitModel;
  /** Runs several calls in one transaction. */
  $transaction(...args: never[]): unknown;
}

/** The part of a model that the store uses. */
export interface PrismaVisitModel {
  /** Rows that meet a condition. */
  findMany(...args: never[]): unknown;
  /** How many rows meet a condition. */
  count(...args: never[]): unknown;
  /** Inserts rows. */
  createMany(...args: never[]): unknown;
  /** Changes all rows that meet a condition, in one statement. */
  updateMany(...args: never[]): unknown;
  /** Inserts a row, or changes the existing one. */
  upsert(...args: never[]): unknown;
  /** Deletes all rows that meet a condition. */
  deleteMany(...args: never[]): unknown;
}

export type Where = Readonly<Record<string, unknown>>;
type Data = Readonly<Record<string, unknown>>;
type Fields = Readonly<Record<string, unknown>>;

/** A model, with the types that the store uses. */
export interface Model<Row> {
  findMany(query: { where: Where; select: Fields; orderBy?: unknown; take?: number }): Promise<Row[]>;
  count(query: { where: Where }): Promise<number>;
  createMany(query: { data: readonly Data[]; skipDuplicates?: boolean }): Promise<Count>;
  updateMany(query: { where: Where; data: Data }): Promise<Count>;
  upsert(query: { where: Where; create: Data; update: Data; select: Fields }): Promise<unknown>;
  deleteMany(query: { where: Where }): Promise<Count>;
}

export interface Count {
  readonly count: number;
}

export interface Models {
  readonly visit: Model<VisitRow>;
  readonly visitIdentity: Model<IdentityRow>;
  readonly visitRevocation: Model<RevocationRow>;
}

/** The names of a model and its fields in the database; not set or null: as in the schema. */
export interface ModelNames {
  readonly dbName?: string | null;
  readonly schema?: string | null;
  readonly fields: readonly { readonly name: string; readonly dbName?: string | null }[];
}

export interface Client extends Models {
  /** Prisma's calls are not executed until they are awaited or passed here. */
  $transaction(calls: readonly Promise<Count>[], options: { isolationLevel: string }): Promise<Count[]>;
  /** Exists in every client, but an extension may remove it. */
  readonly $queryRawUnsafe?: (
    sql: string,
    ...values: unknown[]
  ) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /**
   * The models of the schema, for the client itself. Not documented by Prisma: without it, the names of tables are
   * unknown.
   */
  readonly _runtimeDataModel?: { readonly models: Readonly<Record<string, ModelNames | undefined>> };
  /** The kind of database. Not documented by Prisma: without it, nothing is checked. */
  readonly _activeProvider?: string;
  $transaction<T>(
    work: (models: Models) => Promise<T>,
    options: { isolationLevel: string; maxWait: number; timeout: number },
  ): Promise<T>;
}

/** The types of values from Prisma. */
interface Values {
  readonly hex: string;
  readonly text: string;
  readonly exact: string;
  readonly instant: bigint;
  readonly count: number;
  readonly flag: boolean;
  readonly bytes: Uint8Array;
}

export type IdentityRow = RowOf<typeof IDENTITY_COLUMNS, Values> & { readonly visitId: string };
export type RevocationRow = RowOf<typeof REVOCATION_COLUMNS, Values>;

export type VisitRow = RowOf<typeof VISIT_COLUMNS & typeof LOCK_COLUMNS, Values> & {
  /** Only if it was selected. */
  readonly identity?: IdentityRow | null;
};
