import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';

/** The entities of the library, for `entities` of a data source. */
export const visitEntities = [Visit, VisitIdentity, VisitRevocation];
