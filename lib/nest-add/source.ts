import { createRequire } from 'node:module';
import { join } from 'node:path';
import type ts from 'typescript';

export type TypeScript = typeof ts;

/**
 * TypeScript of the application, or else of its Nest CLI.
 *
 * @throws Error if neither can be used by programs, as TypeScript 7 cannot
 */
export function applicationTypeScript(folder = process.cwd()): TypeScript {
  const application = createRequire(join(folder, 'package.json'));
  const places = [
    (): unknown => application('typescript'),
    (): unknown => createRequire(application.resolve('@nestjs/cli/package.json'))('typescript'),
  ];
  for (const load of places) {
    try {
      const loaded = load() as Partial<TypeScript>;
      if (typeof loaded.createSourceFile === 'function') return loaded as TypeScript;
    } catch {
      // Try the next place.
    }
  }
  throw new Error(
    'nest add needs TypeScript 5 or 6, to read the modules of the application: npm install --save-dev typescript@6',
  );
}

/** The imports of a file: names of a package or of another file. */
export interface NamedImport {
  readonly names: readonly string[];
  readonly from: string;
  readonly isType?: true;
}

/** A source file and the insertions to make in it. Its style of quotes and semicolons is kept. */
export class Source {
  readonly file: ts.SourceFile;
  private readonly edits: { start: number; end: number; text: string }[] = [];
  private readonly added: NamedImport[] = [];

  constructor(
    private readonly typescript: TypeScript,
    readonly path: string,
    readonly text: string,
  ) {
    this.file = typescript.createSourceFile(path, text, typescript.ScriptTarget.Latest, true);
  }

  /** All nodes of a kind, in the order of the source text. */
  find<T extends ts.Node>(is: (node: ts.Node) => node is T): T[] {
    const found: T[] = [];
    const visit = (node: ts.Node): void => {
      if (is(node)) found.push(node);
      this.typescript.forEachChild(node, visit);
    };
    visit(this.file);
    return found;
  }

  /** Calls such as `NestFactory.create(…)`; without a method name, calls of any method of the object. */
  calls(object: string, method = /^/): ts.CallExpression[] {
    const { isCallExpression, isPropertyAccessExpression } = this.typescript;
    return this.find(isCallExpression).filter(
      ({ expression }) =>
        isPropertyAccessExpression(expression) &&
        expression.expression.getText() === object &&
        method.test(expression.name.text),
    );
  }

  imports(): ts.ImportDeclaration[] {
    return this.file.statements.filter(this.typescript.isImportDeclaration);
  }

  /** Where a local name is imported from, and its original name. */
  importOf(local: string): { name: string; from: string } | undefined {
    for (const { importClause, moduleSpecifier } of this.imports()) {
      const from = (moduleSpecifier as ts.StringLiteral).text;
      if (importClause?.name?.text === local) return { name: 'default', from };
      const bindings = importClause?.namedBindings;
      if (!bindings || !this.typescript.isNamedImports(bindings)) continue;
      const element = bindings.elements.find(({ name }) => name.text === local);
      if (element) return { name: (element.propertyName ?? element.name).text, from };
    }
    return undefined;
  }

  /** The object that a class decorator is called with; null if it is called with something else or nothing. */
  decorators(
    name: string,
  ): { owner: ts.ClassDeclaration; call: ts.CallExpression; argument: ts.ObjectLiteralExpression | null }[] {
    const { canHaveDecorators, getDecorators, isCallExpression, isClassDeclaration, isObjectLiteralExpression } =
      this.typescript;
    return this.find(isClassDeclaration).flatMap((owner) =>
      (canHaveDecorators(owner) ? (getDecorators(owner) ?? []) : []).flatMap(({ expression: call }) => {
        if (!isCallExpression(call) || call.expression.getText() !== name) return [];
        const [first] = call.arguments;
        return [{ owner, call, argument: first && isObjectLiteralExpression(first) ? first : null }];
      }),
    );
  }

  property(object: ts.ObjectLiteralExpression, name: string): ts.PropertyAssignment | undefined {
    const { isPropertyAssignment } = this.typescript;
    return object.properties
      .filter(isPropertyAssignment)
      .find((property) => property.name.getText().replaceAll(/['"]/g, '') === name);
  }

  addImport(added: NamedImport): void {
    const names = added.names.filter((name) => !this.importOf(name));
    const same = this.added.findIndex(({ from, isType }) => from === added.from && isType === added.isType);
    if (same >= 0) this.added[same] = { ...added, names: [...new Set([...this.added[same]!.names, ...names])].sort() };
    else if (names.length > 0) this.added.push({ ...added, names });
  }

  /**
   * Adds an element to the list in a property of an object. False if the property is not a list, so that nothing can be
   * added.
   */
  addToList(object: ts.ObjectLiteralExpression, name: string, element: string): boolean {
    if (object.properties.some((one) => one.name?.getText() === name && !this.property(object, name))) return false;
    const initializer = this.property(object, name)?.initializer;
    if (!initializer) {
      this.addProperty(object, name, this.list([element], this.indentOf(object) + 2));
      return true;
    }
    if (!this.typescript.isArrayLiteralExpression(initializer)) return false;
    const { elements } = initializer;
    const last = elements.at(-1);
    const indent = this.indentOf(initializer);
    const end = initializer.getEnd() - 1;
    const column = this.columnOf(initializer);
    // The insides of the elements are not changed, because other insertions may apply to them.
    if (!last) this.edit(initializer.getStart(), end + 1, this.list([element], indent, column));
    else if (initializer.getText().includes('\n'))
      this.edit(last.getEnd(), last.getEnd(), `,\n${indented(element, this.indentOf(last))}`);
    else if (
      isShort(element) ||
      (!element.includes('\n') && column + initializer.getText().length + element.length < 78)
    )
      this.edit(last.getEnd(), last.getEnd(), `, ${element}`);
    else {
      const line = `\n${' '.repeat(indent + 2)}`;
      elements.forEach((one, i) =>
        this.edit(elements[i - 1]?.getEnd() ?? initializer.getStart() + 1, one.getStart(), i > 0 ? `,${line}` : line),
      );
      this.edit(last.getEnd(), end, `,\n${indented(element, indent + 2)},\n${' '.repeat(indent)}`);
    }
    return true;
  }

  addProperty(object: ts.ObjectLiteralExpression, name: string, value: string): void {
    const last = object.properties.at(-1);
    const isBroken = object.getText().includes('\n');
    const indent = this.indentOf(object);
    if (!last)
      this.edit(
        object.getStart(),
        object.getEnd(),
        `{\n${indented(`${name}: ${value}`, indent + 2)},\n${' '.repeat(indent)}}`,
      );
    else if (isBroken)
      this.edit(last.getEnd(), last.getEnd(), `,\n${' '.repeat(this.indentOf(last))}${name}: ${value}`);
    else this.edit(last.getEnd(), last.getEnd(), `, ${name}: ${value}`);
  }

  edit(start: number, end: number, text: string): void {
    this.edits.push({ start, end, text: this.inItsQuotes(text) });
  }

  /** The text with all insertions. */
  print(): string {
    const last = this.imports().at(-1);
    const end = last?.getEnd() ?? 0;
    const lines = this.added.map(({ names, from, isType }) =>
      this.inItsQuotes(
        `import ${isType ? 'type ' : ''}{ ${names.join(', ')} } from '${from}'${this.hasSemicolons() ? ';' : ''}`,
      ),
    );
    const text = last ? lines.map((line) => `\n${line}`).join('') : lines.map((line) => `${line}\n`).join('');
    // Several insertions at one position keep their order.
    const edits = [{ start: end, end, text }, ...this.edits].map((edit, order) => ({ ...edit, order }));
    edits.sort((a, b) => b.start - a.start || b.order - a.order);
    let result = this.text;
    for (const edit of edits) result = result.slice(0, edit.start) + edit.text + result.slice(edit.end);
    return result;
  }

  private list(elements: readonly string[], indent: number, column = indent): string {
    const line = `[${elements.join(', ')}]`;
    if (elements.every(isShort) || (!line.includes('\n') && column + line.length < 80)) return line;
    return `[\n${elements.map((element) => `${indented(element, indent + 2)},\n`).join('')}${' '.repeat(indent)}]`;
  }

  private indentOf(node: ts.Node): number {
    const { line } = this.file.getLineAndCharacterOfPosition(node.getStart());
    return /^\s*/.exec(this.text.slice(this.file.getPositionOfLineAndCharacter(line, 0)))![0].length;
  }

  private columnOf(node: ts.Node): number {
    return this.file.getLineAndCharacterOfPosition(node.getStart()).character;
  }

  private inItsQuotes(text: string): string {
    return this.imports()[0]?.moduleSpecifier.getText().startsWith('"') ? text.replaceAll("'", '"') : text;
  }

  private hasSemicolons(): boolean {
    return this.imports()[0]?.getText().endsWith(';') ?? true;
  }
}

/** Such as `...visitEntities`, which is not worth a line of its own. */
function isShort(element: string): boolean {
  return element.length < 24;
}

/** Indents all lines, including the first one. */
function indented(text: string, by: number): string {
  return text.replaceAll(/^(?=.)/gm, ' '.repeat(by));
}
