import { Column, Entity, Index, PrimaryColumn } from 'typeorm';
import { instant } from './column.transformers.js';
import { DialectEntity } from './dialect.entity.js';

/**
 * When all visits of a user were last ended, so that a sign-in that was under way at that moment does not survive it.
 * Few rows: only of users to whom that has happened, and only until they are expunged.
 */
@Entity('visit_revocation')
export class VisitRevocation extends DialectEntity {
  /** Compared byte by byte. Empty: everybody. */
  @PrimaryColumn({ name: 'user_id', type: 'varchar', length: 255 })
  userId!: string;

  @Index()
  @Column({ name: 'ended_at', type: 'bigint', transformer: instant })
  endedAt!: Date;
}
