import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const page = fileURLToPath(new URL('../../docs/writing-a-store.md', import.meta.url));

/** The files that docs/writing-a-store.md shows, by their names. */
export function documentedFiles(): ReadonlyMap<string, string> {
  const blocks = readFileSync(page, 'utf8').matchAll(/^`([\w.-]+\.ts)`\n\n```ts\n([^]*?)^```$/gm);
  return new Map([...blocks].map(([, name, text]) => [name!, text!]));
}

/** The same files as JavaScript. */
export function transpiled(text: string, module: ts.ModuleKind): string {
  return ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module, esModuleInterop: true },
  }).outputText;
}
