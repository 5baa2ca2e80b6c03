import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import { openDatabase } from '../support/databases.js';
import { describeWith } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { linkedFolder, root } from './linked.js';

// `nest add nest-visit` on what `nest new` makes, with the command line of Nest from npm and the packed package.

const run = promisify(execFile);
const children: ChildProcess[] = [];

async function stop(): Promise<void> {
  for (const child of children.splice(0)) {
    const exit = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.kill('SIGTERM')) await exit;
  }
}

const SCHEMATICS = '@angular-devkit/schematics-cli/bin/schematics.js';
const UNINSTALLED = ['--package-manager', 'npm', '--skip-git', '--skip-install'];

/** What a fresh application of the repository's own version of Nest needs, and what the schematic would install. */
const LINKED = [
  ...['cli', 'common', 'core', 'platform-express', 'schematics', 'testing'].map((name) => `@nestjs/${name}`),
  'reflect-metadata',
  'rxjs',
  'typescript',
  'vitest',
  '@types/node',
  'bowser',
  'cookie',
  'cron',
  'typeorm',
  'mysql2',
];

/** The same without npm: with the command line of the repository, beside links to its packages. */
async function freshAndLinked(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const cli = join(root, 'node_modules/@nestjs/cli/bin/nest.js');
  await run(process.execPath, [cli, 'new', 'linked', ...UNINSTALLED], { cwd: folder });
  const place = join(folder, 'linked');
  await linkedFolder(place, LINKED);
  return place;
}

/** A fresh application, with the package installed: `nest add` would take it from the registry. */
async function fresh(version: number, folder: string, tarball: string): Promise<string> {
  const name = `nest${version}`;
  await run('npx', ['-y', `@nestjs/cli@${version}`, 'new', name, ...UNINSTALLED], {
    cwd: folder,
    timeout: 3 * PATIENCE,
  });
  const place = join(folder, name);
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', tarball], {
    cwd: place,
    timeout: 3 * PATIENCE,
  });
  return place;
}

async function add(place: string, ...options: string[]): Promise<string> {
  return nest(place, 'add', 'nest-visit', ...options);
}

/** The application's own command line. */
async function nest(place: string, ...args: string[]): Promise<string> {
  const command = ['node_modules/@nestjs/cli/bin/nest.js', ...args];
  return (await run(process.execPath, command, { cwd: place, timeout: 3 * PATIENCE })).stdout;
}

/** The schematic alone, which takes the choices that `nest add` asks for. */
async function schematic(place: string, schematics: string, ...more: string[]): Promise<void> {
  const choices = ['--source-root=src', '--store', 'typeorm', '--database', 'mariadb', ...more];
  await run(process.execPath, [schematics, 'nest-visit:nest-add', ...choices], {
    cwd: place,
    timeout: 3 * PATIENCE,
  });
}

/** The only thing that is written by hand: a handler that counts. */
async function count(place: string): Promise<void> {
  const file = join(place, 'src/app.controller.ts');
  const [common, handler] = ["from '@nestjs/common';", /getHello\(\): string \{[^}]*\}/];
  const counting =
    "getHello(@Session() session: Session<{ count: number }>) {\n    return (session.count = session.get('count', 0) + 1);\n  }";
  const text = await readFile(file, 'utf8');
  await writeFile(
    file,
    text.replace(common, `${common}\nimport { Session } from 'nest-visit';`).replace(handler, counting),
  );
}

/** What the built application answers to three requests of one browser. */
async function answersOf(place: string, env: Record<string, string> = {}): Promise<number[]> {
  await count(place);
  await nest(place, 'build');
  const main = ['dist/main.js', 'dist/src/main.js'].find((file) => existsSync(join(place, file)))!;
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = server.address() as AddressInfo;
      server.close(() => resolve(free));
    });
  });
  const child = spawn(process.execPath, [main], {
    cwd: place,
    env: { ...process.env, PORT: String(port), NODE_ENV: '', ...env },
  });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  const browser = new Browser(`http://127.0.0.1:${port}`);
  const look = (): Promise<number | string> =>
    browser.get('/').then(
      ({ text }) => Number(text),
      () => (child.exitCode === null ? 'not yet' : output),
    );
  await expect.poll(look, { timeout: PATIENCE }).toBe(1);
  return [await look(), await look()].map(Number);
}

/** In a folder, on what the repository has installed. */
export const nestAdd = (folder: string): void =>
  describeWith('mysql', 'nest add nest-visit', () => {
    afterEach(stop);

    test('on the result of `nest new`: registers the module once, and the tables are created', async () => {
      const place = await freshAndLinked(folder);
      const module = (): Promise<string> => readFile(join(place, 'src/app.module.ts'), 'utf8');
      const { options, drop } = await openDatabase('mariadb');
      await schematic(place, join(root, 'node_modules', SCHEMATICS), '--skip-install');
      const after = await module();
      expect(after).toContain("type: 'mariadb'");
      expect(await add(place, '--skip-install')).toContain('nothing has changed');
      expect(await module()).toBe(after);
      expect(await answersOf(place, { DATABASE_URL: (options as { url: string }).url })).toEqual([2, 3]);
      await stop();
      await drop();
    });
  });

/** Installed in a folder, each for half a minute. */
export const nestAddInstalled = (folder: string, tarball: () => string): void =>
  describeWith('mysql', 'nest add nest-visit, from the registry', () => {
    afterEach(stop);

    test('on a new application of Nest 12: in memory, and a second run changes nothing', async () => {
      const place = await fresh(12, folder, tarball());
      const module = (): Promise<string> => readFile(join(place, 'src/app.module.ts'), 'utf8');
      expect(await add(place, '--skip-install')).toContain('VisitModule is registered in src/app.module.ts.');
      const after = await module();
      expect(after).toContain('VisitModule.forRoot({ store: new MemoryVisitStore() })');
      expect(await add(place, '--skip-install')).toContain('nothing has changed');
      expect(await module()).toBe(after);
      expect(await answersOf(place)).toEqual([2, 3]);
    });

    test('on a new application of Nest 11: installs TypeORM and a driver, and the tables are created', async () => {
      const place = await fresh(11, folder, tarball());
      const { options, drop } = await openDatabase('mariadb');
      // The package itself is there; what it needs is installed by the schematic.
      await schematic(place, join('node_modules', SCHEMATICS));
      const { dependencies } = JSON.parse(await readFile(join(place, 'package.json'), 'utf8')) as {
        dependencies: object;
      };
      const version = expect.any(String) as string;
      expect(dependencies).toMatchObject({ typeorm: version, mysql2: version });
      expect(await add(place, '--skip-install')).toContain('nothing has changed');
      expect(await answersOf(place, { DATABASE_URL: (options as { url: string }).url })).toEqual([2, 3]);
      await stop();
      await drop();
    });
  });
