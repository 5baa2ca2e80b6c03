import { Column, Entity, Index, PrimaryColumn } from 'typeorm';
import { instant } from './column.transformers.js';
import { DialectEntity } from './dialect.entity.js';

/**
 * When all visits of a user were last ended, so that a sign-in that was under way at that moment does not survive it.
 * Few rows: only of users to whom that has happened, and only until they are expunged.
 */
@Entity('visit_revocation')
export class VisitRevocation extends DialectEntity {
  /** SHA-256 of the user id, so that the key tells apart what collations take for equal; that of the empty text: everybody. */
  @PrimaryColumn({ name: 'user_hash', type: 'varchar', length: 64 })
  userHash!: string;

  @Index()
  @Column({ name: 'ended_at', type: 'bigint', transformer: instant })
  endedAt!: Date;
}
