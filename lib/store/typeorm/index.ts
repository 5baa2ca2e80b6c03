/**
 * Visits in MySQL, MariaDB, PostgreSQL and SQLite, by TypeORM: the store, its entities and its migrations.
 *
 * @module nest-visit/typeorm
 */

export { TypeOrmVisitStore } from './typeorm-visit.store.js';
export { Visit } from './visit.entity.js';
export { VisitRevocation } from './visit-revocation.entity.js';
export { VisitIdentity } from './visit-identity.entity.js';
export { visitEntities } from './entities.js';
export { visitMigrations } from './migrations/index.js';
