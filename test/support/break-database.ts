import type { DataSource } from 'typeorm';
import { vi } from 'vitest';

/**
 * Makes every statement of a data source fail, until `vi.restoreAllMocks()`. Simulates a server that cannot be reached.
 */
export function breakDatabase(dataSource: DataSource, message: string): void {
  const fail = (): never => {
    throw new Error(message);
  };
  vi.spyOn(dataSource, 'createQueryRunner').mockImplementation(fail);
  const { databaseConnection } = dataSource.driver as unknown as {
    databaseConnection?: { exec(sql: string): unknown };
  };
  if (databaseConnection) vi.spyOn(databaseConnection, 'exec').mockImplementation(fail);
}
