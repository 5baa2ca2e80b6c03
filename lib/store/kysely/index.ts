/**
 * Visits through Kysely.
 *
 * @module nest-visit/kysely
 */

export { KyselyVisitStore, type KyselyVisitStoreOptions } from './kysely-visit.store.js';
export type { AnyKysely } from './kysely.connection.js';
export type { KyselyVisitDialect, KyselyVisitPlace } from './kysely.place.js';
export { createVisitTables, dropVisitTables } from './visit.migration.js';
