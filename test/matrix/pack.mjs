import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run, runNpm } from './tools.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Packs the built package into a folder. Other tests use the build at the same time, so it is made anew only where
 * there is none, unless that is asked for.
 */
export async function pack(folder, { build = !existsSync(join(root, 'dist/esm/index.js')) } = {}) {
  if (build) await run([process.execPath, 'lib/build.mjs'], { cwd: root, env: {} });
  const printed = await runNpm(['pack', '--json', '--loglevel=error', '--pack-destination', folder], root);
  const [{ filename, files, size, entryCount }] = JSON.parse(printed);
  const tarball = join(folder, filename);
  const digest = createHash('sha256').update(readFileSync(tarball)).digest('hex');
  return { tarball, digest, files: files.map(({ path }) => path), size, entryCount };
}
