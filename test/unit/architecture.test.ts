import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

// Holds what ARCHITECTURE.md says under "Rooms". Only imports that exist at run time count, unless a test says
// otherwise: types may look anywhere, since nothing is loaded by them.

const root = fileURLToPath(new URL('../..', import.meta.url));
const files = readdirSync(`${root}lib`, { recursive: true, encoding: 'utf8' })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => file.endsWith('.ts'));

interface Import {
  /** A file of lib, or a package, without the path inside of it. */
  readonly target: string;
  readonly typeOnly: boolean;
  /** `import()`: loaded when it is needed. */
  readonly isLate?: true;
}

interface Module {
  readonly text: string;
  readonly imports: readonly Import[];
  /** `import.meta` or `await` outside of functions: neither can be compiled to CommonJS. */
  readonly needsEsm: boolean;
}

function parse(file: string, text: string): Module {
  const imports: Import[] = [];
  let needsEsm = false;
  const add = (specifier: ts.Node | undefined, typeOnly: boolean, isLate = false): void => {
    if (!specifier || !ts.isStringLiteral(specifier)) return;
    const name = specifier.text;
    const target = name.startsWith('.')
      ? join(dirname(file), name).replace(/\.js$/, '.ts')
      : name.split('/', name.startsWith('@') ? 2 : 1).join('/');
    imports.push({ target, typeOnly, ...(isLate && { isLate }) });
  };
  const visit = (node: ts.Node, inFunction: boolean): void => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeOnly(node.importClause));
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, isTypeOnly(node));
    else if (ts.isImportTypeNode(node)) add((node.argument as ts.LiteralTypeNode).literal, true);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node.arguments[0], false, true);
    else if (ts.isMetaProperty(node) && node.keywordToken === ts.SyntaxKind.ImportKeyword) needsEsm = true;
    else if (ts.isAwaitExpression(node) && !inFunction) needsEsm = true;
    ts.forEachChild(node, (child) => visit(child, inFunction || ts.isFunctionLike(node)));
  };
  visit(ts.createSourceFile(file, text, ts.ScriptTarget.ES2022), false);
  return { text, imports, needsEsm };
}

function isTypeOnly(clause: ts.ImportClause | ts.ExportDeclaration | undefined): boolean {
  if (!clause) return false;
  if (clause.isTypeOnly) return true;
  const names = ts.isImportClause(clause) ? (clause.name ? undefined : clause.namedBindings) : clause.exportClause;
  if (!names || !(ts.isNamedImports(names) || ts.isNamedExports(names))) return false;
  return names.elements.length > 0 && [...names.elements].every((element) => element.isTypeOnly);
}

const modules = new Map(files.map((file) => [file, parse(file, readFileSync(`${root}lib/${file}`, 'utf8'))]));
const edges = [...modules].flatMap(([file, { imports }]) => imports.map((one) => ({ file, ...one })));
const inLib = edges.filter(({ target }) => modules.has(target));
const ofPackages = edges.filter(({ target }) => !modules.has(target) && !target.startsWith('node:'));

/** Files of lib that bring each other into memory in a circle, or undefined. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const search = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of graph.get(file) ?? []) {
      const cycle = search(next, [...path, file]);
      if (cycle) return cycle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of graph.keys()) {
    const cycle = search(file, []);
    if (cycle) return cycle;
  }
  return undefined;
}

type Layer =
  | 'wiring'
  | 'door'
  | 'story'
  | 'room'
  | 'adapter'
  | 'contract'
  | 'ground'
  | 'testing'
  | 'test wiring'
  | 'schematic';

/** The first that matches. */
const LAYERS: readonly [RegExp, Layer][] = [
  [
    /^(index|express|express-session|fastify|visit\.module|visit\.module-definition|store\/open-data-source)\.ts$|^cli\//,
    'wiring',
  ],
  // Whoever calls the story, or is called from the application's code.
  [/^visit\.service\.ts$|^request\/visit\.(interceptor|guard)\.ts$|^websockets\/gateways\.ts$/, 'door'],
  [/^identity\/identity\.(service|guard)\.ts$|^form-token\/(form-token\.service|.*\.guard)\.ts$/, 'door'],
  [/^session\/session(\.injectable)?\.ts$|^visit\/current-visit\.ts$/, 'door'],
  [/^expunge\/expunge\.scheduler\.ts$|^observe\/visit-health\.ts$/, 'door'],
  [/^request\/(request\.story|visit\.finder|visit\.recorder)\.ts$/, 'story'],
  [/^testing\/(index|application)\.ts$/, 'test wiring'],
  [/^testing\//, 'testing'],
  [/^nest-add\//, 'schematic'],
  [/^(errors|options)\/|^key\/visit-key\.ts$/, 'ground'],
  [
    /^store\/sql\/|^store\/(visit\.store|visit\.facets|table-visit\.store|visit\.record|visit\.columns|record\.rows|sql\.values|retry-on-conflict|save-each|timeouts|deadline|circuit-breaker|clock-skew|ask-each|optional-package|server-(?:rules|probe)|statement-size)\.ts$|^platform\/(exchange|handshake)\.ts$|^plugin\/visit-plugin\.ts$|^observe\/(visit-telemetry|observed-store)\.ts$/,
    'contract',
  ],
  [/^store\/batching\/|^store\/(store-access|failure-log|lost-answers|no-connection|places|unfinished)\.ts$/, 'room'],
  [/^store\/[^/]+\/|^platform\/|^observe\/opentelemetry\.ts$/, 'adapter'],
  [/^(context|request|key|visit|session|identity|plugin|expunge|form-token|websockets|graphql)\//, 'room'],
];

const MAY_IMPORT: Record<Layer, readonly Layer[]> = {
  wiring: ['wiring', 'door', 'story', 'room', 'adapter', 'contract', 'ground'],
  door: ['story', 'room', 'contract', 'ground'],
  story: ['story', 'room', 'contract', 'ground'],
  room: ['room', 'contract', 'ground'],
  adapter: ['contract', 'ground'],
  contract: ['contract', 'ground'],
  ground: ['ground'],
  // An entry point of its own, that nothing else loads.
  testing: ['testing', 'contract', 'ground'],
  // Runs in the command line of Nest, and knows the library by the names that it writes down.
  schematic: ['schematic'],
  'test wiring': ['test wiring', 'testing', 'wiring', 'door', 'adapter', 'ground'],
};

/** What the rule does not allow, and why it is so. Each must still be needed. */
const EXCEPTIONS: Record<string, string> = {
  'options/resolve-options.ts > session/session.codec.ts':
    'the default serializer: a pure value, without Nest and without a store',
  'options/option-table.ts > store/visit.store.ts': 'tells a store from something else',
};

/** The room a file lies in; what lies in none of them wires the others together. */
const roomOf = (file: string): string | undefined => /^(\w[\w-]*)\//.exec(file)?.[1];

const layerOf = (file: string): Layer | undefined => LAYERS.find(([pattern]) => pattern.test(file))?.[1];
const adapterOf = (file: string): string => /^store\/[^/]+|^[^/]+/.exec(file)![0];

describe('Imports of lib', () => {
  test('are found by this test', () => {
    expect(edges).toContainEqual({
      file: 'request/visit.interceptor.ts',
      target: 'request/request.story.ts',
      typeOnly: false,
    });
    expect(edges).toContainEqual({
      file: 'session/session.injectable.ts',
      target: 'context/current-request.ts',
      typeOnly: true,
    });
    expect(edges).toContainEqual({
      file: 'expunge/expunge.scheduler.ts',
      target: '@nestjs/schedule',
      typeOnly: false,
      isLate: true,
    });
    const { imports, needsEsm } = parse(
      'a/b.ts',
      `import { type A, B } from './c.js'; import { type D } from '@e/f/g'; export * from '../h.js'; type I = ` +
        `import('j').K; await import('l');`,
    );
    expect(imports).toEqual([
      { target: 'a/c.ts', typeOnly: false },
      { target: '@e/f', typeOnly: true },
      { target: 'h.ts', typeOnly: false },
      { target: 'j', typeOnly: true },
      { target: 'l', typeOnly: false, isLate: true },
    ]);
    expect(needsEsm).toBe(true);
    expect(parse('a.ts', 'async () => { await 1; }').needsEsm).toBe(false);
  });

  test('resolve to files that exist', () => {
    expect(edges.filter(({ target }) => target.endsWith('.ts') && !modules.has(target))).toEqual([]);
  });

  test('have no cycles', () => {
    expect(findCycle(new Map(Object.entries({ a: ['b'], b: ['c', 'd'], c: [], d: ['b'] })))).toEqual(['b', 'd', 'b']);
    const graph = new Map(
      files.map((file) => [
        file,
        inLib.filter((edge) => edge.file === file && !edge.typeOnly).map(({ target }) => target),
      ]),
    );
    expect(findCycle(graph)).toBeUndefined();
  });

  test('form no cycles between rooms, not even by types, except for options and the listed exceptions', () => {
    const between = inLib.flatMap(({ file, target }) => {
      const [from, to] = [roomOf(file), roomOf(target)];
      const isGround = (room: string | undefined): boolean =>
        room === undefined || ['options', 'errors', 'cli', 'testing'].includes(room);
      return isGround(from) || isGround(to) || from === to ? [] : [{ from: from!, to: to! }];
    });
    const rooms = [...new Set(between.flatMap(({ from, to }) => [from, to]))];
    const graph = new Map(
      rooms.map((room) => [room, [...new Set(between.filter(({ from }) => from === room).map(({ to }) => to))]]),
    );
    expect(rooms).toEqual(
      expect.arrayContaining(['context', 'request', 'visit', 'session', 'identity', 'plugin', 'key']),
    );
    expect(findCycle(graph)).toBeUndefined();
  });

  test('go from doors to story, rooms, contracts and ground; only wiring imports adapters', () => {
    expect(files.filter((file) => !layerOf(file))).toEqual([]);
    const wrong = inLib
      .filter(({ typeOnly }) => !typeOnly)
      .filter(({ file, target }) => {
        const [from, to] = [layerOf(file)!, layerOf(target)!];
        return (
          !MAY_IMPORT[from].includes(to) &&
          !(from === 'adapter' && to === 'adapter' && adapterOf(file) === adapterOf(target))
        );
      })
      .map(({ file, target }) => `${file} > ${target}`);
    expect(wrong.sort()).toEqual(Object.keys(EXCEPTIONS).sort());
  });

  test('of the command load the commands late: only the one that is run', () => {
    const loaded = new Set(['cli/main.ts']);
    for (const file of loaded)
      for (const one of inLib) if (one.file === file && !one.isLate && !one.typeOnly) loaded.add(one.target);
    expect([...loaded]).toContain('cli/command.ts');
    expect([...loaded].filter((file) => /^cli\/(commands|doctor)\//.test(file))).toEqual([]);
  });

  test('name typeorm only in its store, and as a type where a data source is accepted', () => {
    const isAllowed = ({ file, typeOnly }: { file: string; typeOnly: boolean }): boolean =>
      file.startsWith('store/typeorm/') || (typeOnly && /^(options|cli)\/|^store\/open-data-source\.ts$/.test(file));
    const naming = ofPackages.filter(({ target }) => target === 'typeorm');
    expect(naming.filter((one) => !isAllowed(one))).toEqual([]);
    expect(naming.filter(isAllowed).length).toBeGreaterThan(5);
  });

  test('name redis only in its store, which the main entry point does not load', () => {
    const naming = ofPackages.filter(({ target }) => /^@?redis$/.test(target));
    expect(naming.filter(({ file }) => !file.startsWith('store/redis/'))).toEqual([]);
    expect(naming.length).toBeGreaterThan(0);
    const loaded = new Set(['index.ts', 'cli/main.ts']);
    for (const file of loaded) for (const one of inLib) if (one.file === file && !one.typeOnly) loaded.add(one.target);
    expect([...loaded].filter((file) => file.startsWith('store/redis/'))).toEqual([]);
    expect(loaded).toContain('store/memory/memory-visit.store.ts');
  });

  test('load typeorm only when there is a data source', () => {
    const late = inLib.filter(({ isLate, target }) => isLate && target.startsWith('store/typeorm/'));
    expect(late.map(({ file }) => file)).toEqual(['store/open-data-source.ts']);
    const loaded = new Set(['index.ts', 'cli/main.ts']);
    for (const file of loaded)
      for (const one of inLib) if (one.file === file && !one.typeOnly && !one.isLate) loaded.add(one.target);
    expect([...loaded].filter((file) => file.startsWith('store/typeorm/'))).toEqual([]);
    expect(loaded).toContain('store/open-data-source.ts');
  });

  test('load code with an entry point of its own only through that entry point', () => {
    const inside = (file: string): string | undefined =>
      /^(store\/(?:drizzle|kit|keyv|kysely|prisma|redis|sealed-cookie)|testing)\//.exec(file)?.[1];
    expect(inLib.filter(({ file, target }) => inside(target) && inside(file) !== inside(target))).toEqual([]);
    expect(inLib.filter(({ target }) => inside(target)).length).toBeGreaterThan(5);
  });

  test('name jose only in the store of sealed cookies, which nothing else loads', () => {
    const room = 'store/sealed-cookie/';
    expect(new Set(ofPackages.filter(({ target }) => target === 'jose').map(({ file }) => file))).toEqual(
      new Set([`${room}visit.seal.ts`]),
    );
    expect(inLib.filter(({ file, target }) => target.startsWith(room) && !file.startsWith(room))).toEqual([]);
  });

  test('name @opentelemetry/api only in its entry point, which nothing else loads', () => {
    const file = 'observe/opentelemetry.ts';
    const naming = ofPackages.filter(({ target }) => target.startsWith('@opentelemetry'));
    expect(new Set(naming.map((one) => one.file))).toEqual(new Set([file]));
    expect(inLib.filter(({ target }) => target === file)).toEqual([]);
  });

  test('name kysely only in its store, and as a type', () => {
    const naming = ofPackages.filter(({ target }) => target === 'kysely');
    expect(naming.filter(({ file, typeOnly }) => !file.startsWith('store/kysely/') || !typeOnly)).toEqual([]);
    expect(naming.length).toBeGreaterThan(0);
  });

  test('name drizzle-orm only in its store', () => {
    const naming = ofPackages.filter(({ target }) => target.startsWith('drizzle-orm'));
    expect(naming.filter(({ file }) => !file.startsWith('store/drizzle/'))).toEqual([]);
    expect(naming.length).toBeGreaterThan(0);
  });

  test('never name database drivers', () => {
    expect(ofPackages.filter(({ target }) => /^(mysql2?|pg|libsql|better-sqlite3|sql\.js)$/.test(target))).toEqual([]);
  });

  test('name only packages that package.json declares, at run time and for types', () => {
    const { dependencies, peerDependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as Record<
      string,
      object
    >;
    const promised = Object.keys({ ...dependencies, ...peerDependencies });
    // Who imports types for the requests of a framework has the framework.
    // The schematic reads modules with the TypeScript that the application has.
    const isOfTheApplication = ({
      file,
      target,
      typeOnly,
    }: {
      file: string;
      target: string;
      typeOnly: boolean;
    }): boolean => file === `${target}.ts` || (file.startsWith('nest-add/') && target === 'typescript' && typeOnly);
    expect(ofPackages.filter((one) => !promised.includes(one.target) && !isOfTheApplication(one))).toEqual([]);
    expect(Object.keys(dependencies!).filter((name) => !ofPackages.some(({ target }) => target === name))).toEqual([]);
  });
});

describe('Sources of lib', () => {
  test('name Express and Fastify only in platform/, in types of requests, and to support their libraries', () => {
    const naming = [...modules].filter(([, { text }]) => /express(?!ion)|fastify/i.test(text)).map(([file]) => file);
    const others = ['express-session.ts', 'express.ts', 'fastify.ts', 'session/compatible.session.ts'];
    expect(naming.filter((file) => !file.startsWith('platform/')).toSorted()).toEqual(others);
    expect(naming).toContain('platform/fastify.platform.ts');
  });

  test("write to Nest's logger; only the command writes to a terminal", () => {
    const writing = [...modules].filter(([, { text }]) => /\bconsole\.|process\.(stdout|stderr)/.test(text));
    expect(writing.map(([file]) => file).filter((file) => !file.startsWith('cli/'))).toEqual([]);
    expect(writing).not.toEqual([]);
  });

  test('can be compiled to ES modules and to CommonJS', () => {
    expect([...modules].filter(([, { needsEsm }]) => needsEsm).map(([file]) => file)).toEqual([]);
  });
});
