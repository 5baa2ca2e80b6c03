// Builds lib/ twice with plain tsc: ES modules into dist/esm, CommonJS into dist/cjs. The condition "module-sync" in
// package.json gives `import` and `require` the same (ES module) instance on Node 20.19 and later; dist/cjs serves
// tools that resolve "require" only, such as Jest.
import { execFileSync } from 'node:child_process';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

for (const [format, type] of [
  ['esm', 'module'],
  ['cjs', 'commonjs'],
]) {
  rmSync(`${root}dist/${format}`, { recursive: true, force: true });
  execFileSync(process.execPath, [tsc, '-p', `${root}lib/tsconfig.${format}.json`], { stdio: 'inherit', cwd: root });
  writeFileSync(`${root}dist/${format}/package.json`, `${JSON.stringify({ type })}\n`);
  chmodSync(`${root}dist/${format}/cli/main.js`, 0o755);
}
