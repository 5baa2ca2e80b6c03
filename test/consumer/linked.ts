import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { firstExample } from '../matrix/application.mjs';

/** An application of the matrix has its turn once in so many days. */
export const MATRIX_EVERY = 3;

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** The module of docs/store-redis.md, in the first example. */
export async function exampleWithRedis(): Promise<[name: string, text: string][]> {
  const page = await readFile(join(root, 'docs/store-redis.md'), 'utf8');
  const module = page.split('`app.module.ts`\n\n```ts\n')[1]!.split('```')[0]!;
  const others = firstExample().filter(([name]) => name !== 'app.module.ts');
  return [['app.module.ts', module], ...others];
}

/**
 * A folder with the built package as npm would put it there, beside packages that are links to those of the repository:
 * what is true of the package, whatever its versions are, needs no installation.
 */
export async function linkedFolder(place: string, packages: readonly string[]): Promise<void> {
  const modules = join(place, 'node_modules');
  await Promise.all(packages.map((name) => link(place, name)));
  const { files } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { files: string[] };
  // A copy, because what a link leads to finds the packages beside the original.
  for (const part of ['package.json', ...files])
    await cp(join(root, part), join(modules, 'nest-visit', part), { recursive: true });
}

async function link(place: string, name: string): Promise<void> {
  const target = join(place, 'node_modules', name);
  await mkdir(dirname(target), { recursive: true });
  await symlink(join(root, 'node_modules', name), target, 'dir');
}

const parsed = new Map<string, ts.SourceFile | undefined>();

/** The declarations of Node, Nest and TypeORM are parsed once for all programs of this process. */
function hostOf(options: ts.CompilerOptions, place: string): ts.CompilerHost {
  const host = ts.createCompilerHost(options);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getCurrentDirectory = () => place;
  host.getSourceFile = (file, how, ...more) => {
    const format = typeof how === 'object' ? [how.languageVersion, how.impliedNodeFormat] : [how];
    const key = [file, options.moduleResolution, options.module, ...format].join(' ');
    if (!parsed.has(key)) parsed.set(key, getSourceFile(file, how, ...more));
    return parsed.get(key);
  };
  return host;
}

export interface Compilation {
  /** A folder within the linked one, which is made; compiled to `dist` of that. */
  readonly name: string;
  readonly type: 'module' | 'commonjs';
  readonly sources: readonly [name: string, text: string][];
  readonly options?: ts.CompilerOptions;
}

/**
 * Compiles files of an application as `tsc` does without `skipLibCheck`, and gives what it would say of them and of the
 * declarations of nest-visit: the types of other packages are not ours to check.
 */
export async function compile(place: string, { name, type, sources, options = {} }: Compilation): Promise<string[]> {
  const folder = join(place, name);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type }));
  for (const [file, text] of sources) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), text);
  }
  const all: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    strict: true,
    skipLibCheck: false,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    types: ['node'],
    rootDir: folder,
    outDir: join(folder, 'dist'),
    ...options,
  };
  const files = sources.map(([file]) => join(folder, file));
  const program = ts.createProgram(files, all, hostOf(all, folder));
  const ours = program
    .getSourceFiles()
    .filter(({ fileName }) => files.includes(fileName) || fileName.includes('node_modules/nest-visit/'));
  if (!ours.some(({ fileName }) => fileName.includes('node_modules/nest-visit/')))
    return ['the declarations of nest-visit were not found'];
  const found = [
    ...program.getOptionsDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...ours.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
  ];
  // One by one: to emit all at once, the compiler checks the declarations of all packages.
  if (!all.noEmit) for (const file of files) program.emit(program.getSourceFile(file));
  return found.map(
    ({ file, messageText }) => `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
  );
}

/** The names of all packages of a folder of packages. */
export async function packagesIn(place: string): Promise<string[]> {
  return readdir(join(place, 'node_modules'));
}
