import type { DataSource } from 'typeorm';
import { openDataSource } from '../store/open-data-source.js';
import type { VisitStore } from '../store/visit.store.js';
import { lineOf } from './error-line.js';
import { isStore, readSource, type Source } from './exported.file.js';

/** A command changes no tables, whatever the application does at its start, and prints no SQL. */
const HARMLESS = { synchronize: false, dropSchema: false, migrationsRun: false, logging: [] };

/** A store that closes its data source, whoever opened that: when the command is done, so is the process. */
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

/** Works on the store of a file that can be used, and closes it. */
export async function withStore<T>(file: string, work: (store: VisitStore) => Promise<T>): Promise<T> {
  const store = await openStore(await readSource(file));
  try {
    await store.check();
    return await work(store);
  } finally {
    await store.close();
  }
}
