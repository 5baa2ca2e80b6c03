import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { types } from 'node:util';
import type { DataSource, DataSourceOptions } from 'typeorm';
import type { VisitModuleOptions } from '../options/visit-options.interface.js';
import type { VisitStore } from '../store/visit.store.js';
import { lineOf } from './error-line.js';
import { UsageError } from './usage.error.js';

/** The default export of a file that names the store. */
export type Source = DataSource | DataSourceOptions | VisitStore;

/**
 * Reads the default export of a file: a DataSource, its options, a visit store, a promise of one of them, or a function
 * that returns one. Other exports are ignored.
 *
 * @throws UsageError if the file does not exist, or its default export is something else
 */
export function readSource(file: string): Promise<Source> {
  return readExport(file, isSource, 'a DataSource of typeorm, its options, or a visit store');
}

/**
 * Reads the options of `VisitModule` from the default export of a file, in the same ways. They are not validated here.
 *
 * @throws UsageError as `readSource` does
 */
export function readModuleOptions(file: string): Promise<VisitModuleOptions> {
  const isOptions = (value: unknown): value is VisitModuleOptions =>
    typeof value === 'object' && value !== null && !types.isModuleNamespaceObject(value) && !isSource(value);
  return readExport(file, isOptions, 'the options of VisitModule');
}

async function readExport<T>(file: string, isWanted: (value: unknown) => value is T, kind: string): Promise<T> {
  const path = resolve(file);
  if (!existsSync(path)) throw new UsageError(`there is no file ${path}`);
  const { byDefault, others } = exportsOf(await load(file, path));
  const value = await given(byDefault);
  if (isWanted(value)) return value;
  const name = others.find(([, other]) => isSource(other))?.[0];
  const remedy = name === undefined ? '' : `: add a default export, such as \`export default ${name};\``;
  throw new UsageError(`the default export of ${file} is not ${kind}${remedy}`);
}

async function load(file: string, path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    const reason = /\.[cm]?tsx?$/.test(path) ? reasonOfTypeScript(error) : undefined;
    throw new UsageError(`${file} cannot be loaded: ${reason ?? lineOf(error)}`, undefined, { cause: error });
  }
}

/** Why this version of Node cannot load a TypeScript file, if that is the cause. */
function reasonOfTypeScript(error: unknown): string | undefined {
  const { code, name } = error as NodeJS.ErrnoException;
  const remedy = 'use the compiled file, such as ./dist/data-source.js, or set NODE_OPTIONS="--import tsx"';
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION') return `this version of Node cannot load TypeScript: ${remedy}`;
  // Entities have decorators, which cannot be erased like types.
  if (
    code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX' ||
    code === 'ERR_INVALID_TYPESCRIPT_SYNTAX' ||
    name === 'SyntaxError'
  )
    return `it contains TypeScript syntax that Node cannot load by itself, such as decorators: ${remedy}`;
  // It may import files without an extension, like compiled CommonJS modules.
  return code === 'ERR_MODULE_NOT_FOUND' ? `${(error as Error).message.split('\n')[0]}: ${remedy}` : undefined;
}

/** A CommonJS module is its own default export, and may also have one. */
function exportsOf(module: Record<string, unknown>): { byDefault: unknown; others: [string, unknown][] } {
  const { default: outer, ...named } = module;
  const inner = typeof outer === 'object' && outer !== null && !isSource(outer) && !types.isPromise(outer) ? outer : {};
  const byDefault = 'default' in inner ? inner.default : outer;
  return { byDefault, others: Object.entries({ ...named, ...inner }) };
}

/** Resolves a promise, or calls a function without parameters. Classes are not called. */
async function given(value: unknown): Promise<unknown> {
  const isFactory =
    typeof value === 'function' && value.length === 0 && !/^class\b/.test(Function.prototype.toString.call(value));
  return isFactory ? (value as () => unknown)() : value;
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
