// The next line is an error where TypeORM is not installed, which is nobody's concern who keeps visits elsewhere. The
// comment stays in front of it in what is published, where a comment of another kind would not.
/** @ts-ignore: no TypeORM, no type */
type TypeOrmOptions = import('typeorm').DataSourceOptions;

/** An open data source of TypeORM 0.3 or 1, by its shape, so that any copy of the package can have made it. */
export interface OpenDataSource {
  readonly options: { readonly type: string };
  readonly isInitialized: boolean;
  readonly entityMetadatas: readonly object[];
  /** Told apart from options by this. */
  createQueryRunner(mode?: 'master' | 'slave'): object;
}

/**
 * The options of a data source, as the installed TypeORM declares them. Without it, what they are is `any`, which has
 * every key.
 */
export type NewDataSource = string extends keyof TypeOrmOptions ? { readonly type: string } : TypeOrmOptions;
