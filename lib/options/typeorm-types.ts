// The next line is an error where TypeORM is not installed, which is nobody's concern who keeps visits elsewhere. The
// comment stays in front of it in what is published, where a comment of another kind would not.
/** @ts-ignore: no TypeORM, no type */
type TypeOrmOptions = import('typeorm').DataSourceOptions;

/** An open data source of TypeORM 0.3 or 1, by its shape, so that it can come from any copy of the package. */
export interface OpenDataSource {
  readonly options: { readonly type: string };
  readonly isInitialized: boolean;
  readonly entityMetadatas: readonly object[];
  /** Distinguishes a data source from options. */
  createQueryRunner(mode?: 'master' | 'slave'): object;
}

/** The options of a data source, as declared by the installed TypeORM. Without TypeORM, these are `any`. */
export type NewDataSource = string extends keyof TypeOrmOptions ? { readonly type: string } : TypeOrmOptions;
