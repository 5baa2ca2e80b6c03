import type { DataSource, EntityMetadata } from 'typeorm';
import type { ColumnMetadata } from 'typeorm/metadata/ColumnMetadata.js';
import {
  IDENTITY_COLUMNS,
  LOCK_COLUMNS,
  REVOCATION_COLUMNS,
  VISIT_COLUMNS,
  type Column,
  type ColumnKind,
} from '../visit.columns.js';
import { familyOf } from './connections/family.js';

/**
 * The charset and collation of columns in MySQL, where the default collation treats `a` and `A` as equal, and the
 * default charset may not support emoji.
 */
const MYSQL_TEXT: Readonly<Partial<Record<ColumnKind, { charset: string; collation?: string }>>> = {
  hex: { charset: 'ascii', collation: 'ascii_bin' },
  exact: { charset: 'utf8mb4', collation: 'utf8mb4_bin' },
  text: { charset: 'utf8mb4' },
};

/** By property of the entities. */
const COLUMNS: Readonly<Record<string, Column>> = {
  visitId: VISIT_COLUMNS.id,
  ...IDENTITY_COLUMNS,
  ...REVOCATION_COLUMNS,
  ...LOCK_COLUMNS,
  ...VISIT_COLUMNS,
};

const BINARY_TYPES = { mysql: 'mediumblob', postgres: 'bytea', sqlite: 'blob' } as const;

/**
 * The base class of the entities. Decorators are evaluated before the kind of database is known, but some columns
 * depend on it. TypeORM offers one moment in between: when it builds its metadata, before it synchronizes or migrates,
 * it calls `useDataSource` of each entity that looks like an active record, that is, one with these three static
 * functions.
 */
export abstract class DialectEntity {
  /** @internal */
  static useDataSource(dataSource: DataSource): void {
    const metadata = dataSource.entityMetadatas.find(({ target }) => target === this);
    if (metadata) this.adapt(metadata, dataSource);
  }

  /** @internal Only here to be recognized; these entities have no active-record methods. */
  static hasId(): boolean {
    return false;
  }

  /** @internal Only here to be recognized; these entities have no active-record methods. */
  static save(): never {
    throw new TypeError('[visit] use a repository or the store to write visits');
  }

  /** @internal */
  static adapt(metadata: EntityMetadata, dataSource: DataSource): void {
    const family = familyOf(dataSource);
    if (!family) return;
    for (const column of metadata.columns) {
      const kind = COLUMNS[column.propertyName]?.kind;
      if (kind === 'bytes' && column.type === 'text') column.type = BINARY_TYPES[family];
      if (family === 'mysql' && kind) setCollation(column, kind);
    }
    if (family === 'mysql') alignReferences(metadata, dataSource);
  }
}

/**
 * MySQL refuses a foreign key between columns with different collations. Columns of the application get the collation
 * of the column that they refer to.
 */
function alignReferences(metadata: EntityMetadata, { entityMetadatas }: DataSource): void {
  for (const { referencedEntityMetadata, referencedColumns, columns } of entityMetadatas.flatMap(
    ({ foreignKeys }) => foreignKeys,
  )) {
    if (referencedEntityMetadata !== metadata) continue;
    for (const [index, { propertyName }] of referencedColumns.entries()) {
      const kind = COLUMNS[propertyName]?.kind;
      if (kind) setCollation(columns[index]!, kind);
    }
  }
}

function setCollation(column: ColumnMetadata, kind: ColumnKind): void {
  const wanted = MYSQL_TEXT[kind];
  if (wanted && !column.charset && !column.collation) Object.assign(column, wanted);
}
