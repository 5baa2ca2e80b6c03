// Builds lib/: ES modules into dist/esm by tsc, and from these CommonJS into dist/cjs, with the same types. The
// condition "module-sync" in package.json gives `import` and `require` the same (ES module) instance on Node 20.19 and
// later; dist/cjs serves tools that resolve "require" only, such as Jest.
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const [esm, cjs] = [join(root, 'dist/esm'), join(root, 'dist/cjs')];
for (const folder of [esm, cjs]) rmSync(folder, { recursive: true, force: true });

function tsc(...args) {
  const program = join(root, 'node_modules/@typescript/native/bin/tsc');
  const { status } = spawnSync(process.execPath, [program, ...args], { stdio: 'inherit', cwd: root });
  if (status !== 0) process.exit(status ?? 1);
}

tsc('-p', join(root, 'lib/tsconfig.json'));
const built = readdirSync(esm, { recursive: true });
// Everything that needs types, such as the metadata of decorators, is in the JavaScript already.
const asCommonJs = '--module commonjs --moduleResolution bundler --target es2022 --esModuleInterop --allowJs';
const asItIs = '--ignoreConfig --noCheck --noResolve --types';
const scripts = built.filter((path) => path.endsWith('.js')).map((path) => join(esm, path));
tsc(...`${asCommonJs} ${asItIs}`.split(' '), '', '--rootDir', esm, '--outDir', cjs, ...scripts);
for (const path of built) if (path.endsWith('.d.ts')) copyFileSync(join(esm, path), join(cjs, path));

// The schematic for `nest add`: its runtime wants CommonJS, and reads what it offers from JSON.
for (const file of ['collection.json', 'schema.json'])
  copyFileSync(join(root, 'lib/nest-add', file), join(cjs, 'nest-add', file));
rmSync(join(esm, 'nest-add'), { recursive: true });

for (const [folder, type] of [
  [esm, 'module'],
  [cjs, 'commonjs'],
]) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ type })}\n`);
  chmodSync(join(folder, 'cli/main.js'), 0o755);
}
