import { Column, Index, PrimaryColumn, type ColumnOptions } from 'typeorm';
import { columnNameOf, listed, type Column as StoreColumn, type ColumnKind, type RowOf } from '../visit.columns.js';
import { bytes, instant } from './column.transformers.js';
import type { DialectEntity } from './dialect.entity.js';

/** As entities have values. */
interface Values {
  readonly hex: string;
  readonly text: string;
  readonly exact: string;
  readonly instant: Date;
  readonly count: number;
  readonly flag: boolean;
  readonly bytes: Buffer;
}

/** The properties of an entity with these columns, with the words that `Described` has for them. */
type Properties<Columns extends Readonly<Record<string, StoreColumn>>, Described> = {
  -readonly [Name in keyof Columns & keyof Described]: RowOf<Columns, Values>[Name];
} & { -readonly [Name in keyof Columns]: RowOf<Columns, Values>[Name] };

/** The base of an entity that has these columns. */
export type EntityBase<Columns extends Readonly<Record<string, StoreColumn>>, Described = Columns> = Pick<
  typeof DialectEntity,
  keyof typeof DialectEntity
> &
  (new () => DialectEntity & Properties<Columns, Described>);

/**
 * How TypeORM keeps values of each kind. Binary columns are declared as text, and made binary when the kind of database
 * is known.
 */
const OPTIONS: Readonly<Record<ColumnKind, ColumnOptions>> = {
  hex: { type: 'varchar' },
  text: { type: 'varchar' },
  exact: { type: 'varchar' },
  instant: { type: 'bigint', transformer: instant },
  count: { type: 'int' },
  flag: { type: 'boolean' },
  bytes: { type: 'text', transformer: bytes },
};

/** Does what decorators on the properties of the entity would do. The first column is the primary key. */
export function defineColumns(
  entity: { readonly prototype: object },
  columns: Readonly<Record<string, StoreColumn>>,
): void {
  for (const [index, { name, kind, length, nullable = false, indexed = false }] of listed(columns).entries()) {
    const options: ColumnOptions = {
      name: columnNameOf(name),
      ...OPTIONS[kind],
      ...(length !== undefined && { length }),
    };
    const decorate = index === 0 ? PrimaryColumn(options as object) : Column({ ...options, nullable });
    decorate(entity.prototype, name);
    if (indexed) Index()(entity.prototype, name);
  }
}
