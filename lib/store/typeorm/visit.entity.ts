import { Entity } from 'typeorm';
import { LOCK_COLUMNS, VISIT_COLUMNS } from '../visit.columns.js';
import type { VisitRecord } from '../visit.store.js';
import { DialectEntity } from './dialect.entity.js';
import { defineColumns, type EntityBase } from './entity.columns.js';

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
export class Visit extends (DialectEntity as EntityBase<typeof VISIT_COLUMNS & typeof LOCK_COLUMNS, VisitRecord>) {}

defineColumns(Visit, { ...VISIT_COLUMNS, ...LOCK_COLUMNS });
