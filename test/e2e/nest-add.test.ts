import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { complaintsAbout } from '../support/compiler.js';
import { PRISMA_MODELS } from '../../lib/nest-add/prisma.models.js';

// The schematic as the command line of Nest runs it, on trees in memory. `test/consumer` runs `nest add` itself.

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const collection = join(root, 'dist/cjs/nest-add/collection.json');

interface Tree {
  readonly files: string[];
  create(path: string, text: string): void;
  readText(path: string): string;
}
interface Runner {
  readonly logger: { subscribe(listener: (entry: { message: string }) => void): void };
  readonly tasks: { name: string; options: { packageName: string; packageManager?: string } }[];
  runSchematic(name: string, options: object, tree: Tree): Promise<Tree>;
}
const ofCommandLine = createRequire(createRequire(import.meta.url).resolve('@nestjs/cli/package.json'));
const { Tree: Trees } = ofCommandLine('@angular-devkit/schematics') as { Tree: { empty(): Tree } };
const { SchematicTestRunner, UnitTestTree } = ofCommandLine('@angular-devkit/schematics/testing') as {
  SchematicTestRunner: new (name: string, file: string) => Runner;
  UnitTestTree: new (tree: Tree) => Tree;
};

beforeAll(async () => {
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(collection)) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
});

const MAIN = `import { NestFactory } from '@nestjs/core';
import { AppModule } from './app.module.js';
void NestFactory.create(AppModule);
`;

const APP = `import { Module } from '@nestjs/common';

@Module({
  imports: [],
})
export class AppModule {}
`;

const importing = (imports: string, element: string): string =>
  `${imports}\n\n@Module({\n  imports: [${element}],\n})\nexport class AppModule {}\n`;

const PRISMA = {
  'src/prisma/prisma.service.ts': `import { PrismaClient } from '../generated/client.js';
export class PrismaService extends PrismaClient {}
`,
  'src/prisma/prisma.module.ts': `import { Module } from '@nestjs/common';
import { PrismaService } from './prisma.service.js';

@Module({ providers: [PrismaService], exports: [PrismaService] })
export class PrismaModule {}
`,
  'src/generated/client.ts':
    'export class PrismaClient {\n  visit: any;\n  visitIdentity: any;\n  visitRevocation: any;\n  $transaction: ' +
    'any;\n}\n',
  'prisma/schema.prisma': 'datasource db {\n  provider = "postgresql"\n}\n',
};

type Files = Record<string, string>;

function application(files: Files = {}, dependencies: Record<string, string> = {}): Tree {
  const all: Files = {
    'package.json': JSON.stringify({ dependencies }),
    'src/main.ts': MAIN,
    'src/app.module.ts': APP,
    ...files,
  };
  const tree = new UnitTestTree(Trees.empty());
  for (const [path, text] of Object.entries(all)) tree.create(path, text);
  return tree;
}

const textOf = (tree: Tree): Files =>
  Object.fromEntries(tree.files.map((path) => [path.slice(1), tree.readText(path)]));

/** Adds the library, twice: the second time must change nothing. */
async function add(tree: Tree, options: object = {}): Promise<{ files: Files; said: string; tasks: Runner['tasks'] }> {
  const runner = new SchematicTestRunner('nest-visit', collection);
  let said = '';
  runner.logger.subscribe(({ message }) => (said += `${message}\n`));
  const files = textOf(await runner.runSchematic('nest-add', { sourceRoot: 'src', ...options }, tree));
  const tasks = [...runner.tasks];
  const again = new SchematicTestRunner('nest-visit', collection);
  let saidAgain = '';
  again.logger.subscribe(({ message }) => (saidAgain += message));
  const second = textOf(await again.runSchematic('nest-add', { sourceRoot: 'src', ...options }, application(files)));
  expect(second).toEqual(files);
  expect(again.tasks).toEqual([]);
  expect(saidAgain).toMatch(/^VisitModule is already registered in \S+: nothing has changed\.$/);
  return { files, said, tasks };
}

const refusal = (tree: Tree, options: object = {}): Promise<string> =>
  add(tree, options).then(
    () => expect.fail('it was added'),
    (error: Error) => error.message,
  );

interface Case {
  readonly files?: Files;
  readonly dependencies?: Record<string, string>;
  readonly options?: object;
  /** What the root module has afterwards. */
  readonly has: readonly string[];
  readonly installs?: string;
  readonly says?: RegExp;
}

const TYPEORM = { '@nestjs/typeorm': '12', typeorm: '1' };
const withOptions = (options: string): Files => ({
  'src/app.module.ts': importing(
    "import { Module } from '@nestjs/common';\nimport { TypeOrmModule } from '@nestjs/typeorm';",
    `TypeOrmModule.forRoot(${options})`,
  ),
});

const CASES: Record<string, Case> = {
  'nothing yet': {
    has: [
      "import { MemoryVisitStore, VisitModule } from 'nest-visit';",
      '[VisitModule.forRoot({ store: new MemoryVisitStore() })]',
    ],
    says: /in memory/,
  },
  'other modules on several lines': {
    files: {
      'src/app.module.ts': importing(
        "import { Module } from '@nestjs/common';\nimport { A } from './a.js';\nimport { B } from './b.js';",
        '\n    A, // first\n    B,\n  ',
      ),
      'src/a.ts': 'export class A {}\n',
      'src/b.ts': 'export class B {}\n',
    },
    has: ['    A, // first\n    B,\n    VisitModule.forRoot({ store: new MemoryVisitStore() }),\n  ]'],
  },
  'other modules on one line': {
    files: {
      'src/app.module.ts': importing("import { Module } from '@nestjs/common';\nimport { A } from './a.js';", 'A'),
      'src/a.ts': 'export class A {}\n',
    },
    has: ['imports: [A, VisitModule.forRoot({ store: new MemoryVisitStore() })]'],
  },
  'a root module without imports, and other habits of writing': {
    files: {
      'src/app.module.ts':
        'import { Module } from "@nestjs/common"\n\n@Module({ providers: [] })\nexport class AppModule {}\n',
    },
    has: ['import { MemoryVisitStore, VisitModule } from "nest-visit"\n', 'imports: [VisitModule.forRoot('],
  },
  'a root module that is empty, in main.ts': {
    files: {
      'src/main.ts':
        "import { Module } from '@nestjs/common';\nimport { NestFactory } from '@nestjs/core';\n\n" +
        '@Module()\nclass Root {}\nvoid NestFactory.create(Root);\n',
      'src/app.module.ts': '',
    },
    has: ['@Module({\n  imports: [\n    VisitModule.forRoot('],
  },
  'a root module of another name, created elsewhere': {
    files: {
      'src/main.ts': "import './server/start.js';\n",
      'src/server/start.ts':
        "import { NestFactory } from '@nestjs/core';\nimport { Shop as Root } from '../shop/index.js';\n" +
        'void NestFactory.create(Root);\n',
      'src/shop/index.ts': APP.replace('AppModule', 'Shop'),
    },
    has: ['[VisitModule.forRoot({ store: new MemoryVisitStore() })],\n})\nexport class Shop'],
  },
  'a file that is named': {
    files: { 'src/main.ts': '' },
    options: { module: 'src/app.module.ts' },
    has: ['[VisitModule.forRoot('],
  },
  Redis: {
    options: { store: 'redis' },
    has: ['new RedisVisitStore({', "from 'nest-visit/redis'"],
    installs: 'redis@5',
  },
  'a data source of the module': {
    options: { store: 'typeorm', database: 'mariadb' },
    has: ["type: 'mariadb',\n        url: process.env.DATABASE_URL,\n        migrationsRun: true"],
    installs: 'typeorm@1 mysql2@3',
  },
  'TypeORM outside of Nest, with a driver': {
    dependencies: { typeorm: '1', mysql2: '3' },
    has: ["type: 'mysql'"],
    says: /DATABASE_URL names the database \(mysql\)/,
  },
  '@nestjs/typeorm with migrations': {
    dependencies: TYPEORM,
    files: withOptions(
      `{\n      type: 'postgres',\n      autoLoadEntities: true,\n      migrations: ['dist/migrations/*.js'],\n    }`,
    ),
    has: [
      "migrations: ['dist/migrations/*.js', ...visitMigrations],\n      entities: [...visitEntities],\n    }",
      'inject: [getDataSourceToken()]',
      "import { getDataSourceToken } from '@nestjs/typeorm';\nimport type { DataSource } from 'typeorm';",
    ],
    says: /To do: run the migrations/,
  },
  '@nestjs/typeorm without migrations': {
    dependencies: TYPEORM,
    files: withOptions(`{ type: 'postgres' }`),
    has: ["{ type: 'postgres', entities: [...visitEntities], migrations: [...visitMigrations], migrationsRun: true }"],
  },
  '@nestjs/typeorm with synchronize': {
    dependencies: TYPEORM,
    files: withOptions(`{ type: 'postgres', entities: [], synchronize: true }`),
    has: ["{ type: 'postgres', entities: [...visitEntities], synchronize: true, migrations: [...visitMigrations] }"],
  },
  '@nestjs/typeorm with options that a factory makes, in a module of its own': {
    dependencies: TYPEORM,
    files: {
      'src/database.ts': importing(
        "import { Module } from '@nestjs/common';\nimport { TypeOrmModule } from '@nestjs/typeorm';",
        "TypeOrmModule.forRootAsync({ useFactory: () => ({ type: 'postgres', entities: [] }) })",
      ),
    },
    has: ['useFactory: (dataSource: DataSource) => ({ dataSource })'],
    says: /added to the data source in src\/database\.ts/,
  },
  '@nestjs/typeorm with options from elsewhere': {
    dependencies: TYPEORM,
    files: { ...withOptions('options'), 'src/options.ts': '' },
    has: ['inject: [getDataSourceToken()]'],
    says: /To do in src\/app\.module\.ts: add \.\.\.visitEntities/,
  },
  Prisma: {
    dependencies: { '@prisma/client': '7' },
    files: PRISMA,
    has: [
      "import { PrismaModule } from './prisma/prisma.module",
      "import { PrismaService } from './prisma/prisma.service",
      'imports: [PrismaModule],\n      inject: [PrismaService],',
    ],
    says: /npx prisma migrate dev/,
  },
};

describe('nest add', () => {
  const results = new Map<string, Files>();
  afterAll(() => rm(join(root, 'artifacts/nest-add'), { recursive: true, force: true }));

  test.each(Object.entries(CASES))(
    'registers the module in an application with: %s',
    async (name, { files, dependencies, options, has, installs, says }) => {
      const added = await add(application(files, dependencies), options);
      results.set(name, added.files);
      const sources = Object.values(added.files).join('\n');
      for (const text of has) expect(sources).toContain(text);
      expect(added.tasks.map(({ options: { packageName } }) => packageName)).toEqual(installs ? [installs] : []);
      expect(added.said).toMatch(says ?? /is registered in/);
    },
  );

  test('produces code that compiles', async () => {
    const folder = join(root, 'artifacts/nest-add');
    await rm(folder, { recursive: true, force: true });
    for (const [name, files] of results) {
      if (name.includes('from elsewhere')) continue;
      for (const [path, text] of Object.entries(files)) {
        const file = join(folder, name.replaceAll(/\W+/g, '-'), path);
        await mkdir(dirname(file), { recursive: true });
        await writeFile(file, text);
      }
    }
    // What was built, whose sources need not be compiled again.
    const paths = {
      'nest-visit': ['../../dist/esm/index.d.ts'],
      'nest-visit/*': ['../../dist/esm/store/*/index.d.ts'],
    };
    const compilerOptions = { noUnusedLocals: false, paths, rootDir: '../..', noEmit: true };
    const config = { extends: '../../tsconfig.json', compilerOptions, include: ['.'] };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
    expect(results.size).toBe(Object.keys(CASES).length);
    expect(await complaintsAbout(folder)).toBe('');
  });

  test('installs with the package manager of the application, or prints what to install', async () => {
    const pnpm = await add(application({ 'pnpm-lock.yaml': '' }), { store: 'redis' });
    expect(pnpm.tasks[0]!.options.packageManager).toBe('pnpm');
    const skipped = await add(application(), { store: 'redis', skipInstall: true });
    expect(skipped).toMatchObject({ tasks: [], said: expect.stringContaining('To do: install redis@5') as string });
  });

  test("adds Prisma's models, as they are documented", async () => {
    const { files } = await add(application(PRISMA, { '@prisma/client': '7' }));
    expect(files['prisma/schema.prisma']).toContain('model VisitRevocation {');
    const page = await readFile(join(root, 'docs/store-prisma.md'), 'utf8');
    expect(page.replaceAll(/^ {3}/gm, '')).toContain(`\`\`\`prisma\n${PRISMA_MODELS}`);
  });

  test('changes nothing and prints instructions if it does not recognize the application', async () => {
    expect(await refusal(application({ 'src/main.ts': '' }))).toMatch(
      /root module was not found: no file in src\/ calls.* --module /,
    );
    expect(await refusal(application({ 'src/app.module.ts': '' }))).toMatch(
      /root module AppModule was not found: src\/main\.ts uses it/,
    );
    expect(await refusal(application(), { module: 'src/none.ts' })).toMatch(/no file src\/none\.ts\. Specify its file/);
    expect(
      await refusal(
        application({
          'src/worker.ts': MAIN.replaceAll('AppModule', 'Other'),
          'src/main.ts': `${MAIN}NestFactory.create(Other);`,
        }),
      ),
    ).toMatch(/several root modules: AppModule, Other/);
    expect(await refusal(application({ 'src/app.module.ts': APP.replace('[]', 'modules()') }))).toMatch(
      /not a list .*by hand:\n\nVisitModule\.forRoot/,
    );
    expect(await refusal(application({ 'src/app.module.ts': APP.replace(/\(\{[^]*\}\)/, '(metadata)') }))).toMatch(
      /not called with an object/,
    );
    expect(await refusal(application({}, { kysely: '0.29' }))).toMatch(/kysely .*cannot be guessed.*store-kysely\.md/);
    expect(await refusal(application({}, { '@prisma/client': '7' }))).toMatch(
      /extends PrismaClient, and src\/ has 0 such classes/,
    );
    expect(
      await refusal(application({ ...PRISMA, 'src/prisma/prisma.module.ts': '' }, { '@prisma/client': '7' })),
    ).toMatch(/No module exports PrismaService/);
    const sqlite = { ...PRISMA, 'prisma/schema.prisma': 'datasource db {\n  provider = "sqlite"\n}\n' };
    expect(await refusal(application(sqlite, { '@prisma/client': '7' }))).toMatch(/schema\.prisma has sqlite/);
  });
});
