// Builds lib/: ES modules into dist/esm by tsc, and from these CommonJS into dist/cjs, with the same types. The
// condition "module-sync" in package.json gives `import` and `require` the same (ES module) instance on Node 20.19 and
// later; dist/cjs serves tools that resolve "require" only, such as Jest. With --noCheck, types are checked elsewhere.
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const [esm, cjs] = [join(root, 'dist/esm'), join(root, 'dist/cjs')];
for (const folder of [esm, cjs]) rmSync(folder, { recursive: true, force: true });

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
const args = ['-p', join(root, 'lib/tsconfig.json'), ...process.argv.slice(2)];
execFileSync(process.execPath, [tsc, ...args], { stdio: 'inherit', cwd: root });

// Everything that needs types, such as the metadata of decorators, is in the JavaScript already.
const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022, esModuleInterop: true };
for (const path of readdirSync(esm, { recursive: true })) {
  const [from, to] = [join(esm, path), join(cjs, path)];
  mkdirSync(dirname(to), { recursive: true });
  if (path.endsWith('.d.ts')) copyFileSync(from, to);
  else if (path.endsWith('.js'))
    writeFileSync(to, ts.transpileModule(readFileSync(from, 'utf8'), { compilerOptions }).outputText);
}

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
