import type { DataSource, EntityMetadata } from 'typeorm';
import type { ColumnMetadata } from 'typeorm/metadata/ColumnMetadata.js';
import { familyOf } from './dialects/family.js';

const HEX = { charset: 'ascii', collation: 'ascii_bin' };
const BYTEWISE = { charset: 'utf8mb4', collation: 'utf8mb4_bin' };
const TEXT = { charset: 'utf8mb4' };

/** What the columns need on MySQL, where the usual collation takes `a` for `A` and the default charset may not know emoji. */
const MYSQL_COLUMNS: Readonly<Record<string, { charset: string; collation?: string }>> = {
  id: HEX,
  visitId: HEX,
  keyHash: HEX,
  previousKeyHash: HEX,
  lockOwner: HEX,
  userId: BYTEWISE,
  userHash: HEX,
  endReason: TEXT,
  remoteAddress: TEXT,
  userAgent: TEXT,
};

const BINARY_TYPES = { mysql: 'mediumblob', postgres: 'bytea', sqlite: 'blob' } as const;

/**
 * The base of the entities. Decorators are evaluated before the kind of database is known, yet some columns differ there.
 * TypeORM offers one moment in between: when its metadata are built, and before it synchronizes or migrates, it calls
 * `useDataSource` on each entity that looks like an active record, which means: has these three static functions.
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
  protected static adapt(metadata: EntityMetadata, dataSource: DataSource): void {
    const family = familyOf(dataSource);
    if (!family) return;
    for (const column of metadata.columns) {
      if (column.propertyName === 'sessionData' && column.type === 'text') column.type = BINARY_TYPES[family];
      if (family === 'mysql') setCollation(column);
    }
  }
}

function setCollation(column: ColumnMetadata): void {
  const wanted = MYSQL_COLUMNS[column.propertyName];
  if (wanted && !column.charset && !column.collation) Object.assign(column, wanted);
}
