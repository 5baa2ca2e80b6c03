import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as library from 'nest-visit';
import { describe, expect, test } from 'vitest';
import { optionTable, type Option, type OptionTable } from '../../lib/options/option-table.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const pages = [
  ...readdirSync(root).filter((file) => file.endsWith('.md')),
  ...readdirSync(join(root, 'docs')).flatMap((file) => (file.endsWith('.md') ? `docs/${file}` : [])),
];
const read = (page: string): string => readFileSync(join(root, page), 'utf8');
const optionsPage = read('docs/options.md');

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
  typeof value === 'string'
    ? `'${value}'`
    : typeof value === 'number' || typeof value === 'boolean'
      ? String(value)
      : '';
/** Said in words, because a value would not say it. */
const IN_WORDS: Record<string, string> = {
  'cookie.secure': "in production, else `'auto'`",
  'session.serializer': '[the format](session.md#what-can-be-kept)',
  clock: '`Date`',
};

/** What docs/security.md answers to, in its order. */
const SECURITY_IDS = [
  ...'7.1.1 7.1.2 7.2.1 7.2.2 7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.3 7.5.2 7.6.2'.split(' '),
  ...'3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.5.1 3.5.2 3.5.3 14.2.1 14.2.2 14.2.5 14.3.1 14.3.2 16.2.5 16.3.1'.split(' '),
  ...'S2 S3 S6 S9 S10 N4 N8 F1 F2 F3 F4 F5'.split(' '),
  'RFC 6265bis R1',
  'RFC 6265bis R4',
  'RFC 6265bis R5',
  ...'A1 A2 A3 A4 A5'.split(' '),
];

/** The headings of a page, as links name them. */
function anchorsOf(text: string): string[] {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!.toLowerCase());
  return headings.map((heading) => heading.replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'));
}

describe('The documentation', () => {
  test('docs/options.md has every option with its default', () => {
    const rows = [...optionsPage.matchAll(/^\| `([\w.]+)` \|(.*?)\|/gm)].map(([, name, text]) => [name, text!.trim()]);
    const expected = optionsOf(optionTable).map(({ name, value }) => [
      name,
      IN_WORDS[name] ?? (shown(value) && `\`${shown(value)}\``),
    ]);
    expect(rows.filter(([name]) => expected.some(([other]) => other === name))).toEqual(expected);
  });

  test('the @default of each option is its actual default', () => {
    const source = read('lib/options/visit-options.interface.ts').split('export interface ResolvedVisitOptions')[0]!;
    for (const { name, value } of optionsOf(optionTable)) {
      // Where visits are kept has no default.
      if (name in IN_WORDS || ['dataSource', 'store'].includes(name)) continue;
      const property = name.split('.').at(-1)!;
      const room = name.includes('.')
        ? `interface Visit${name[0]!.toUpperCase()}${name.split('.')[0]!.slice(1)}Options`
        : 'interface VisitSettings';
      const text = source.slice(source.indexOf(room));
      const comment = new RegExp(`@default ([^\\n]*?)(?: |\\n {3})\\*/\\n  ${property}\\?:`)
        .exec(text)?.[1]
        ?.replace('*\\/', '*/');
      expect(comment, name).toBe(shown(value) || (Array.isArray(value) ? '[]' : 'undefined'));
    }
  });

  test('every exported name is explained somewhere, including types', () => {
    const sources = [
      'index',
      'testing/index',
      'observe/opentelemetry',
      'store/drizzle/index',
      'store/keyv/index',
      'store/kysely/index',
      'store/prisma/index',
      'store/redis/index',
      'store/sealed-cookie/index',
      'store/typeorm/index',
    ]
      .map((entry) => read(`lib/${entry}.ts`))
      .join('\n');
    const whole = [...sources.matchAll(/^export type \* from '\.\/(.*)\.js'/gm)].flatMap(([, file]) =>
      [...read(`lib/${file}.ts`).matchAll(/^export interface (\w+)/gm)].map(([, name]) => name!),
    );
    const lists = [...sources.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].map(([, list]) => list!);
    const names = [
      ...whole,
      ...lists.flatMap((list) => [...list.matchAll(/(?:type )?(\w+)\s*(?:,|$)/g)].map(([, name]) => name!)),
    ];
    expect(names).toEqual(
      expect.arrayContaining([
        ...Object.keys(library),
        'VisitModuleOptions',
        'SessionData',
        'PrismaVisitClient',
        'describeVisitStore',
        'TestRunner',
      ]),
    );
    const all = pages.map(read).join('\n');
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(all))).toEqual([]);
  });

  test('the tests that prove the guarantees exist', () => {
    const rows = [...read('docs/guarantees.md').matchAll(/`((?:test\/|lib\/testing)[^`]*)`((?:,? [RB]\d+)*)/g)];
    expect(rows.length).toBeGreaterThan(10);
    for (const [, place, ids] of rows) {
      const path = join(root, place!);
      const files = place!.endsWith('.ts')
        ? [path]
        : readdirSync(path).flatMap((file) => (file.endsWith('.ts') ? join(path, file) : []));
      const text = files.map((file) => readFileSync(file, 'utf8')).join('\n');
      for (const [id] of ids!.matchAll(/[RB]\d+/g)) expect(text, `${place} ${id}`).toMatch(new RegExp(`\\b${id}\\b`));
    }
  });

  test('the tests that docs/security.md refers to exist, with those titles', () => {
    const rows = [...read('docs/security.md').matchAll(/^\| ([^|]*\d) \|.*\| (\[[^|]*\)) \|$/gm)].map(
      ([, ids, links]) => ({
        ids: ids!.split(', '),
        files: [...links!.matchAll(/\]\(\.\.\/(test\/[^)]*)\)/g)].map(([, file]) => file!),
      }),
    );
    expect(rows.flatMap(({ ids }) => ids)).toEqual(SECURITY_IDS);
    for (const { ids, files } of rows) {
      // The beginnings of the titles, up to the colon.
      const titles = files.map((file) =>
        [...read(file).matchAll(/['"`]([A-Z][^'"`\n:]*\d): /g)].map(([, beginning]) => beginning!),
      );
      const says = (beginning: string, id: string): boolean =>
        new RegExp(`(?<![\\w.])${id.replaceAll('.', '\\.')}(?![\\w.])`).test(beginning);
      for (const [index, file] of files.entries()) {
        expect(
          ids.some((id) => titles[index]!.some((beginning) => says(beginning, id))),
          `${file} for ${ids.join()}`,
        ).toBe(true);
      }
      for (const id of ids)
        expect(titles.flat().filter((beginning) => says(beginning, id)).length, id).toBeGreaterThan(0);
    }
  });

  test('bugs of other libraries about rights or forged keys have tests on both platforms', () => {
    const suites = ['e2e', 'attack'].flatMap((folder) =>
      readdirSync(join(root, 'test', folder)).map((file) => read(`test/${folder}/${file}`)),
    );
    const onBoth = suites.filter((text) => /describeStacks\(|describe\.each\(platforms\)/.test(text)).join('\n');
    const ids = [13, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 35].map((number) => `B${number}`);
    expect(ids.filter((id) => !new RegExp(`['"\`]([A-Z][^'"\`\\n:]*)?\\b${id}\\b[^'"\`\\n:]*: `).test(onBoth))).toEqual(
      [],
    );
  });

  test('test/README.md defines each id that titles of tests begin with, and no other', () => {
    const files = ['test', 'lib/testing'].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).flatMap((file) =>
        file.endsWith('.ts') && !file.includes('node_modules') ? [`${folder}/${file}`] : [],
      ),
    );
    // A title: text that begins with ids and a colon.
    const titles = files.flatMap((file) =>
      [...read(file).matchAll(/['"`]([A-Z\d][^'"`\n:]*\d): /g)].map(([, beginning]) => beginning!),
    );
    const used = new Set(titles.flatMap((beginning) => beginning.match(/(?<![\w.])[RB]\d+(?![\w.])/g) ?? []));
    const defined = [...read('test/README.md').matchAll(/^\| ([RB]\d+) \|/gm)].map(([, id]) => id!);
    expect(defined.length).toBeGreaterThan(100);
    expect(defined.toSorted()).toEqual([...used].toSorted());
  });

  test('the pages on stores have one shape, and are in the sidebar', () => {
    const shape = ['What it is for', 'Install', 'Configure', 'Guarantees', 'Limits', 'Clean-up', 'Migration'];
    const stores = pages.filter((page) => page.startsWith('docs/store-'));
    expect(stores.length).toBeGreaterThan(5);
    for (const page of stores) {
      expect([...read(page).matchAll(/^## (.*)$/gm)].map(([, heading]) => heading, page)).toEqual(shape);
      expect(read('docs/.vitepress/sidebar.mjs')).toContain(page.replace(/^docs(.*)\.md$/, "'$1'"));
    }
  });

  test('every error code is explained', () => {
    const codes = [...read('lib/errors/visit.error.ts').matchAll(/^ {2}\| '(\w+)'/gm)].map(([, code]) => code!);
    expect(codes.length).toBeGreaterThan(10);
    for (const code of codes) expect(read('docs/errors.md')).toContain(code);
    const explained = [...read('docs/error-codes.md').matchAll(/^## (\w+)$/gm)].map(([, code]) => code!);
    expect(explained.toSorted()).toEqual(codes.toSorted());
  });

  test.each(pages)('links of %s have targets', (page) => {
    // npm shows the README without the repository around it, so its links are whole addresses.
    const text = read(page).replaceAll(/\]\(https:\/\/github\.com\/nest-visit\/nest-visit\/blob\/main\//g, '](/');
    const links = [...text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)].map(([, to, anchor]) => ({
      file: to?.startsWith('/') ? to.slice(1) : to ? join(dirname(page), to) : page,
      anchor,
    }));
    if (page === 'README.md') expect(read(page)).not.toMatch(/\]\((?!https:)/);
    expect(links.filter(({ file }) => !existsSync(join(root, file)))).toEqual([]);
    expect(links.filter(({ file, anchor }) => anchor !== undefined && !anchorsOf(read(file)).includes(anchor))).toEqual(
      [],
    );
  });
});
