import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { authenticate } from '../../sample/users.js';
import { languages } from '../../sample/web/texts.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8');
const readme = read('sample/README.md');

const section = (title: string): string => new RegExp(`^## ${title}\n([^]*?)(?=^## |$(?![^]))`, 'm').exec(readme)![1]!;

test("the files that the sample's README refers to contain what it says", () => {
  const rows = [...section('To read, in this order').matchAll(/^\| \[(\S+)\]\((\S+)\) \| (.*) \|$/gm)];
  expect(rows.length).toBeGreaterThan(10);
  for (const [, shown, path, says] of rows) {
    expect(shown).toBe(path);
    const text = read(`sample/${path}`);
    // Of `VisitModule.forRoot({ … })` all up to the bracket; a method of a service as it is called.
    const names = [...says!.matchAll(/`([@\w.]+)[^`]*`/g)].map(([, name]) => name!);
    expect(
      names.filter((name) => !text.includes(name)),
      path,
    ).toEqual([]);
  }
});

test("the requests and pages that the sample's README suggests exist", async () => {
  const pages = [...section('To try').matchAll(/^\d\. \*\*(.+?)\*\*/gm)].map(([, title]) => title!);
  const { signIn, ...nav } = languages.en.layout.nav;
  expect(pages.toSorted()).toEqual([...Object.values(nav), signIn].toSorted());
  const [, id, password] = /as `(\w+)` with `(\S+)`/.exec(readme)!;
  expect(await authenticate(id!, password!)).toMatchObject({ id });
  expect(await authenticate(id!, `${password}x`)).toBeNull();
});

test("the variables, defaults and commands of the sample's README are those of the sample", () => {
  const environment = read('sample/environment.ts');
  const help = read('sample/start.mjs');
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \| .* \| `(\S+)` \|$/gm)].map(([, name, usual]) => ({
    name: name!,
    usual: usual!,
  }));
  expect(rows.map(({ name }) => name).toSorted()).toEqual(
    /\{ ([A-Z_, ]+) \}: NodeJS/.exec(environment)![1]!.split(', ').toSorted(),
  );
  for (const { name, usual } of rows) {
    expect(environment).toMatch(new RegExp(`${name} \\|\\| '?${usual.replaceAll('.', '\\.')}'?[; )]`));
    expect(help).toMatch(new RegExp(`^ {2}${name} `, 'm'));
  }
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const commands = [...readme.matchAll(/^(npm|npx) (?:run )?(\S+)/gm)].map(([, tool, name]) => [tool, name]);
  expect(commands).toEqual([
    ['npm', 'start'],
    ['npm', 'build'],
    ['npx', 'nest'],
  ]);
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining(['start', 'build']));
  expect(existsSync(`${root}node_modules/.bin/nest`)).toBe(true);
  expect(read('sample/main.ts')).toContain("'127.0.0.1'");
});
