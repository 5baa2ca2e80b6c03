import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { types } from 'node:util';
import type { DataSource, DataSourceOptions } from 'typeorm';
import type { VisitStore } from '../store/visit.store.js';
import { UsageError } from './usage.error.js';

/** Where a file says that visits are. */
export type Source = DataSource | DataSourceOptions | VisitStore;

/**
 * The data source that a file exports, by default or under any name: a DataSource, its options, a store of visits, or a function or
 * promise that gives one of them.
 *
 * @throws UsageError when there is no such file, nothing of that kind in it, or no telling which one is meant
 */
export async function readSource(file: string): Promise<Source> {
  const path = resolve(file);
  if (/\.[cm]?tsx?$/.test(path))
    throw new UsageError(`${file} is TypeScript: name the file that it is compiled to, such as ./dist/data-source.js`);
  if (!existsSync(path)) throw new UsageError(`there is no file ${path}`);
  const { byDefault, others } = exportsOf(await load(file, path));

  const main = await given(byDefault);
  if (isSource(main)) return main;
  const values = await Promise.all(others.map(async (one) => (types.isPromise(one) ? await one : one)));
  // Options often stand beside the DataSource that is made of them.
  const found =
    theOnly(file, values.filter(isStore)) ?? theOnly(file, values.filter(isDataSource)) ?? theOnly(file, values.filter(isSource));
  if (found) return found;
  // Last, because a function may do anything.
  for (const one of others) {
    const value = await given(one);
    if (isSource(value)) return value;
  }
  throw new UsageError(`${file} exports no DataSource of typeorm, nor options of one, nor a store of visits`);
}

async function load(file: string, path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    throw new UsageError(`${file} cannot be loaded: ${(error as Error).message}`, { cause: error });
  }
}

/** A CommonJS module is the default export of itself, and may have one of its own. */
function exportsOf(module: Record<string, unknown>): { byDefault: unknown; others: unknown[] } {
  const { default: outer, ...named } = module;
  const isModule = typeof outer === 'object' && outer !== null && !isSource(outer) && !types.isPromise(outer);
  const inner = isModule ? (outer as Record<string, unknown>) : {};
  const others = [...new Set([...Object.values(named), ...Object.values(inner)])];
  return { byDefault: isModule ? inner['default'] : outer, others };
}

/** What a promise resolves to, or a function returns. Only one that needs no arguments; a class is none. */
async function given(value: unknown): Promise<unknown> {
  const isFactory = typeof value === 'function' && value.length === 0 && !/^class\b/.test(Function.prototype.toString.call(value));
  return isFactory ? (value as () => unknown)() : value;
}

function theOnly<T>(file: string, found: readonly T[]): T | undefined {
  if (new Set(found).size > 1) throw new UsageError(`${file} exports several of them: export the one that is meant by default`);
  return found[0];
}

function isDataSource(value: unknown): value is DataSource {
  // Not `instanceof`: an application may have a second copy of TypeORM.
  return typeof value === 'object' && value !== null && 'createQueryRunner' in value;
}

export function isStore(value: unknown): value is VisitStore {
  // Not `instanceof` either.
  return typeof value === 'object' && value !== null && 'rekey' in value && 'endedAllAt' in value;
}

function isSource(value: unknown): value is Source {
  return (
    isStore(value) ||
    isDataSource(value) ||
    (typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string')
  );
}
