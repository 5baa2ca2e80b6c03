import { addToDataSources } from './data-sources.js';
import { addPrismaModels, findPrismaParts } from './prisma.js';
import { findRootModule, type RootModule } from './root-module.js';
import { install, sourcesBelow, type SchematicContext, type Tree } from './schematics.js';
import { applicationTypeScript, Source, type NamedImport, type TypeScript } from './source.js';

/** Options of `nest add nest-visit`, as described in schema.json. */
export interface NestAddOptions {
  readonly sourceRoot?: string;
  readonly module?: string;
  readonly store?: 'auto' | StoreName;
  readonly database?: Database;
  readonly skipInstall?: boolean;
}

type StoreName = 'memory' | 'typeorm' | 'prisma' | 'redis' | 'drizzle' | 'kysely' | 'keyv' | 'sealed-cookie';
type Database = 'postgres' | 'mysql' | 'mariadb' | 'sqlite';

/** What a store needs. */
interface Plan {
  readonly registration: string;
  readonly imports: readonly NamedImport[];
  /** Packages with their versions. */
  readonly packages?: readonly string[];
  /** The messages for the user at the end. */
  readonly remarks: readonly string[];
}

const DOCS = 'https://github.com/nest-visit/nest-visit/blob/main/docs';

/** Registers VisitModule in the root module. If it is already registered, nothing changes. */
export function nestAdd(options: NestAddOptions = {}) {
  return (tree: Tree, context: SchematicContext): void => new NestAdd(tree, context, options).run();
}

class NestAdd {
  private readonly typescript: TypeScript = applicationTypeScript();
  private readonly sources = new Map<string, Source>();
  private readonly sourceRoot: string;
  private readonly dependencies: Record<string, string>;

  constructor(
    private readonly tree: Tree,
    private readonly context: SchematicContext,
    private readonly options: NestAddOptions,
  ) {
    this.sourceRoot = options.sourceRoot?.replace(/^(\.?\/)+|\/+$/g, '') || 'src';
    const manifest = JSON.parse(tree.readText('package.json')) as Record<string, Record<string, string> | undefined>;
    this.dependencies = { ...manifest.devDependencies, ...manifest.dependencies };
  }

  run(): void {
    const there = this.registeredIn();
    if (there) {
      this.context.logger.info(`VisitModule is already registered in ${there}: nothing has changed.`);
      return;
    }
    const found = findRootModule(this.tree, this.typescript, this.sourceRoot, this.options.module);
    // One source per file, because the root module may also contain a data source.
    const root = { ...found, source: this.keep(found.source) };
    const store = this.options.store && this.options.store !== 'auto' ? this.options.store : this.storeInUse();
    const plan = this.plan(store, root.source);
    this.register(root, plan);
    for (const source of this.sources.values()) {
      const text = source.print();
      if (text !== source.text) this.tree.overwrite(source.path, text);
    }
    this.installMissing(plan.packages ?? []);
    for (const remark of [`VisitModule is registered in ${root.source.path}.`, ...plan.remarks])
      this.context.logger.info(remark);
  }

  private read(path: string): Source {
    return this.sources.get(path) ?? this.keep(new Source(this.typescript, path, this.tree.readText(path)));
  }

  private keep(source: Source): Source {
    this.sources.set(source.path, source);
    return source;
  }

  private registeredIn(): string | undefined {
    return sourcesBelow(this.tree, this.sourceRoot)
      .filter((path) => this.tree.readText(path).includes('VisitModule'))
      .find(
        (path) =>
          new Source(this.typescript, path, this.tree.readText(path)).calls('VisitModule', /^forRoot(Async)?$/).length >
          0,
      );
  }

  private register({ source, name, metadata }: RootModule, { registration, imports }: Plan): void {
    for (const one of [{ names: ['VisitModule'], from: 'nest-visit' }, ...imports]) source.addImport(one);
    if (this.typescript.isCallExpression(metadata)) {
      const indented = registration.replaceAll('\n', '\n    ');
      source.edit(metadata.getEnd() - 1, metadata.getEnd() - 1, `{\n  imports: [\n    ${indented},\n  ],\n}`);
    } else if (!source.addToList(metadata, 'imports', registration))
      throw new Error(
        `${source.path}: the imports of ${name} are not a list that can be added to. Add by hand:\n\n${registration}`,
      );
  }

  /** Chosen according to the packages that are installed. */
  private storeInUse(): StoreName {
    const packages: Record<string, StoreName> = {
      '@nestjs/typeorm': 'typeorm',
      typeorm: 'typeorm',
      '@prisma/client': 'prisma',
      'drizzle-orm': 'drizzle',
      kysely: 'kysely',
    };
    const found = Object.keys(packages).find((name) => name in this.dependencies);
    return found === undefined ? 'memory' : packages[found]!;
  }

  private plan(store: StoreName, root: Source): Plan {
    switch (store) {
      case 'memory':
        return {
          registration: 'VisitModule.forRoot({ store: new MemoryVisitStore() })',
          imports: [{ names: ['MemoryVisitStore'], from: 'nest-visit' }],
          remarks: [
            'Visits are stored in memory, and lost when the process ends. Before production, choose another ' +
              `store: ${DOCS}/stores.md`,
          ],
        };
      case 'redis':
        return {
          registration: `VisitModule.forRoot({
  store: new RedisVisitStore({
    connection: process.env.REDIS_URL ?? 'redis://localhost:6379',
  }),
})`,
          imports: [{ names: ['RedisVisitStore'], from: 'nest-visit/redis' }],
          packages: ['redis@5'],
          remarks: [`REDIS_URL names the server. It must not evict keys: ${DOCS}/store-redis.md`],
        };
      case 'typeorm':
        return this.planForTypeOrm();
      case 'prisma':
        return this.planForPrisma(root);
      default:
        throw new Error(
          `The store for ${store} needs an object of the application that cannot be guessed, so nothing was ` +
            `changed. Register it by hand, see ${DOCS}/store-${store}.md, or begin with nest add nest-visit ` +
            '--store memory',
        );
    }
  }

  private planForTypeOrm(): Plan {
    const { isInNest, changed, createTables, byHand } = addToDataSources(
      this.tree,
      this.typescript,
      this.sourceRoot,
      (path) => this.read(path),
    );
    if (!isInNest) return this.planForOwnDataSource();
    const remarks = changed.map(
      ({ path }) => `Entities and migrations of visits were added to the data source in ${path}.`,
    );
    for (const path of byHand)
      remarks.push(
        `To do in ${path}: add ...visitEntities to its entities and ...visitMigrations to its migrations. Both ` +
          'come from nest-visit/typeorm.',
      );
    if (!createTables)
      remarks.push(
        'To do: run the migrations, together with your own. The application does not start without the tables.',
      );
    return {
      registration: `VisitModule.forRootAsync({
  inject: [getDataSourceToken()],
  useFactory: (dataSource: DataSource) => ({ dataSource }),
})`,
      imports: [
        { names: ['getDataSourceToken'], from: '@nestjs/typeorm' },
        { names: ['DataSource'], from: 'typeorm', isType: true },
      ],
      remarks,
    };
  }

  /**
   * If the application does not use TypeOrmModule, the module opens its own data source, and creates the tables at
   * startup.
   */
  private planForOwnDataSource(): Plan {
    const drivers: Record<Database, string> = {
      postgres: 'pg@8',
      mysql: 'mysql2@3',
      mariadb: 'mysql2@3',
      sqlite: 'better-sqlite3@12',
    };
    const isInstalled = (one: Database): boolean => nameOf(drivers[one]) in this.dependencies;
    const database = this.options.database ?? (Object.keys(drivers) as Database[]).find(isInstalled) ?? 'postgres';
    const place =
      database === 'sqlite'
        ? "type: 'better-sqlite3',\n    database: 'visits.sqlite'"
        : `type: '${database}',\n    url: process.env.DATABASE_URL`;
    return {
      registration: `VisitModule.forRoot({
  dataSource: {
    ${place},
    migrationsRun: true,
  },
})`,
      imports: [],
      packages: ['typeorm@1', drivers[database]],
      remarks: [
        database === 'sqlite'
          ? 'Visits are stored in visits.sqlite.'
          : `DATABASE_URL names the database (${database}).`,
        'The tables are created at startup: migrationsRun.',
      ],
    };
  }

  private planForPrisma(root: Source): Plan {
    const { service, module, imports } = findPrismaParts(
      this.tree,
      this.typescript,
      this.sourceRoot,
      (path) => this.read(path),
      root,
    );
    const schema = addPrismaModels(this.tree);
    return {
      registration: `VisitModule.forRootAsync({
  imports: [${module}],
  inject: [${service}],
  useFactory: (prisma: ${service}) => ({
    store: new PrismaVisitStore(prisma),
  }),
})`,
      imports: [{ names: ['PrismaVisitStore'], from: 'nest-visit/prisma' }, ...imports],
      remarks: [
        schema
          ? `The models of visits are in ${schema}.`
          : `To do: add the models of ${DOCS}/store-prisma.md to the schema, which was not found.`,
        'To do: npx prisma migrate dev --name visits && npx prisma generate',
      ],
    };
  }

  private installMissing(packages: readonly string[]): void {
    const missing = packages.filter((name) => !(nameOf(name) in this.dependencies));
    if (missing.length === 0) return;
    if (this.options.skipInstall) this.context.logger.warn(`To do: install ${missing.join(' ')}`);
    else install(this.tree, this.context, missing);
  }
}

/** The name of a package, from its name with a version. */
function nameOf(specifier: string): string {
  return specifier.slice(0, specifier.lastIndexOf('@'));
}
