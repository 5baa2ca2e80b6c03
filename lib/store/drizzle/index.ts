/**
 * Visits through Drizzle.
 *
 * @module nest-visit/drizzle
 */

export { DrizzleVisitStore, type DrizzleVisitTables } from './drizzle-visit.store.js';
export type { DrizzleVisitDatabase } from './drizzle.connection.js';
export { mysqlVisitTables, pgVisitTables, sqliteVisitTables } from './visit.tables.js';
