// Compiles the code of the pages: each block of TypeScript that begins with an import is a whole module. A line such as
// `app.module.ts` in front of a block names its file, so that others of the same page can import it.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { docs, root } from './repository.mjs';

const pages = [
  join(root, 'README.md'),
  ...readdirSync(docs).flatMap((name) => (name.endsWith('.md') ? join(docs, name) : [])),
];
/** The generated client of Prisma is not there; the tests run what is said of it. */
const isWhole = (code) =>
  /^(\/\/.*\n)*import /.test(code) && !code.replaceAll(/\/\/.*$/gm, '').includes('…') && !code.includes('/generated/');

const files = new Map();
for (const page of pages) {
  const text = readFileSync(page, 'utf8');
  for (const block of text.matchAll(/(?:^`([\w./-]+)`\n\n)?^```ts\n([\s\S]*?)^```$/gm)) {
    const [, name, code] = block;
    // Jest's own resolution knows files without their ending; that of Node does not.
    if (!isWhole(code) || name?.endsWith('.spec.ts')) continue;
    const line = text.slice(0, block.index + block[0].indexOf('```ts')).split('\n').length;
    files.set(join(basename(page, '.md'), name ? basename(name) : `line-${line}.ts`), {
      page: basename(page),
      line,
      code,
    });
  }
}

// In a folder of its own, inside this project: there the blocks find its packages. Git ignores it.
const folder = join(docs, '.vitepress', '.temp', 'code');
rmSync(folder, { recursive: true, force: true });
for (const [path, { code }] of files) {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), code);
}
const config = {
  extends: join(root, 'tsconfig.json'),
  compilerOptions: { noUnusedLocals: false },
  include: ['.', join(docs, '.vitepress', 'modules.d.ts')],
};
writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));

const compiler = join(root, 'node_modules/@typescript/native/bin/tsc');
const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, '-p', '.', '--pretty', 'false'], {
  cwd: folder,
  encoding: 'utf8',
});
rmSync(folder, { recursive: true });

let mistakes = 0;
for (const line of `${stdout}${stderr}`.split('\n')) {
  const [, path, inBlock, rest] = /^(.+?)\((\d+),\d+\): (?:error .*?: )?(.*)$/.exec(line) ?? [];
  const block = path && files.get(normalize(path));
  if (path) mistakes++;
  // What is not about a line of a page is shown as the compiler has said it.
  if (line) console.error(block ? `${block.page}:${block.line + Number(inBlock)}: ${rest}` : line);
}
console.log(`${files.size} blocks of code compiled, ${mistakes} mistakes`);
process.exitCode = status !== 0 || files.size < 20 ? 1 : 0;
