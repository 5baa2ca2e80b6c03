import type { DataSource } from 'typeorm';
import { openDataSource } from '../store/open-data-source.js';
import type { VisitStore } from '../store/visit.store.js';
import { lineOf } from './error-line.js';
import { isStore, readSource, type Source } from './exported.file.js';

/** A command changes no tables, whatever the application does at startup, and prints no SQL. */
const HARMLESS = { synchronize: false, dropSchema: false, migrationsRun: false, logging: [] };

/**
 * Opens a store that closes its data source, even if another module has opened it, because the process ends with the
 * command.
 */
export async function openStore(source: Source): Promise<VisitStore> {
  if (isStore(source)) return source;
  if (!('createQueryRunner' in source)) return openDataSource({ ...source, ...HARMLESS });
  if (!source.isInitialized) await initialize(source.setOptions(HARMLESS));
  return openDataSource(source, { owned: true });
}

async function initialize(source: DataSource): Promise<void> {
  try {
    await source.initialize();
  } catch (error) {
    throw new Error(`cannot open the data source: ${lineOf(error)}`, { cause: error });
  }
}

/** Opens and checks the store of a file, runs the work, and closes the store. */
export async function withStore<T>(file: string, work: (store: VisitStore) => Promise<T>): Promise<T> {
  const store = await openStore(await readSource(file));
  try {
    await store.check();
    return await work(store);
  } finally {
    await store.close();
  }
}
