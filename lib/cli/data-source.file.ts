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
 * The data source that a file exports, by default or under any name: a DataSource, its options, a store of visits, or a promise of one of
 * them. A function that gives one is called when it is the default export; no other is, because a function may do anything.
 *
 * @throws UsageError when there is no such file, nothing of that kind in it, or no telling which one is meant
 */
export async function readSource(file: string): Promise<Source> {
  const path = resolve(file);
  if (!existsSync(path)) throw new UsageError(`there is no file ${path}`);
  const { byDefault, others } = exportsOf(await load(file, path));

  const main = await given(byDefault);
  if (isSource(main)) return main;
  const values = await Promise.all(others.map(async (one) => (types.isPromise(one) ? await one : one)));
  // Options often stand beside the DataSource that is made of them.
  const found =
    theOnly(file, values.filter(isStore)) ?? theOnly(file, values.filter(isDataSource)) ?? theOnly(file, values.filter(isSource));
  if (found) return found;
  const hint = others.some((one) => typeof one === 'function') ? '; a function is called only if it is the default export' : '';
  throw new UsageError(`${file} exports no DataSource of typeorm, nor options of one, nor a store of visits${hint}`);
}

async function load(file: string, path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    const reason = /\.[cm]?tsx?$/.test(path) ? reasonOfTypeScript(error) : undefined;
    throw new UsageError(`${file} cannot be loaded: ${reason ?? (error as Error).message}`, undefined, { cause: error });
  }
}

/** Why this Node does not load a file in TypeScript, where it is that. */
function reasonOfTypeScript(error: unknown): string | undefined {
  const { code, name } = error as NodeJS.ErrnoException;
  const remedy = 'name the file that it is compiled to, such as ./dist/data-source.js, or set NODE_OPTIONS="--import tsx"';
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION') return `this Node loads no TypeScript: ${remedy}`;
  // Entities have decorators, which are more than types that can be left out.
  if (code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX' || code === 'ERR_INVALID_TYPESCRIPT_SYNTAX' || name === 'SyntaxError')
    return `it has more of TypeScript than types, such as decorators, which Node does not load by itself: ${remedy}`;
  // What it imports without an extension, as compiled modules of CommonJS may.
  return code === 'ERR_MODULE_NOT_FOUND' ? `${(error as Error).message.split('\n')[0]}: ${remedy}` : undefined;
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
  return typeof value === 'object' && value !== null && 'rekey' in value && 'touch' in value;
}

function isSource(value: unknown): value is Source {
  return (
    isStore(value) ||
    isDataSource(value) ||
    (typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string')
  );
}
