import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, test } from 'vitest';

// What the package promises to those who import it, in one file that a reviewer reads as a diff. Read from the source
// by its syntax alone: no types are resolved, so it takes no time.

const root = fileURLToPath(new URL('../..', import.meta.url));

const parsed = new Map<string, ts.SourceFile>();
function sourceOf(file: string): ts.SourceFile {
  const source =
    parsed.get(file) ?? ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.ES2022, true);
  parsed.set(file, source);
  return source;
}

type Declaration =
  | ts.ClassDeclaration
  | ts.InterfaceDeclaration
  | ts.FunctionDeclaration
  | ts.TypeAliasDeclaration
  | ts.EnumDeclaration
  | ts.VariableDeclaration;

const isDeclaration = (node: ts.Node): node is Declaration =>
  ts.isClassDeclaration(node) ||
  ts.isInterfaceDeclaration(node) ||
  ts.isFunctionDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isEnumDeclaration(node);

const isExported = (node: ts.Node): boolean =>
  ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);

const targetOf = (file: string, specifier: ts.Expression): string | undefined => {
  const { text } = specifier as ts.StringLiteral;
  return text.startsWith('.') ? join(dirname(file), text).replace(/\.js$/, '.ts') : undefined;
};

/** All declarations of a name in a file: a function may have several, and a class an interface beside it. */
function declarationsOf(file: string, name: string): Declaration[] {
  const found: Declaration[] = [];
  for (const statement of sourceOf(file).statements) {
    if (isDeclaration(statement) && statement.name?.text === name) found.push(statement);
    if (ts.isVariableStatement(statement)) {
      found.push(...statement.declarationList.declarations.filter(({ name: own }) => own.getText() === name));
    }
    const clause = ts.isImportDeclaration(statement) ? statement.importClause?.namedBindings : undefined;
    if (clause && ts.isNamedImports(clause)) {
      const element = clause.elements.find((one) => one.name.text === name);
      const target = element && targetOf(file, (statement as ts.ImportDeclaration).moduleSpecifier);
      if (target) found.push(...declarationsOf(target, (element.propertyName ?? element.name).text));
    }
  }
  return found.length > 0 ? found : (exportsOf(file).get(name) ?? []);
}

/** What a file exports, whichever file declares it. Names from other packages have no declaration here. */
function exportsOf(file: string): Map<string, Declaration[]> {
  const names = new Map<string, Declaration[]>();
  for (const statement of sourceOf(file).statements) {
    if (ts.isExportDeclaration(statement)) {
      const target = statement.moduleSpecifier && targetOf(file, statement.moduleSpecifier);
      if (!statement.exportClause) {
        for (const [name, nodes] of target ? exportsOf(target) : []) names.set(name, nodes);
      } else if (ts.isNamedExports(statement.exportClause)) {
        for (const element of statement.exportClause.elements) {
          const from = (element.propertyName ?? element.name).text;
          const isOurs = target !== undefined || !statement.moduleSpecifier;
          names.set(element.name.text, isOurs ? declarationsOf(target ?? file, from) : []);
        }
      }
    } else if (ts.isVariableStatement(statement) && isExported(statement)) {
      for (const declaration of statement.declarationList.declarations)
        names.set(declaration.name.getText(), [declaration]);
    } else if (isDeclaration(statement) && isExported(statement)) {
      names.set(statement.name!.text, [...(names.get(statement.name!.text) ?? []), statement]);
    }
  }
  return names;
}

/** The text of nodes without comments, in one line. */
const flat = (...nodes: readonly (ts.Node | undefined)[]): string => {
  const printer = ts.createPrinter({ removeComments: true });
  const texts = nodes.map((node) => node && printer.printNode(ts.EmitHint.Unspecified, node, node.getSourceFile()));
  return texts.join('').replaceAll(/\s+/g, ' ');
};
const list = (nodes: readonly ts.Node[] | undefined): string => (nodes ?? []).map((node) => flat(node)).join(', ');
const generics = (nodes: readonly ts.Node[] | undefined): string => (nodes ? `<${list(nodes)}>` : '');

/** What is overridden is told by the class that declares it. */
const HIDDEN = new Set([ts.SyntaxKind.PrivateKeyword, ts.SyntaxKind.ProtectedKeyword, ts.SyntaxKind.OverrideKeyword]);
const SAID = new Set([ts.SyntaxKind.StaticKeyword, ts.SyntaxKind.AbstractKeyword, ts.SyntaxKind.ReadonlyKeyword]);

function memberOf(member: ts.ClassElement | ts.TypeElement): string | undefined {
  const modifiers = ts.canHaveModifiers(member) ? (ts.getModifiers(member) ?? []) : [];
  if (modifiers.some(({ kind }) => HIDDEN.has(kind)) || (member.name && ts.isPrivateIdentifier(member.name)))
    return undefined;
  const start = modifiers.filter(({ kind }) => SAID.has(kind)).map((modifier) => `${flat(modifier)} `);
  const name = member.name ? member.name.getText() : '';
  const mark = 'questionToken' in member && member.questionToken ? '?' : '';
  if (ts.isConstructorDeclaration(member)) {
    // Nest calls the constructor of what is injected, and nobody else.
    if (member.parameters.some((parameter) => ts.getDecorators(parameter))) return undefined;
    return `constructor(${list(member.parameters)})`;
  }
  if (ts.isPropertyDeclaration(member) || ts.isPropertySignature(member)) {
    return `${start.join('')}${name}${mark}${member.type ? `: ${flat(member.type)}` : ''}`;
  }
  if (ts.isMethodDeclaration(member) || ts.isMethodSignature(member)) {
    const result = member.type ? `: ${flat(member.type)}` : '';
    return `${start.join('')}${name}${mark}${generics(member.typeParameters)}(${list(member.parameters)})${result}`;
  }
  if (ts.isGetAccessor(member)) return `${start.join('')}get ${name}${member.type ? `: ${flat(member.type)}` : ''}`;
  return ts.isSetAccessor(member) ? `${start.join('')}set ${name}` : flat(member);
}

const basesOf = (node: Declaration): string[] =>
  ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node)
    ? (node.heritageClauses ?? []).flatMap(({ types }) => types.map(({ expression }) => expression.getText()))
    : [];

function linesOf(name: string, node: Declaration): string[] {
  if (ts.isVariableDeclaration(node)) return [`const ${name}${node.type ? `: ${flat(node.type)}` : ''}`];
  if (ts.isTypeAliasDeclaration(node)) return [`type ${name}${generics(node.typeParameters)} = ${flat(node.type)}`];
  if (ts.isFunctionDeclaration(node)) {
    return [
      `function ${name}${generics(node.typeParameters)}(${list(node.parameters)})${node.type ? `: ${flat(node.type)}` : ''}`,
    ];
  }
  if (ts.isEnumDeclaration(node)) return [`enum ${name}`, ...node.members.map((member) => `  ${flat(member)}`)];
  const kind = ts.isClassDeclaration(node) ? 'class' : 'interface';
  const heritage = (node.heritageClauses ?? []).map((clause) => ` ${flat(clause).trim()}`).join('');
  const members = node.members.flatMap((member) => memberOf(member) ?? []).map((member) => `  ${member}`);
  return [`${kind} ${name}${generics(node.typeParameters)}${heritage}`, ...members.toSorted()];
}

function reportOf(entry: string): string[] {
  const names = new Map(exportsOf(entry));
  const lines: string[] = [];
  for (const [name, nodes] of [...names].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    if (nodes.length === 0) lines.push(name);
    for (const node of nodes) {
      lines.push(...linesOf(name, node));
      // What a class has from one that is not public is public, too.
      for (const base of basesOf(node).filter((one) => !names.has(one))) {
        const file = node.getSourceFile().fileName;
        for (const hidden of declarationsOf(file, base)) lines.push(...linesOf(`${base} (base of ${name})`, hidden));
      }
    }
  }
  return lines;
}

const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: Record<string, { default: string }>;
};
const entries = Object.entries(exports).flatMap(([path, to]) =>
  path === './package.json'
    ? []
    : [[path.replace(/^\./, 'nest-visit'), to.default.replace('./dist/esm', 'lib').replace(/\.js$/, '.ts')]],
) as [string, string][];

test('every entry point has a source file', () => {
  expect(entries.length).toBeGreaterThan(5);
  expect(entries.filter(([, file]) => !existsSync(join(root, file)))).toEqual([]);
});

test('the public API is that of exports.txt; update: npx vitest run -c test/vitest.config.ts test/unit/exports -u', async () => {
  const report = entries.flatMap(([entry, file]) => ['', `# ${entry}`, '', ...reportOf(file)]);
  await expect(`${report.join('\n').trim()}\n`).toMatchFileSnapshot('exports.txt');
});
