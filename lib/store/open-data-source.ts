import type { NewDataSource, OpenDataSource } from '../options/typeorm-types.js';
import { loadOptional } from './optional-package.js';
import type { VisitStore } from './visit.store.js';

/** How `openTypeOrmVisitStore` opens it. */
interface Opening {
  readonly deadline?: number;
  readonly owned?: boolean;
}

/**
 * A store on a data source, or on one made of options. TypeORM is loaded here, and not before: whoever keeps visits
 * elsewhere needs none.
 *
 * @throws VisitOptionError where it is not installed
 */
export async function openDataSource(source: OpenDataSource | NewDataSource, how: Opening = {}): Promise<VisitStore> {
  const load = () => import('./typeorm/open-typeorm-visit-store.js');
  const { openTypeOrmVisitStore } = await loadOptional('option "dataSource"', 'typeorm', load);
  return openTypeOrmVisitStore(source as Parameters<typeof openTypeOrmVisitStore>[0], how);
}
