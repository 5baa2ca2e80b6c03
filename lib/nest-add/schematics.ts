// The part of the schematics runtime that is used here. The Nest CLI brings the runtime. This package must not depend
// on it or import it, because applications in production do not have the CLI.

/** The files of the application. Nothing is written until the schematic has succeeded. */
export interface Tree {
  exists(path: string): boolean;
  readText(path: string): string;
  overwrite(path: string, text: string): void;
  create(path: string, text: string): void;
  getDir(path: string): Folder;
}

interface Folder {
  readonly path: string;
  readonly subfiles: readonly string[];
  readonly subdirs: readonly string[];
  dir(name: string): Folder;
}

export interface SchematicContext {
  readonly logger: { info(text: string): void; warn(text: string): void };
  addTask(task: { toConfiguration(): { name: string; options: object } }): unknown;
}

/** The TypeScript sources below a folder, without tests and declarations. */
export function sourcesBelow(tree: Tree, path: string): string[] {
  const search = (folder: Folder): string[] => [
    ...folder.subfiles
      .filter((name) => name.endsWith('.ts') && !/\.d\.ts$|[.-](spec|test)\.ts$/.test(name))
      .map((name) => `${folder.path}/${name}`.replace(/^\/+/, '')),
    ...folder.subdirs
      .filter((name) => !/^(node_modules|dist|\..*)$/.test(name))
      .flatMap((name) => search(folder.dir(name))),
  ];
  return search(tree.getDir(`/${path}`));
}

/** Installs packages after the files have been written, with the package manager that the lock file belongs to. */
export function install(tree: Tree, context: SchematicContext, packages: readonly string[]): void {
  const managers: Record<string, string> = {
    'pnpm-lock.yaml': 'pnpm',
    'yarn.lock': 'yarn',
    'bun.lock': 'bun',
    'bun.lockb': 'bun',
    'package-lock.json': 'npm',
  };
  const lock = Object.keys(managers).find((file) => tree.exists(file));
  const options = {
    command: 'install',
    packageName: packages.join(' '),
    ...(lock && { packageManager: managers[lock] }),
  };
  context.addTask({ toConfiguration: () => ({ name: 'node-package', options }) });
}
