export { TypeOrmVisitStore } from './typeorm-visit.store.js';
export { Visit } from './visit.entity.js';
export { VisitRevocation } from './visit-revocation.entity.js';
export { VisitIdentity } from './visit-identity.entity.js';
export { visitEntities } from './entities.js';
export { visitMigrations } from './migrations/index.js';
