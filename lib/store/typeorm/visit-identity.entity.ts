import { Entity, type DataSource, type EntityMetadata } from 'typeorm';
import { ForeignKeyMetadata } from 'typeorm/metadata/ForeignKeyMetadata.js';
import { IDENTITY_COLUMNS, VISIT_COLUMNS } from '../visit.columns.js';
import type { IdentityRecord } from '../visit.store.js';
import { DialectEntity } from './dialect.entity.js';
import { defineColumns, type EntityBase } from './entity.columns.js';
import { Visit } from './visit.entity.js';
import { findMetadata } from './visit.tables.js';

const COLUMNS = { visitId: VISIT_COLUMNS.id, ...IDENTITY_COLUMNS } as const;

/** The table of the users of visits: at most one row per visit, deleted with it. Can be extended like `Visit`. */
@Entity('visit_identity')
export class VisitIdentity extends (DialectEntity as EntityBase<typeof COLUMNS, IdentityRecord>) {
  /**
   * A decorated relation or foreign key would name `Visit` itself and break as soon as an application registers its own
   * subclass instead; here it is known which one that is.
   *
   * @internal
   */
  static override adapt(metadata: EntityMetadata, dataSource: DataSource): void {
    super.adapt(metadata, dataSource);
    const visit = findMetadata(dataSource, Visit);
    const visitId = metadata.findColumnWithPropertyName('visitId');
    if (!visit || !visitId || metadata.foreignKeys.some((key) => key.columns.includes(visitId))) return;
    metadata.foreignKeys.push(
      new ForeignKeyMetadata({
        entityMetadata: metadata,
        referencedEntityMetadata: visit,
        columns: [visitId],
        referencedColumns: visit.primaryColumns,
        onDelete: 'CASCADE',
        namingStrategy: dataSource.namingStrategy,
      }),
    );
  }
}

defineColumns(VisitIdentity, COLUMNS);
