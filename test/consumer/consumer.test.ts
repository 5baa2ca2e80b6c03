import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { verdict } from '../../.ci/size.mjs';
import { Browser } from '../support/browser.js';
import { openDatabase } from '../support/databases.js';
import { documentedFiles } from '../support/documented-store.js';
import { describeWith, redisUrl } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

let folder: string;
let tarball: string;
let files: string[];
let size: { size: number; entryCount: number };

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nest-visit-consumer-'));
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(join(root, 'dist/esm/index.js'))) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root });
  const [packed] = JSON.parse(stdout) as [
    { filename: string; size: number; entryCount: number; files: { path: string }[] },
  ];
  tarball = join(folder, packed.filename);
  files = packed.files.map(({ path }) => path);
  size = packed;
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exit = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await exit;
  }
});

interface Application {
  /** What it is, next to the examples of the documentation. */
  readonly main: string;
  readonly nest: string;
  readonly typeorm: string;
  readonly type: 'module' | 'commonjs';
  readonly typescript: string;
  readonly more?: readonly string[];
}

const prepared = new Map<Application, Promise<string>>();

/**
 * A folder with the package and what it stands on, as `npm install` leaves it, and the application, compiled with the
 * examples beside it.
 */
function prepare(application: Application): Promise<string> {
  const place = prepared.get(application) ?? prepareAnew(application, join(folder, `app-${prepared.size}`));
  prepared.set(application, place);
  return place;
}

async function prepareAnew(application: Application, place: string): Promise<string> {
  await installAnew(application, place);
  await writeFile(join(place, 'src/main.ts'), application.main);
  await mkdir(join(place, 'src/readme'));
  for (const [file, text] of await firstExample()) await writeFile(join(place, 'src/readme', file), text);
  await compile(place);
  return place;
}

async function installAnew({ nest, typeorm, type, typescript, more = [] }: Application, place: string): Promise<void> {
  await mkdir(join(place, 'src'), { recursive: true });
  await writeFile(join(place, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true, type }));
  const module = type === 'module' ? 'nodenext' : 'node16';
  const compilerOptions = {
    target: 'es2022',
    module,
    moduleResolution: module,
    strict: true,
    skipLibCheck: false,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    types: ['node'],
    rootDir: 'src',
    outDir: 'dist',
  };
  await writeFile(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
  const packages = [
    tarball,
    `@nestjs/common@${nest}`,
    `@nestjs/core@${nest}`,
    `@nestjs/platform-express@${nest}`,
    `typeorm@${typeorm}`,
    'mysql2@3',
    'libsql@0.5',
    'reflect-metadata@0.2',
    'rxjs@7',
    `typescript@${typescript}`,
    '@types/node@20',
    ...more,
  ];
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', ...packages], {
    cwd: place,
    timeout: 3 * PATIENCE,
  });
}

async function compile(place: string, project = '.'): Promise<void> {
  const tsc = run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', project], { cwd: place });
  const output = await tsc.then(
    ({ stdout }) => stdout,
    (error: { stdout: string }) => error.stdout,
  );
  // The types of other packages are not ours to check.
  const isOurs = (line: string): boolean =>
    !line.startsWith('node_modules/') || line.startsWith('node_modules/nest-visit/');
  expect(output.split('\n').filter((line) => /: error /.test(line) && isOurs(line))).toEqual([]);
}

/** Compiles files that are no part of the application, but lie in its folder. */
async function compileApart(
  place: string,
  name: string,
  sources: readonly [name: string, text: string][],
): Promise<void> {
  await mkdir(join(place, name));
  for (const [file, text] of sources) await writeFile(join(place, name, file), text);
  // The types of the packages were checked with the application.
  const compilerOptions = { rootDir: '.', outDir: `../dist/${name}`, skipLibCheck: true };
  const config = { extends: '../tsconfig.json', compilerOptions, include: ['.'] };
  await writeFile(join(place, name, 'tsconfig.json'), JSON.stringify(config));
  await compile(place, name);
}

/** Starts the compiled application; resolves to its address when it prints that it listens. */
async function start(place: string, env: Record<string, string> = {}): Promise<string> {
  const child = spawn(process.execPath, ['dist/main.js'], {
    cwd: place,
    env: { ...process.env, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let errors = '';
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`ended with ${code}: ${errors}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const address = /listening on (http:\S+)/.exec(line)?.[1];
      if (address) resolve(address);
    });
  });
}

const MAIN = (await_: string): string => `
import 'reflect-metadata';
import { Controller, Get, Injectable, Module, Post, Res, UseGuards, type CanActivate } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  CsrfGuard, CurrentUserId, CurrentVisit, ExclusiveSession, IdentityService, RequireIdentity, Session, VisitModule, VisitPlugin, VisitService,
  type VisitPluginHooks, type VisitSummary,
} from 'nest-visit';
import type { DataSource } from 'typeorm';

@Injectable()
class Counter {
  constructor(private readonly session: Session) {}

  add(): number {
    this.session.count = (this.session.count ?? 0) + 1;
    return this.session.count;
  }
}

@VisitPlugin()
class Visitors implements VisitPluginHooks {
  count = 0;
  onNewVisit(visit: CurrentVisit): void {
    if (visit.isNew) this.count++;
  }
}

/** Never called: it compiles with this version of TypeORM. */
export const withOpenDataSource = (dataSource: DataSource): unknown => VisitModule.forRoot({ dataSource });

/** Nothing to await: the visit is known before guards. */
@Injectable()
class SignedIn implements CanActivate {
  constructor(private readonly identity: IdentityService) {}

  canActivate(): boolean {
    return this.identity.userId !== null;
  }
}

@Controller()
class AppController {
  constructor(
    private readonly counter: Counter,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly visitors: Visitors,
  ) {}

  @Get()
  home(@Session() session: Session<{ name: string }>, @CurrentVisit() visit: CurrentVisit): string {
    const name: string = session.get('name', 'nobody');
    return \`\${this.counter.add()} \${name} \${visit.id.length} \${this.visitors.count}\`;
  }

  @Post('login')
  @ExclusiveSession()
  async login(): Promise<void> {
    await this.identity.login(7);
  }

  @Get('visits')
  @RequireIdentity()
  list(@CurrentUserId() userId: string): Promise<VisitSummary[]> {
    return this.visits.listForUser(userId);
  }

  /** Saves nothing itself: the response waits for what the middleware of main.ts has changed. */
  @Get('early')
  early(@Res() response: { redirect(address: string): void }): void {
    response.redirect('/late');
  }

  @Get('late')
  late(@Session() session: Session<{ early: string }>): string {
    return session.get('early', 'nothing');
  }

  @Get('mine')
  @UseGuards(SignedIn)
  mine(): string {
    return 'mine';
  }

  @Post('logout')
  @UseGuards(CsrfGuard)
  logout(): Promise<void> {
    return this.identity.logout();
  }
}

/** TypeORM before 0.3.28 calls it without new, which better-sqlite3 permits and libsql does not. */
function driver(file: string, options: object): object {
  return new (require_('libsql'))(file, options);
}

@Module({
  imports: [
    VisitModule.forRoot({ dataSource: { type: 'better-sqlite3', driver, database: ':memory:', migrationsRun: true } }),
  ],
  controllers: [AppController],
  providers: [Counter, Visitors],
})
class AppModule {}

async function main(): Promise<void> {
  const required = require_('nest-visit') as { VisitModule: unknown };
  const imported = await import('nest-visit');
  if (required.VisitModule !== imported.VisitModule || required.VisitModule !== VisitModule) throw new Error('there are two instances of the package');
  const { describeVisitStore } = require_('nest-visit/testing') as typeof import('nest-visit/testing');
  if (describeVisitStore !== (await import('nest-visit/testing')).describeVisitStore) throw new Error('there are two suites');
  const app = await NestFactory.create(AppModule, { logger: false });
  app.use((request: { url: string; session: { early?: string } }, _: unknown, next: () => void) => {
    if (request.url === '/early') request.session.early = 'main.ts';
    next();
  });
  await app.listen(0, '127.0.0.1');
  console.log(\`listening on \${await app.getUrl()}\`);
}

${await_}
`;

/** For gateways, of the version of Nest. */
const sockets = (nest: string): string[] => [
  ...['websockets', 'platform-ws', 'platform-socket.io'].map((name) => `@nestjs/${name}@${nest}`),
  'ws@8',
  '@types/ws@8',
  'socket.io-client@4',
];

const APPLICATIONS: Record<string, Application> = {
  'Nest 12, ES modules, TypeORM 1': {
    nest: '12',
    typeorm: '1',
    type: 'module',
    typescript: '6.0.3',
    more: ['@types/express@5', 'fastify@5'],
    main:
      `import { createRequire } from 'node:module';\nconst require_ = ` +
      `createRequire(import.meta.url);\n${MAIN('await main();')}`,
  },
  'Nest 11, CommonJS, TypeORM 0.3': {
    nest: '11',
    typeorm: '0.3',
    type: 'commonjs',
    typescript: '5.9',
    more: ['jest@30', 'ts-jest@29', '@types/jest@30', ...sockets('11')],
    main: `const require_ = require;\n${MAIN('void main();')}`,
  },
  'Nest 10, CommonJS, TypeORM 0.3.20': {
    nest: '10',
    typeorm: '0.3.20',
    type: 'commonjs',
    typescript: '5.4',
    more: sockets('10'),
    main: `const require_ = require;\n${MAIN('void main();')}`,
  },
};

const newest = APPLICATIONS['Nest 12, ES modules, TypeORM 1']!;

describe('The package', () => {
  test('has what a user needs, and nothing else', () => {
    expect(files.filter((file) => !/^dist\/(esm|cjs)\/.*\.(js|d\.ts)$/.test(file)).sort()).toEqual([
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'SECURITY.md',
      'dist/cjs/nest-add/collection.json',
      'dist/cjs/nest-add/schema.json',
      'dist/cjs/package.json',
      'dist/esm/package.json',
      'package.json',
    ]);
    for (const format of ['esm', 'cjs'])
      for (const entry of [
        'index',
        'testing/index',
        'store/drizzle/index',
        'store/keyv/index',
        'store/kysely/index',
        'store/prisma/index',
        'store/redis/index',
        'store/sealed-cookie/index',
        'express',
        'express-session',
        'fastify',
      ])
        expect(files).toEqual(expect.arrayContaining([`dist/${format}/${entry}.js`, `dist/${format}/${entry}.d.ts`]));
    expect(files).toContain('dist/esm/cli/main.js');
  });

  test('is as small as it may be', () => {
    expect(verdict(size)).toEqual({
      isWithin: true,
      message: expect.stringMatching(/^\d+ kB of \d+ kB, \d+ of \d+ files$/),
    });
    expect(verdict({ size: 2001, entryCount: 4 }, { bytes: 2000, files: 3 }).message).toMatch(
      /has 3 kB, .* 2 kB .*, and it has 4 files, .* 3 /,
    );
  });

  test('publint finds nothing', async () => {
    const { stdout } = await run(
      process.execPath,
      [join(root, 'node_modules/publint/src/cli.js'), tarball, '--strict'],
      { cwd: root },
    );
    expect(stdout).toContain('All good');
  });

  test('its types are right for both formats', async () => {
    await expect(
      run(process.execPath, [join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js'), tarball], { cwd: root }),
    ).resolves.toBeDefined();
  });
});

describe.each(Object.entries(APPLICATIONS))('An empty application with %s', (_, application) => {
  test('installs, compiles and runs with public names, as one instance', async () => {
    const place = await prepare(application);
    const browser = new Browser(await start(place));
    const first = await browser.get('/');
    expect(first.text).toBe('1 nobody 32 0');
    expect(first.cookies).toEqual([
      expect.stringMatching(/^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/),
    ]);
    const second = await browser.get('/');
    expect(second.text).toBe('2 nobody 32 1');
    expect(second.cookies).toEqual([]);
    expect((await browser.get('/early')).status).toBe(302);
    expect((await browser.get('/late')).text).toBe('main.ts');
    expect((await browser.get('/visits')).status).toBe(401);
    expect((await browser.get('/mine')).status).toBe(403);
    const before = browser.jar.get('visit');
    expect((await browser.post('/login')).status).toBe(201);
    expect(browser.jar.get('visit')).not.toBe(before);
    expect(JSON.parse((await browser.get('/visits')).text)).toMatchObject([{ userId: '7', isCurrent: true }]);
    expect((await browser.get('/mine')).text).toBe('mine');
    // Its own origin has its port, which Express 4 leaves out of the name of the host.
    const { origin, hostname } = new URL(browser.address);
    const from = async (site: string): Promise<number> =>
      (await browser.post('/logout', { headers: { origin: site } })).status;
    expect(await from(`http://${hostname}:1`)).toBe(403);
    expect((await browser.get('/visits')).status).toBe(200);
    expect(await from(origin)).toBe(201);
    expect((await browser.get('/visits')).status).toBe(401);
    const { stdout } = await run('npx', ['--no-install', 'nest-visit', '--version'], { cwd: place });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+/);
  });
});

/** Starts an application with each store whose package is missing, and prints what is said. */
const MISSING = `
async function say(load, format) {
  const { NestFactory } = await load('@nestjs/core');
  const { VisitModule } = await load('nest-visit');
  const { RedisVisitStore } = await load('nest-visit/redis');
  const { SealedCookieVisitStore } = await load('nest-visit/sealed-cookie');
  const redis = new RedisVisitStore({ connection: 'redis://127.0.0.1:1' });
  const sealed = new SealedCookieVisitStore({ secrets: [Buffer.alloc(32, 1).toString('base64')] });
  for (const store of [redis, sealed]) {
    const module = { module: class AppModule {}, imports: [VisitModule.forRoot({ store })] };
    const starting = NestFactory.create(module, { logger: false, abortOnError: false });
    console.log(format, await starting.then(() => 'it started', (error) => error.code + ' ' + error.message));
  }
}
`;

describe.each(['Nest 12, ES modules, TypeORM 1', 'Nest 11, CommonJS, TypeORM 0.3'])(
  'Where an optional package is missing, %s',
  (name) => {
    test('R74: the start says what to install, in both formats', async () => {
      const place = await prepare(APPLICATIONS[name]!);
      const built = JSON.stringify(join(place, 'node_modules/nest-visit/dist/cjs'));
      const entries = `{ 'nest-visit': '/index.js', 'nest-visit/redis': '/store/redis/index.js', 'nest-visit/sealed-cookie': '/store/sealed-cookie/index.js' }`;
      await writeFile(join(place, 'missing.mjs'), `${MISSING}await say((name) => import(name), 'import');\n`);
      // What Jest and older tools get: Node itself gives the ES modules to `require`, too.
      const required = `say((name) => require(name in entries ? ${built} + entries[name] : name), 'require');`;
      await writeFile(join(place, 'missing.cjs'), `${MISSING}const entries = ${entries};\n${required}\n`);
      const lines: string[] = [];
      for (const file of ['missing.mjs', 'missing.cjs'])
        lines.push(...(await run(process.execPath, [file], { cwd: place })).stdout.trim().split('\n'));
      expect(lines).toEqual(
        ['import', 'require'].flatMap((format) => [
          `${format} VISIT_OPTION [visit] RedisVisitStore needs the package "redis", which is not installed: npm ` +
            'install redis',
          `${format} VISIT_OPTION [visit] SealedCookieVisitStore needs the package "jose", which is not installed: ` +
            'npm install jose',
        ]),
      );
    });
  },
);

describe.each(['Nest 11, CommonJS, TypeORM 0.3', 'Nest 10, CommonJS, TypeORM 0.3.20'])('Gateways with %s', (name) => {
  test('know the visit of the handshake, are closed to other sites, and close with it: by ws and by socket.io', async () => {
    const place = await prepare(APPLICATIONS[name]!);
    const source = await readFile(join(root, 'test/consumer/fixtures/gateways.ts'), 'utf8');
    await compileApart(place, 'gateways', [['gateways.ts', source]]);
    const { stdout } = await run(process.execPath, ['dist/gateways/gateways.js'], { cwd: place, timeout: PATIENCE });
    const lines = stdout.trim().split('\n');
    const seen = {
      added: [[1, 'ann', 'ann', 32], [2, 'ann', 'ann', 32], '2'],
      guarded: ['let in', 'VISIT_IDENTITY_REQUIRED', 'VISIT_NOT_RESOLVED'],
      refusal: 'Unexpected server response: 403',
      closed: 4401,
    };
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { transport: 'ws', ...seen },
      { transport: 'socket.io', ...seen },
    ]);
  });
});

// npm refuses whatever two packages do not agree on, also where it is optional and nobody uses it.
test('Old versions of what others use do not keep npm from installing the package', async () => {
  const place = join(folder, 'old');
  await mkdir(place);
  await writeFile(join(place, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
  const packages = [
    '@nestjs/common@10',
    '@nestjs/core@10',
    'typeorm@0.3.4',
    'pg@8',
    'redis@3',
    'jose@5',
    'keyv@4',
    '@prisma/client@5',
    'drizzle-orm@0.36',
    'kysely@0.27',
  ];
  const args = ['install', '--package-lock-only', '--no-audit', '--no-fund', '--prefer-offline', tarball, ...packages];
  await expect(run('npm', args, { cwd: place, timeout: 3 * PATIENCE })).resolves.toBeDefined();
});

describe('nest-visit/testing under Jest', () => {
  test('R66: the store of docs/writing-a-store.md passes, and fails with a mistake in it', async () => {
    const place = await prepare(APPLICATIONS['Nest 11, CommonJS, TypeORM 0.3']!);
    const tests = join(place, 'test');
    const shouldBe = 'kit.touched(this.stored(touch.id), touch)';
    const broken = { is: `{ ...${shouldBe}!, accessed: touch.accessed }`, shouldBe };
    for (const kind of ['sound', 'broken']) {
      await mkdir(join(tests, kind), { recursive: true });
      for (const [name, text] of documentedFiles())
        await writeFile(join(tests, kind, name), kind === 'sound' ? text : text.replace(broken.shouldBe, broken.is));
    }
    // As the command line of Nest sets it up.
    const tsconfig = {
      module: 'commonjs',
      target: 'es2022',
      isolatedModules: true,
      experimentalDecorators: true,
      emitDecoratorMetadata: true,
    };
    const transform = { '^.+\\.(t|j)s$': ['ts-jest', { tsconfig }] };
    const config = { rootDir: 'test', testRegex: '.*\\.spec\\.ts$', transform, testEnvironment: 'node' };
    await writeFile(join(place, 'jest.json'), JSON.stringify(config));
    const jest = run(process.execPath, [join(place, 'node_modules/jest/bin/jest.js'), '-c', 'jest.json', '--json'], {
      cwd: place,
    });
    const output = await jest.then(
      () => expect.fail('the mistake was not seen'),
      ({ stdout }: { stdout: string }) => stdout,
    );
    const { testResults } = JSON.parse(output) as {
      testResults: { name: string; assertionResults: { status: string; title: string }[] }[];
    };
    const failed = (kind: string): string[] =>
      testResults
        .find(({ name }) => name.includes(`/${kind}/`))!
        .assertionResults.flatMap(({ status, title }) => (status === 'passed' ? [] : [title]));
    expect(testResults.map(({ assertionResults }) => assertionResults.length > 60)).toEqual([true, true]);
    expect(failed('sound')).toEqual([]);
    expect(failed('broken')).toContain('moves accessed and expiry forward, never back, and touches nothing else');
  });
});

/** What an application with a declared shape of its sessions compiles, and what it does not. */
const TYPED = `
import 'nest-visit/express';
import 'nest-visit/fastify';
import { Controller, Get, Req } from '@nestjs/common';
import type { Request } from 'express';
import type { FastifyRequest } from 'fastify';
import { Session } from 'nest-visit';

declare module 'nest-visit' {
  interface SessionData {
    cart: string[];
    theme: 'light' | 'dark';
  }
}

@Controller()
export class TypedController {
  constructor(private readonly session: Session) {}

  @Get('injected')
  injected(): string[] | undefined {
    this.session.theme = 'dark';
    // @ts-expect-error: not one of them
    this.session.theme = 'blue';
    // @ts-expect-error: not declared
    this.session.card = [];
    // @ts-expect-error: not declared
    this.session.get('card');
    this.session.setDefault('cart', []).push('apple');
    return this.session.get('cart');
  }

  @Get('parameter')
  parameter(@Session() session: Session, @Session() own: Session<{ count: number }>): number {
    const theme: 'light' | 'dark' | undefined = session.theme;
    // @ts-expect-error: it says of which shape it is
    own.theme = theme;
    return own.get('count', 0);
  }

  @Get('express')
  express(@Req() request: Request): string[] | undefined {
    // @ts-expect-error: a string is no cart
    request.session.cart = 'apple';
    const id: string = request.session.id + request.sessionID;
    request.session.regenerate(() => request.session.save((error) => error));
    request.session.cookie.maxAge = id.length;
    return request.session.cart;
  }

  @Get('fastify')
  fastify(@Req() request: FastifyRequest): string[] | undefined {
    // @ts-expect-error: a number is no cart
    request.session.set('cart', 1);
    void request.session.regenerate(['cart']).then(() => request.session.data());
    return request.session.cart;
  }
}
`;

describe('An application that declares the shape of its sessions', () => {
  test('has it in every Session without a type argument, and in the requests of both frameworks', async () => {
    const place = await prepare(newest);
    // What it declares would hold for the whole of the application.
    await expect(compileApart(place, 'typed', [['typed.controller.ts', TYPED]])).resolves.toBeUndefined();
  });
});

describeWith('mysql', "The README's first example", () => {
  test('runs, copied as it stands', async () => {
    const place = await prepare(newest);
    const { options, drop } = await openDatabase('mariadb');
    try {
      const address = await startListening(place, 'readme', { DATABASE_URL: (options as { url: string }).url });
      const browser = new Browser(address);
      const first = await browser.get('/');
      expect(first.text).toMatch(/^visit [0-9a-f]{32}, 1 times$/);
      expect(first.headers.get('cache-control')).toBe('no-store');
      expect(first.cookies).toEqual([
        expect.stringMatching(/^visit=[0-9a-f]{32}\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/),
      ]);
      expect((await browser.get('/')).text).toMatch(/, 2 times$/);
    } finally {
      await Promise.all(
        children
          .splice(0)
          .map((child) => new Promise((resolve) => (child.once('exit', resolve), child.kill('SIGTERM')))),
      );
      await drop();
    }
  });
});

describeWith('redis', 'The example with Redis', () => {
  test('R67: compiles and runs, copied as it stands; both formats give the same store', async () => {
    const place = await prepare(newest);
    // Last: what is said where it is missing was seen above.
    await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', 'redis@6'], {
      cwd: place,
      timeout: 3 * PATIENCE,
    });
    await compileApart(place, 'redis', await exampleWithRedis());
    const browser = new Browser(await startListening(place, 'redis', { REDIS_URL: redisUrl! }));
    expect((await browser.get('/')).status).toBe(404);
    const script = `import('nest-visit/redis').then((one) => console.log(one.RedisVisitStore === require('nest-visit/redis').RedisVisitStore))`;
    expect((await run(process.execPath, ['-e', script], { cwd: place })).stdout).toBe('true\n');
  });
});

/** The files of the README's first example, with their names. */
async function firstExample(): Promise<[name: string, text: string][]> {
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  const section = readme.slice(readme.indexOf('## A first example'), readme.indexOf('## Beside'));
  const blocks = [...section.matchAll(/`([\w.]+\.ts)`\n\n```ts\n([^]*?)```/g)].map(
    ([, name, text]): [string, string] => [name!, text!],
  );
  expect(blocks.map(([name]) => name)).toEqual(['app.module.ts', 'main.ts']);
  return blocks;
}

/** The module of docs/store-redis.md, in the first example. */
async function exampleWithRedis(): Promise<[name: string, text: string][]> {
  const [page, readme] = await Promise.all(
    ['docs/store-redis.md', 'README.md'].map((file) => readFile(join(root, file), 'utf8')),
  );
  const moduleOf = (text: string, file: string): string => text.split(`\`${file}\`\n\n\`\`\`ts\n`)[1]!.split('```')[0]!;
  return [
    ['app.module.ts', moduleOf(page!, 'app.module.ts')],
    ['main.ts', moduleOf(readme!, 'main.ts')],
  ];
}

/** An example prints what Nest prints, and listens where PORT says: a free one. */
async function startListening(place: string, example: string, more: Record<string, string>): Promise<string> {
  const { createServer } = await import('node:net');
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = server.address() as { port: number };
      server.close(() => resolve(free));
    });
  });
  const child = spawn(process.execPath, [`dist/${example}/main.js`], {
    cwd: place,
    env: { ...process.env, NODE_ENV: '', PORT: String(port), NO_COLOR: '1', ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let output = '';
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`ended with ${code}: ${output}`)));
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString();
      if (output.includes('successfully started')) resolve();
    });
  });
  // Nest says so a moment before it listens.
  const address = `http://127.0.0.1:${port}`;
  const answers = (): Promise<boolean> =>
    fetch(address).then(
      () => true,
      () => false,
    );
  await expect.poll(answers).toBe(true);
  return address;
}
