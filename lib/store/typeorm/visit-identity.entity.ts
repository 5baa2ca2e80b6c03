import { Column, Entity, Index, PrimaryColumn, type DataSource, type EntityMetadata } from 'typeorm';
import { ForeignKeyMetadata } from 'typeorm/metadata/ForeignKeyMetadata.js';
import { instant } from './column.transformers.js';
import { DialectEntity } from './dialect.entity.js';
import { Visit } from './visit.entity.js';
import { findMetadata } from './visit.tables.js';

/** The table that tells whose a visit is: at most one row per visit, deleted with it. May be extended as `Visit` may. */
@Entity('visit_identity')
export class VisitIdentity extends DialectEntity {
  @PrimaryColumn({ name: 'visit_id', type: 'varchar', length: 32 })
  visitId!: string;

  /** Compared byte by byte. */
  @Index()
  @Column({ name: 'user_id', type: 'varchar', length: 255 })
  userId!: string;

  /** When this user was linked to this visit. */
  @Column({ name: 'created', type: 'bigint', transformer: instant })
  created!: Date;

  /** When the user last proved who they are. */
  @Column({ name: 'authenticated_at', type: 'bigint', transformer: instant })
  authenticatedAt!: Date;

  /**
   * A decorated relation or foreign key would name `Visit` itself and break as soon as an application registers its own
   * subclass instead; here it is known which one that is.
   *
   * @internal
   */
  protected static override adapt(metadata: EntityMetadata, dataSource: DataSource): void {
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
