import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as library from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { optionTable, type Option, type OptionTable } from '../../lib/options/option-table.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const pages = [
  ...readdirSync(root).filter((file) => file.endsWith('.md')),
  ...readdirSync(join(root, 'docs')).map((file) => `docs/${file}`),
];
const read = (page: string): string => readFileSync(join(root, page), 'utf8');
const readme = read('README.md');

interface Row {
  readonly name: string;
  readonly value: unknown;
}

function optionsOf(table: OptionTable, prefix = ''): Row[] {
  return Object.entries(table).flatMap(([name, entry]) =>
    typeof entry['parse'] === 'function'
      ? [{ name: prefix + name, value: (entry as Option).default() }]
      : optionsOf(entry as OptionTable, `${prefix}${name}.`),
  );
}

const shown = (value: unknown): string =>
  typeof value === 'string' ? `'${value}'` : typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
/** Said in words, because a value would not say it. */
const IN_WORDS: Record<string, string> = {
  permanentTimeout: '`timeout`',
  'cookie.secure': 'in production',
  'session.serializer': '[the format](docs/session.md#what-can-be-kept)',
  clock: '`Date`',
};

/** The headings of a page, as links name them. */
function anchorsOf(text: string): string[] {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!.toLowerCase());
  return headings.map((heading) => heading.replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'));
}

describe('The documentation', () => {
  test("the README's table has every option with its default", () => {
    const rows = [...readme.matchAll(/^\| `([\w.]+)` \|(.*?)\|/gm)].map(([, name, text]) => [name, text!.trim()]);
    const expected = optionsOf(optionTable).map(({ name, value }) => [name, IN_WORDS[name] ?? (shown(value) && `\`${shown(value)}\``)]);
    expect(rows.filter(([name]) => expected.some(([other]) => other === name))).toEqual(expected);
  });

  test('the @default of each option is the one that is used', () => {
    const source = read('lib/options/visit-options.interface.ts').split('export interface ResolvedVisitOptions')[0]!;
    for (const { name, value } of optionsOf(optionTable)) {
      if (name in IN_WORDS) continue;
      const property = name.split('.').at(-1)!;
      const room = name.includes('.')
        ? `interface Visit${name[0]!.toUpperCase()}${name.split('.')[0]!.slice(1)}Options`
        : 'interface VisitModuleOptions';
      const text = source.slice(source.indexOf(room));
      const comment = new RegExp(`@default ([^\\n]*?) \\*/\\n  ${property}\\?:`).exec(text)?.[1]?.replace('*\\/', '*/');
      expect(comment, name).toBe(shown(value) || (Array.isArray(value) ? '[]' : 'undefined'));
    }
  });

  test('every exported name is explained somewhere, types too', () => {
    const sources = ['lib/index.ts', 'lib/testing/index.ts'].map(read).join('\n');
    const lists = [...sources.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].map(([, list]) => list!);
    const names = lists.flatMap((list) => [...list.matchAll(/(?:type )?(\w+)\s*(?:,|$)/g)].map(([, name]) => name!));
    expect(names).toEqual(expect.arrayContaining([...Object.keys(library), 'VisitModuleOptions', 'describeVisitStore', 'TestRunner']));
    const all = pages.map(read).join('\n');
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(all))).toEqual([]);
  });

  test('the tests that show the guarantees exist', () => {
    const rows = [...read('docs/guarantees.md').matchAll(/`((?:test\/|lib\/testing)[^`]*)`((?:,? [RB]\d+)*)/g)];
    expect(rows.length).toBeGreaterThan(10);
    for (const [, place, ids] of rows) {
      const path = join(root, place!);
      const files = place!.endsWith('.ts') ? [path] : readdirSync(path).flatMap((file) => (file.endsWith('.ts') ? join(path, file) : []));
      const text = files.map((file) => readFileSync(file, 'utf8')).join('\n');
      for (const [id] of ids!.matchAll(/[RB]\d+/g)) expect(text, `${place} ${id}`).toMatch(new RegExp(`\\b${id}\\b`));
    }
  });

  test('every error code is explained', () => {
    const codes = [...read('lib/errors/visit.error.ts').matchAll(/^ {2}\| '(\w+)'/gm)].map(([, code]) => code!);
    expect(codes.length).toBeGreaterThan(10);
    for (const code of codes) expect(read('docs/errors.md')).toContain(code);
  });

  test.each(pages)('links of %s lead somewhere', (page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)].map(([, to, anchor]) => ({
      file: to ? join(dirname(page), to) : page,
      anchor,
    }));
    expect(links.filter(({ file }) => !existsSync(join(root, file)))).toEqual([]);
    expect(links.filter(({ file, anchor }) => anchor !== undefined && !anchorsOf(read(file)).includes(anchor))).toEqual([]);
  });
});
