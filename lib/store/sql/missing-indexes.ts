import type { Result, Statement } from './statement.js';
import type { VisitSql } from './visit.sql.js';

/** The columns that are searched but that no index of the database begins with, such as `visit.expiry`. */
export async function missingIndexes(
  run: (statement: Statement) => Promise<Pick<Result, 'rows'>>,
  sql: VisitSql,
): Promise<string[]> {
  const missing: string[] = [];
  for (const { table, columns, statement } of sql.indexes) {
    const { rows } = await run(statement);
    const indexed = new Set(rows.map(({ first }) => first));
    missing.push(...columns.filter((column) => !indexed.has(column)).map((column) => `${table}.${column}`));
  }
  return missing;
}
