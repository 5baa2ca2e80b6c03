// Compiles the code of the pages: each block of TypeScript that begins with an import is a whole module. A line such as
// `app.module.ts` in front of a block names its file, so that others of the same page can import it.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import ts from 'typescript';
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
    files.set(join(docs, '.code', basename(page, '.md'), name ? basename(name) : `line-${line}.ts`), {
      page: basename(page),
      line,
      code,
    });
  }
}

const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), (path) => ts.sys.readFile(path));
const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: [] }, ts.sys, root);
Object.assign(options, { noEmit: true, noUnusedLocals: false, configFilePath: join(root, 'tsconfig.json') });
const host = ts.createCompilerHost(options);
// The folder of the blocks is not there, and is not to be looked for.
host.directoryExists = undefined;
host.fileExists = (path) => files.has(path) || ts.sys.fileExists(path);
host.readFile = (path) => files.get(path)?.code ?? ts.sys.readFile(path);

const program = ts.createProgram([...files.keys(), join(docs, '.vitepress', 'modules.d.ts')], options, host);
const found = [...files.keys()].flatMap((path) => {
  const source = program.getSourceFile(path);
  return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
});
for (const { file, start, messageText } of found) {
  const { page, line } = files.get(file.fileName);
  console.error(
    `${page}:${line + 1 + file.getLineAndCharacterOfPosition(start).line}: ` +
      ts.flattenDiagnosticMessageText(messageText, '\n'),
  );
}
console.log(`${files.size} blocks of code compiled, ${found.length} mistakes`);
process.exitCode = found.length > 0 || files.size < 20 ? 1 : 0;
