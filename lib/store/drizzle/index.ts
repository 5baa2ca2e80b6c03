/**
 * Visits through Drizzle.
 *
 * @module nest-visit/drizzle
 */

export { DrizzleVisitStore } from './drizzle-visit.store.js';
export type { DrizzleVisitDatabase } from './drizzle.dialects.js';
export type { DrizzleVisitTables } from './visit.statements.js';
export { mysqlVisitTables, pgVisitTables } from './visit.tables.js';
