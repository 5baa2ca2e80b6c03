import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { DataSource, DataSourceOptions } from 'typeorm';
import { UsageError } from './usage.error.js';

/**
 * The data source that a file exports, by default or under any name: a DataSource, its options, or a function or promise
 * that gives one of them.
 *
 * @throws UsageError when there is no such file, or nothing of that kind in it
 */
export async function readDataSource(file: string): Promise<DataSource | DataSourceOptions> {
  const path = resolve(file);
  if (!existsSync(path)) throw new UsageError(`there is no file ${path}`);
  if (/\.[cm]?tsx?$/.test(path))
    throw new UsageError(`${file} is TypeScript: name the file that it is compiled to, such as ./dist/data-source.js`);
  let exported: Record<string, unknown>;
  try {
    exported = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    throw new UsageError(`${file} cannot be loaded: ${(error as Error).message}`);
  }
  // A CommonJS module is the default export of itself.
  const inner = exported['default'];
  const candidates = [inner, ...Object.values(exported), ...(typeof inner === 'object' && inner !== null ? Object.values(inner) : [])];
  for (const candidate of candidates) {
    const value = isSource(candidate) ? candidate : await given(candidate);
    if (isSource(value)) return value;
  }
  throw new UsageError(`${file} exports no DataSource of typeorm, nor options of one`);
}

async function given(candidate: unknown): Promise<unknown> {
  // Only what can be called without arguments; a class cannot.
  const isFactory =
    typeof candidate === 'function' && candidate.length === 0 && !/^class\b/.test(Function.prototype.toString.call(candidate));
  return isFactory
    ? await (candidate as () => unknown)()
    : candidate instanceof Promise
      ? await candidate
      : undefined;
}

function isSource(value: unknown): value is DataSource | DataSourceOptions {
  if (typeof value !== 'object' || value === null) return false;
  return 'createQueryRunner' in value || ('type' in value && typeof value.type === 'string');
}
