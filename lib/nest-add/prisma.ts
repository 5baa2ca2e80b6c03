import { dirname, relative } from 'node:path/posix';
import { PRISMA_MODELS } from './prisma.models.js';
import { sourcesBelow, type Tree } from './schematics.js';
import type { NamedImport, Source, TypeScript } from './source.js';

/** The application's service for Prisma, and the module that exports it. */
export interface PrismaParts {
  readonly service: string;
  readonly module: string;
  readonly imports: readonly NamedImport[];
}

const BY_HAND = 'See https://github.com/nest-visit/nest-visit/blob/main/docs/store-prisma.md';

/** @throws Error with instructions if there is no such service, or no module exports it */
export function findPrismaParts(
  tree: Tree,
  { isClassDeclaration }: TypeScript,
  sourceRoot: string,
  read: (path: string) => Source,
  root: Source,
): PrismaParts {
  const sources = sourcesBelow(tree, sourceRoot)
    .filter((path) => tree.readText(path).includes('Prisma'))
    .map(read);
  const services = sources.flatMap((source) =>
    source
      .find(isClassDeclaration)
      .filter(({ heritageClauses }) =>
        heritageClauses?.some((clause) => /^extends\s+PrismaClient\b/.test(clause.getText())),
      )
      .flatMap(({ name }) => (name ? [{ source, name: name.text }] : [])),
  );
  const [service] = services;
  if (!service || services.length > 1)
    throw new Error(
      `The store for Prisma needs the application's client, a service that extends PrismaClient, and ` +
        `${sourceRoot}/ has ${services.length} such classes. ${BY_HAND}`,
    );
  for (const source of sources) {
    for (const { owner, argument } of source.decorators('Module')) {
      const exported = argument && source.property(argument, 'exports')?.initializer.getText();
      if (!owner.name || !exported || !new RegExp(`\\b${service.name}\\b`).test(exported)) continue;
      const found = [
        { name: owner.name.text, path: source.path },
        { name: service.name, path: service.source.path },
      ].filter(({ path }) => path !== root.path);
      return {
        service: service.name,
        module: owner.name.text,
        imports: found.map(({ name, path }) => ({ names: [name], from: specifier(root, path) })),
      };
    }
  }
  throw new Error(
    `No module exports ${service.name}, so VisitModule cannot inject it. Export it from the module that provides ` +
      `it, and run this command again. ${BY_HAND}`,
  );
}

/** In the style of the other imports of the file: with or without an extension. */
function specifier(from: Source, path: string): string {
  const extension = from
    .imports()
    .map(({ moduleSpecifier }) => /^['"]\..*(\.[jt]s)['"]$/.exec(moduleSpecifier.getText())?.[1])
    .find((found) => found !== undefined);
  const target = relative(dirname(from.path), path).replace(/\.ts$/, extension ?? '');
  return target.startsWith('.') ? target : `./${target}`;
}

/**
 * Adds the models of visits to Prisma's schema, unless it has them.
 *
 * @returns the file that contains them, or undefined if no schema was found
 * @throws Error if the store does not support the database of the schema
 */
export function addPrismaModels(tree: Tree): string | undefined {
  const { prisma } = JSON.parse(tree.readText('package.json')) as { prisma?: { schema?: string } };
  const files = [prisma?.schema, 'prisma/schema.prisma', 'schema.prisma', 'prisma/schema/schema.prisma'];
  const file = files.find((name): name is string => name !== undefined && tree.exists(name));
  if (file === undefined) return undefined;
  const text = tree.readText(file);
  const provider = /^\s*provider\s*=\s*"(sqlite|sqlserver|mongodb|cockroachdb)"/m.exec(text)?.[1];
  if (provider)
    throw new Error(
      `The store for Prisma supports PostgreSQL, MySQL and MariaDB, but ${file} has ${provider}. Choose another ` +
        'one: nest add nest-visit --store memory',
    );
  if (!/^model Visit \{/m.test(text)) tree.overwrite(file, `${text.trimEnd()}\n\n${PRISMA_MODELS}`);
  return file;
}
