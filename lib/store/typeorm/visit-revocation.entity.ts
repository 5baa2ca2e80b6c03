import { Entity } from 'typeorm';
import { REVOCATION_COLUMNS } from '../visit.columns.js';
import { DialectEntity } from './dialect.entity.js';
import { defineColumns, type EntityBase } from './entity.columns.js';

/**
 * The table of the instants at which all visits of a user were last ended, so that a sign-in in progress at that moment
 * does not survive it. It has few rows: only for users to whom this has happened, and only until they are expunged.
 */
@Entity('visit_revocation')
export class VisitRevocation extends (DialectEntity as EntityBase<typeof REVOCATION_COLUMNS>) {}

defineColumns(VisitRevocation, REVOCATION_COLUMNS);
