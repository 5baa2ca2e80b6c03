import { visitEntities, visitMigrations } from 'nest-visit/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';

/** Opens a data source with the tables of visits. The caller destroys it. */
export function openMigrated(options: Pick<DataSourceOptions, 'type'>): Promise<DataSource> {
  const all = { ...options, entities: visitEntities, migrations: visitMigrations, migrationsRun: true };
  return new DataSource(all as DataSourceOptions).initialize();
}
