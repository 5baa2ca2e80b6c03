import { dirname, join } from 'node:path/posix';
import type ts from 'typescript';
import { sourcesBelow, type Tree } from './schematics.js';
import { Source, type TypeScript } from './source.js';

/** The module that the application is created from. */
export interface RootModule {
  readonly source: Source;
  readonly name: string;
  /** The argument of `@Module()`, or the call if it has none. */
  readonly metadata: ts.ObjectLiteralExpression | ts.CallExpression;
}

const AGAIN = 'Specify its file, and run this command again: nest add nest-visit --module src/app.module.ts';

/**
 * @param file of the root module, if known
 * @throws Error with instructions if it cannot be found or read
 */
export function findRootModule(tree: Tree, typescript: TypeScript, sourceRoot: string, file?: string): RootModule {
  const read = (path: string): Source => new Source(typescript, path, tree.readText(path));
  if (file !== undefined) {
    if (!tree.exists(file)) throw new Error(`There is no file ${file}. ${AGAIN}`);
    return moduleIn(read(file)) ?? fail(`${file} has no class with @Module(). ${AGAIN}`);
  }
  const entries = createdIn(tree, sourceRoot, read);
  const [entry] = entries;
  if (!entry)
    throw new Error(
      `The root module was not found: no file in ${sourceRoot}/ calls NestFactory.create() with the name of a ` +
        `class. ${AGAIN}`,
    );
  const names = [...new Set(entries.map(({ name }) => name))];
  if (names.length > 1) throw new Error(`There are several root modules: ${names.join(', ')}. ${AGAIN}`);
  const places = [...imported(tree, entry), entry.source.path, ...sourcesBelow(tree, sourceRoot)];
  for (const path of new Set(places)) {
    const { name } = entry.source.importOf(entry.name) ?? entry;
    const found = moduleIn(read(path), name === 'default' ? undefined : name);
    if (found) return found;
  }
  return fail(
    `The root module ${entry.name} was not found: ${entry.source.path} uses it, but no class with @Module() has ` +
      `this name. ${AGAIN}`,
  );
}

/** The places where applications are created: in main.ts, or else in any other file. */
function createdIn(tree: Tree, sourceRoot: string, read: (path: string) => Source): { source: Source; name: string }[] {
  const main = `${sourceRoot}/main.ts`;
  const rest = sourcesBelow(tree, sourceRoot).filter((path) => path !== main);
  for (const paths of [tree.exists(main) ? [main] : [], rest]) {
    const found = paths
      .filter((path) => tree.readText(path).includes('NestFactory'))
      .map(read)
      .flatMap((source) =>
        source.calls('NestFactory', /^create$/).flatMap(({ arguments: [first] }) => {
          const name = first?.getText() ?? '';
          return /^\w+$/.test(name) ? [{ source, name }] : [];
        }),
      );
    if (found.length > 0) return found;
  }
  return [];
}

/** The file that a name is imported from, if its path is relative and the file exists. */
function imported(tree: Tree, { source, name }: { source: Source; name: string }): string[] {
  const from = source.importOf(name)?.from;
  if (!from?.startsWith('.')) return [];
  const path = join(dirname(source.path), from).replace(/\.[jt]s$/, '');
  return [`${path}.ts`, `${path}/index.ts`].filter((candidate) => tree.exists(candidate));
}

function moduleIn(source: Source, name?: string): RootModule | undefined {
  const found = source.decorators('Module').filter(({ owner }) => name === undefined || owner.name?.text === name);
  if (found.length > 1)
    throw new Error(
      `${source.path} has several modules; VisitModule belongs in the one that is passed to NestFactory.create().`,
    );
  const [only] = found;
  if (!only) return undefined;
  const { owner, call, argument } = only;
  const nameHere = owner.name?.text ?? 'the root module';
  if (!argument && call.arguments.length > 0)
    throw new Error(
      `${source.path}: @Module() of ${nameHere} is not called with an object, so nothing can be added to it. Add ` +
        'VisitModule.forRoot() to its imports by hand.',
    );
  return { source, name: nameHere, metadata: argument ?? call };
}

function fail(message: string): never {
  throw new Error(message);
}
