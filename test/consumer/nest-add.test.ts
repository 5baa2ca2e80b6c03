import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Browser } from '../support/browser.js';
import { openDatabase } from '../support/databases.js';
import { describeWith } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';
import { isSoak } from '../support/soak.js';
import { temporaryFolder } from '../support/servers.mjs';

// `nest add nest-visit` on what `nest new` makes, with the command line of Nest from npm and the packed package.

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = temporaryFolder('nest-add');
const children: ChildProcess[] = [];
let tarball: string;

beforeAll(async () => {
  // Other tests use the build at the same time, so it is made anew only where there is none.
  if (!existsSync(join(root, 'dist/esm/index.js'))) await run(process.execPath, ['lib/build.mjs'], { cwd: root });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder.path], { cwd: root });
  tarball = join(folder.path, (JSON.parse(stdout) as [{ filename: string }])[0].filename);
});
afterAll(async () => {
  await stop();
  await folder.remove();
});

async function stop(): Promise<void> {
  for (const child of children.splice(0)) {
    const exit = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.kill('SIGTERM')) await exit;
  }
}

/** A fresh application, with the package installed: `nest add` would take it from the registry. */
async function fresh(version: number): Promise<string> {
  const name = `nest${version}`;
  const make = [
    '-y',
    `@nestjs/cli@${version}`,
    'new',
    name,
    '--package-manager',
    'npm',
    '--skip-git',
    '--skip-install',
  ];
  await run('npx', make, { cwd: folder.path, timeout: 3 * PATIENCE });
  const place = join(folder.path, name);
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', tarball], {
    cwd: place,
    timeout: 3 * PATIENCE,
  });
  return place;
}

async function add(place: string, ...options: string[]): Promise<string> {
  const { stdout } = await run('npx', ['--no-install', 'nest', 'add', 'nest-visit', ...options], {
    cwd: place,
    timeout: 3 * PATIENCE,
  });
  return stdout;
}

/** The only thing that is written by hand: a handler that counts. */
async function count(place: string): Promise<void> {
  const file = join(place, 'src/app.controller.ts');
  const [nest, handler] = ["from '@nestjs/common';", /getHello\(\): string \{[^}]*\}/];
  const counting =
    "getHello(@Session() session: Session<{ count: number }>) {\n    return (session.count = session.get('count', 0) + 1);\n  }";
  const text = await readFile(file, 'utf8');
  await writeFile(
    file,
    text.replace(nest, `${nest}\nimport { Session } from 'nest-visit';`).replace(handler, counting),
  );
}

/** What the built application answers to three requests of one browser. */
async function answersOf(place: string, env: Record<string, string> = {}): Promise<number[]> {
  await count(place);
  await run('npx', ['--no-install', 'nest', 'build'], { cwd: place, timeout: 3 * PATIENCE });
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

describeWith('mysql', 'nest add nest-visit', () => {
  // What Nest 11 makes differs by little, and each application is installed for a minute: one by day.
  if (isSoak)
    test('on a fresh application of Nest 12: in memory, and a second time nothing changes', async () => {
      const place = await fresh(12);
      const module = (): Promise<string> => readFile(join(place, 'src/app.module.ts'), 'utf8');
      expect(await add(place, '--skip-install')).toContain('VisitModule is registered in src/app.module.ts.');
      const after = await module();
      expect(after).toContain('VisitModule.forRoot({ store: new MemoryVisitStore() })');
      expect(await add(place, '--skip-install')).toContain('nothing has changed');
      expect(await module()).toBe(after);
      expect(await answersOf(place)).toEqual([2, 3]);
    });

  test('on a fresh application of Nest 11: installs TypeORM and a driver, and the tables are created', async () => {
    const place = await fresh(11);
    const { options, drop } = await openDatabase('mariadb');
    // The package itself is there; what it needs is installed by the schematic.
    const schematics = [
      'node_modules/@angular-devkit/schematics-cli/bin/schematics.js',
      'nest-visit:nest-add',
      '--source-root=src',
    ];
    await run(process.execPath, [...schematics, '--store', 'typeorm', '--database', 'mariadb'], {
      cwd: place,
      timeout: 3 * PATIENCE,
    });
    const { dependencies } = JSON.parse(await readFile(join(place, 'package.json'), 'utf8')) as {
      dependencies: object;
    };
    expect(dependencies).toMatchObject({ typeorm: expect.any(String) as string, mysql2: expect.any(String) as string });
    expect(await add(place, '--skip-install')).toContain('nothing has changed');
    expect(await answersOf(place, { DATABASE_URL: (options as { url: string }).url })).toEqual([2, 3]);
    await stop();
    await drop();
  });
});
