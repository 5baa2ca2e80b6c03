import type { IDENTITY_COLUMNS, LOCK_COLUMNS, REVOCATION_COLUMNS, RowOf, VISIT_COLUMNS } from '../visit.columns.js';

/**
 * What the store needs of a `PrismaClient`: the three models of `nest-visit`, and transactions. So wide that every
 * generated or extended client fits, whichever generator made it; `check()` looks at the rest when the application
 * starts.
 */
export interface PrismaVisitClient {
  readonly visit: PrismaVisitModel;
  readonly visitIdentity: PrismaVisitModel;
  readonly visitRevocation: PrismaVisitModel;
  /** Runs several calls in one transaction. */
  $transaction(...args: never[]): unknown;
}

/** What the store needs of a model. */
export interface PrismaVisitModel {
  /** Rows that meet a condition. */
  findMany(...args: never[]): unknown;
  /** How many rows meet a condition. */
  count(...args: never[]): unknown;
  /** Inserts rows. */
  createMany(...args: never[]): unknown;
  /** Changes all rows that meet a condition, in one statement. */
  updateMany(...args: never[]): unknown;
  /** Inserts a row, or changes the one that is there. */
  upsert(...args: never[]): unknown;
  /** Deletes all rows that meet a condition. */
  deleteMany(...args: never[]): unknown;
}

export type Where = Readonly<Record<string, unknown>>;
type Data = Readonly<Record<string, unknown>>;
type Fields = Readonly<Record<string, unknown>>;

/** How the store itself sees a model. */
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

/** How a model and its fields are called in the database; left out or null: as in the schema. */
export interface ModelNames {
  readonly dbName?: string | null;
  readonly schema?: string | null;
  readonly fields: readonly { readonly name: string; readonly dbName?: string | null }[];
}

export interface Client extends Models {
  /** Prisma's calls do nothing until they are awaited, or handed over here. */
  $transaction(calls: readonly Promise<Count>[], options: { isolationLevel: string }): Promise<Count[]>;
  /** Of every client; an extension may leave it out. */
  readonly $queryRawUnsafe?: (
    sql: string,
    ...values: unknown[]
  ) => Promise<readonly Readonly<Record<string, unknown>>[]>;
  /**
   * What the schema says of its models, for the client itself. Not documented by Prisma: where it is missing, nobody
   * learns how tables are called.
   */
  readonly _runtimeDataModel?: { readonly models: Readonly<Record<string, ModelNames | undefined>> };
  /** Which database it speaks to. Not documented by Prisma: where it is missing, nothing is asked. */
  readonly _activeProvider?: string;
  $transaction<T>(
    work: (models: Models) => Promise<T>,
    options: { isolationLevel: string; maxWait: number; timeout: number },
  ): Promise<T>;
}

/** As Prisma gives values. */
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
  /** Only where it was asked for. */
  readonly identity?: IdentityRow | null;
};
