import { getMetadataArgsStorage, type DataSource, type EntityMetadata, type ObjectLiteral } from 'typeorm';

type EntityClass<E extends ObjectLiteral> = (abstract new (...args: never[]) => E) & { name: string };

/** The names of a table and its columns, not yet escaped. */
export interface TableNames<E> {
  /** With schema or database where there is one: `app.visit`. */
  readonly path: string;
  /** By property of the entity. */
  readonly columns: Readonly<Record<keyof E & string, string>>;
}

/**
 * The metadata of the entity or of a subclass of it, whichever is most derived; undefined if the data source has none.
 */
export function findMetadata<E extends ObjectLiteral>(
  dataSource: DataSource,
  entity: EntityClass<E>,
): EntityMetadata | undefined {
  const isOne = ({ target }: EntityMetadata) => isSameOrSubclass(target, entity);
  return dataSource.entityMetadatas.filter(isOne).sort((a, b) => depth(b.target) - depth(a.target))[0];
}

/** Whether a value is the class or extends it. */
export function isSameOrSubclass(value: unknown, entity: EntityClass<ObjectLiteral>): boolean {
  return value === entity || (typeof value === 'function' && value.prototype instanceof entity);
}

/** The names under which a data source knows the entity, or null if it does not. */
export function namesOf<E extends ObjectLiteral>(dataSource: DataSource, entity: EntityClass<E>): TableNames<E> | null {
  const metadata = findMetadata(dataSource, entity);
  if (!metadata) return null;
  const columns = Object.fromEntries(metadata.columns.map((column) => [column.propertyName, column.databaseName]));
  return { path: metadata.tablePath, columns: columns as TableNames<E>['columns'] };
}

/** The names as the decorators say, with the prefix and schema of the data source. */
export function defaultNamesOf<E extends ObjectLiteral>(dataSource: DataSource, entity: EntityClass<E>): TableNames<E> {
  const args = getMetadataArgsStorage();
  const table = `${dataSource.options.entityPrefix ?? ''}${args.tables.find(({ target }) => target === entity)?.name}`;
  const schema = 'schema' in dataSource.options ? dataSource.options.schema : undefined;
  const columns = args.columns
    .filter(({ target }) => target === entity)
    .map((column) => [column.propertyName, column.options.name]);
  return {
    path: dataSource.driver.buildTableName(table, schema),
    columns: Object.fromEntries(columns) as TableNames<E>['columns'],
  };
}

function depth(target: unknown): number {
  let levels = 0;
  for (let one = target; one; one = Object.getPrototypeOf(one)) levels++;
  return levels;
}
