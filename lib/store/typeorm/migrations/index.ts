import { CreateVisit1790000000000 } from './1790000000000-create-visit.migration.js';

/** What the library adds to `migrations` of a data source. */
export const visitMigrations = [CreateVisit1790000000000];
