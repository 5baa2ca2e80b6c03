import { Entity } from 'typeorm';
import { REVOCATION_COLUMNS } from '../visit.columns.js';
import { DialectEntity } from './dialect.entity.js';
import { defineColumns, type EntityBase } from './entity.columns.js';

/**
 * When all visits of a user were last ended, so that a sign-in that was under way at that moment does not survive it.
 * Few rows: only of users to whom that has happened, and only until they are expunged.
 */
@Entity('visit_revocation')
export class VisitRevocation extends (DialectEntity as EntityBase<typeof REVOCATION_COLUMNS>) {}

defineColumns(VisitRevocation, REVOCATION_COLUMNS);
