import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';

/** What the library adds to `entities` of a data source. */
export const visitEntities = [Visit, VisitIdentity, VisitRevocation];
