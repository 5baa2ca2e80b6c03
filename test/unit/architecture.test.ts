import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

const lib = fileURLToPath(new URL('../../lib', import.meta.url));

interface Import {
  readonly from: string;
  /** A path within lib, or the name of a package. */
  readonly to: string;
  readonly typeOnly: boolean;
}

const files = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

function importsOf(file: string): Import[] {
  const source = ts.createSourceFile(file, readFileSync(join(lib, file), 'utf8'), ts.ScriptTarget.Latest, true);
  const found: Import[] = [];
  const add = (name: string, typeOnly: boolean): void => {
    const to = name.startsWith('.') ? relative(lib, resolve(lib, dirname(file), name)).replace(/\.js$/, '.ts') : name;
    found.push({ from: file, to, typeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      if (node.moduleSpecifier && ts.isStringLiteral(node.moduleSpecifier)) {
        const clause = ts.isImportDeclaration(node) ? node.importClause : undefined;
        const named = clause?.namedBindings;
        const allTypes = named && ts.isNamedImports(named) && !clause.name && named.elements.every(({ isTypeOnly }) => isTypeOnly);
        const typeOnly = ts.isExportDeclaration(node)
          ? node.isTypeOnly
          : clause?.phaseModifier === ts.SyntaxKind.TypeKeyword || Boolean(allTypes);
        add(node.moduleSpecifier.text, typeOnly);
      }
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword && ts.isStringLiteral(node.arguments[0]!)) {
      add(node.arguments[0].text, false);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const imports = files.flatMap(importsOf);
const where = (condition: (one: Import) => boolean): string[] => imports.filter(condition).map(({ from, to }) => `${from} → ${to}`);
const isOneOf = (file: string, ...places: string[]): boolean => places.some((place) => file === place || file.startsWith(`${place}/`));
/** What puts everything together. */
const WIRING = ['visit.module.ts', 'index.ts', 'cli'];

describe('The rooms', () => {
  test('are all there', () => {
    expect(files.length).toBeGreaterThan(40);
    expect(imports.length).toBeGreaterThan(150);
  });

  test('typeorm is named by its store only, and by types of options', () => {
    expect(where(({ from, to, typeOnly }) => /^typeorm/.test(to) && !isOneOf(from, 'store/typeorm') && !typeOnly)).toEqual([]);
    expect(where(({ from, to }) => /^typeorm/.test(to) && !isOneOf(from, 'store/typeorm', 'options', 'cli'))).toEqual([]);
  });

  test('Express and Fastify are known by their platforms only', () => {
    expect(where(({ to }) => /^(express|fastify|@nestjs\/platform)/.test(to))).toEqual([]);
    expect(where(({ from, to }) => /platform\/(express|fastify)/.test(to) && !isOneOf(from, 'platform'))).toEqual([]);
  });

  test('stores import the contract, the ground and their own library, and only wiring imports them', () => {
    const adapter = (file: string): boolean => isOneOf(file, 'store/typeorm', 'store/memory');
    expect(where(({ from, to }) => adapter(to) && !adapter(from) && !isOneOf(from, ...WIRING))).toEqual([]);
    const allowed = ['store', 'errors', 'key/visit-key.ts'];
    expect(where(({ from, to }) => adapter(from) && to.endsWith('.ts') && !isOneOf(to, ...allowed))).toEqual([]);
  });

  test('the ground stands on nothing', () => {
    expect(where(({ from, to }) => isOneOf(from, 'errors', 'key/visit-key.ts') && to.endsWith('.ts'))).toEqual([]);
  });

  test('no cycles', () => {
    const next = new Map<string, string[]>();
    for (const { from, to, typeOnly } of imports) if (!typeOnly && to.endsWith('.ts')) next.set(from, [...(next.get(from) ?? []), to]);
    const done = new Set<string>();
    const cycles: string[] = [];
    const walk = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(' → '));
      if (path.includes(file) || done.has(file)) return;
      for (const to of next.get(file) ?? []) walk(to, [...path, file]);
      done.add(file);
    };
    for (const file of next.keys()) walk(file, []);
    expect(cycles).toEqual([]);
  });

  test('nothing that only one module format has', () => {
    for (const file of files) expect(readFileSync(join(lib, file), 'utf8'), file).not.toMatch(/import\.meta|^await /m);
  });
});
