import { Column, Entity, Index, PrimaryColumn } from 'typeorm';
import { bytes, instant } from './column.transformers.js';
import { DialectEntity } from './dialect.entity.js';

/**
 * The table of visits, for `DataSource({ entities })` and for queries with a repository. Write through the services of
 * this library: they keep the rules that a plain `repository.save()` does not know.
 *
 * May be extended; own columns must be nullable or have a default.
 *
 * @example
 * ```ts
 * @Entity('my_visit')
 * export class MyVisit extends Visit {
 *   @Column({ type: 'varchar', length: 40, nullable: true })
 *   tenant!: string | null;
 * }
 * ```
 */
@Entity('visit')
export class Visit extends DialectEntity {
  /** Public and random, 32 lower-case hexadecimal digits; stays for the life of the visit. */
  @PrimaryColumn({ name: 'id', type: 'varchar', length: 32 })
  id!: string;

  /** SHA-256 of the secret that only the cookie holds. */
  @Column({ name: 'key_hash', type: 'varchar', length: 64 })
  keyHash!: string;

  /** The hash that was replaced last. */
  @Column({ name: 'previous_key_hash', type: 'varchar', length: 64, nullable: true })
  previousKeyHash!: string | null;

  /** Until when the previous key is as good as the current one; null: it is not. */
  @Column({ name: 'previous_key_until', type: 'bigint', nullable: true, transformer: instant })
  previousKeyUntil!: Date | null;

  /** When the current key was made. */
  @Column({ name: 'key_changed', type: 'bigint', transformer: instant })
  keyChanged!: Date;

  @Column({ name: 'created', type: 'bigint', transformer: instant })
  created!: Date;

  /** When the visit was last used, as far as it has been recorded. */
  @Column({ name: 'accessed', type: 'bigint', transformer: instant })
  accessed!: Date;

  @Index()
  @Column({ name: 'expiry', type: 'bigint', transformer: instant })
  expiry!: Date;

  /** The instant that no activity moves. */
  @Column({ name: 'absolute_expiry', type: 'bigint', nullable: true, transformer: instant })
  absoluteExpiry!: Date | null;

  @Index()
  @Column({ name: 'ended_at', type: 'bigint', nullable: true, transformer: instant })
  endedAt!: Date | null;

  @Column({ name: 'end_reason', type: 'varchar', length: 32, nullable: true })
  endReason!: string | null;

  @Column({ name: 'permanent', type: 'boolean' })
  permanent!: boolean;

  @Column({ name: 'remote_address', type: 'varchar', length: 45, nullable: true })
  remoteAddress!: string | null;

  @Column({ name: 'user_agent', type: 'varchar', length: 255, nullable: true })
  userAgent!: string | null;

  /** The encoded session, null when it is empty. Declared as text, made binary when the kind of database is known. */
  @Column({ name: 'session_data', type: 'text', nullable: true, transformer: bytes })
  sessionData!: Buffer | null;

  /** Grows by one with every write of `sessionData`. */
  @Column({ name: 'session_version', type: 'int' })
  sessionVersion!: number;

  /** Who has exclusive access to the session at the moment. */
  @Column({ name: 'lock_owner', type: 'varchar', length: 32, nullable: true })
  lockOwner!: string | null;

  /** When that access ends at the latest. */
  @Column({ name: 'locked_until', type: 'bigint', nullable: true, transformer: instant })
  lockedUntil!: Date | null;
}
