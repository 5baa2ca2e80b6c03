import type { DataSource } from 'typeorm';
import { IDENTITY_COLUMNS, listed, REVOCATION_COLUMNS, VISIT_COLUMNS } from '../visit.columns.js';
import { VisitIdentity } from './visit-identity.entity.js';
import { VisitRevocation } from './visit-revocation.entity.js';
import { Visit } from './visit.entity.js';
import { namesOf } from './visit.tables.js';

/** The columns that rows are looked for by, and that no index of the database begins with: `visit.expiry`. */
export async function missingIndexesOf(dataSource: DataSource): Promise<string[]> {
  const tables = [
    { names: namesOf(dataSource, Visit), columns: VISIT_COLUMNS },
    { names: namesOf(dataSource, VisitIdentity), columns: IDENTITY_COLUMNS },
    { names: namesOf(dataSource, VisitRevocation), columns: REVOCATION_COLUMNS },
  ];
  const runner = dataSource.createQueryRunner();
  try {
    const missing: string[] = [];
    for (const { names, columns } of tables) {
      if (!names) continue;
      const table = await runner.getTable(names.path);
      const first = new Set(
        [...(table?.indices ?? []), ...(table?.uniques ?? [])].map(({ columnNames }) => columnNames[0]),
      );
      for (const { name, indexed } of listed<string>(columns)) {
        const column = (names.columns as Readonly<Record<string, string>>)[name];
        if (indexed && column !== undefined && !first.has(column)) missing.push(`${names.path}.${column}`);
      }
    }
    return missing;
  } finally {
    await runner.release();
  }
}
