import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    /** The file to start an application from. */
    readonly appFile: string;
  }
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Before the tests of this folder: the application of `fixtures/app.mjs` in few files, with the built package and all
 * other packages. Its processes are started by the dozen, and would spend half of their processor time on finding and
 * loading a thousand files. Resolves to what removes it.
 */
export default async function bundleApp(project: TestProject): Promise<() => void> {
  mkdirSync(join(root, 'artifacts'), { recursive: true });
  // Where it finds the package that is not in it.
  const folder = mkdtempSync(join(root, 'artifacts/app-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const bundle = await rolldown({
      cwd: root,
      input: fileURLToPath(new URL('fixtures/app.mjs', import.meta.url)),
      platform: 'node',
      external: (id, importer) => isRunFirst(id) || isAbsent(id, importer),
      logLevel: 'warn',
    });
    // Errors and providers are told by the names of their classes.
    await bundle.write({ dir: folder, format: 'esm', keepNames: true });
    await bundle.close();
  } catch (error) {
    remove();
    throw error;
  }
  project.provide('appFile', join(folder, 'app.js'));
  return remove;
}

/** In the bundle, it would run after the decorators that need it. */
const isRunFirst = (id: string): boolean => id === 'reflect-metadata';

/** Optional packages that are not installed: whoever imports them handles the error. */
function isAbsent(id: string, importer = join(root, 'package.json')): boolean {
  if (id.startsWith('.') || isAbsolute(id)) return false;
  try {
    createRequire(importer).resolve(id);
    return false;
  } catch {
    return true;
  }
}
