import type ts from 'typescript';
import { sourcesBelow, type Tree } from './schematics.js';
import { Source, type TypeScript } from './source.js';

/** The changes to the options of the application's data sources, and the remaining work. */
export interface DataSources {
  /** Whether TypeOrmModule.forRoot() or forRootAsync() is called anywhere. */
  readonly isInNest: boolean;
  readonly changed: readonly Source[];
  /** Whether any of them creates the tables at startup. */
  readonly createTables: boolean;
  /** Files whose options must be changed by hand. */
  readonly byHand: readonly string[];
}

/**
 * Adds entities and migrations of visits to the options of data sources: in `TypeOrmModule.forRoot()`, in the return
 * value of the factory of `forRootAsync()`, and in `new DataSource()`. Named data sources are not changed.
 */
export function addToDataSources(
  tree: Tree,
  typescript: TypeScript,
  sourceRoot: string,
  read: (path: string) => Source,
): DataSources {
  const changed: Source[] = [];
  const byHand: string[] = [];
  let isInNest = false;
  let createTables = false;
  for (const path of sourcesBelow(tree, sourceRoot)) {
    if (!/TypeOrmModule\.forRoot|new DataSource\(/.test(tree.readText(path))) continue;
    const source = read(path);
    const calls = source.calls('TypeOrmModule', /^forRoot(Async)?$/);
    const made = source
      .find(typescript.isNewExpression)
      .filter(({ expression }) => expression.getText() === 'DataSource');
    isInNest ||= calls.length > 0;
    const options = [...calls, ...made].map((call) => optionsOf(source, typescript, call));
    const literals = options.filter((one) => one !== undefined).filter((one) => !source.property(one, 'name'));
    let isWhole = options.every((one) => one !== undefined);
    for (const literal of literals) {
      const isTrue = (name: string): boolean => source.property(literal, name)?.initializer.getText() === 'true';
      const hasMigrations = source.property(literal, 'migrations') !== undefined;
      const added = canAdd(source, typescript, literal);
      if (!added) {
        isWhole = false;
        continue;
      }
      source.addToList(literal, 'entities', '...visitEntities');
      source.addToList(literal, 'migrations', '...visitMigrations');
      // Without migrations of its own, the application does not run any.
      if (!hasMigrations && !isTrue('synchronize') && !source.property(literal, 'migrationsRun'))
        source.addProperty(literal, 'migrationsRun', 'true');
      createTables ||= !hasMigrations || isTrue('synchronize') || isTrue('migrationsRun');
      source.addImport({ names: ['visitEntities', 'visitMigrations'], from: 'nest-visit/typeorm' });
      if (!changed.includes(source)) changed.push(source);
    }
    if (!isWhole) byHand.push(path);
  }
  return { isInNest, changed, createTables, byHand };
}

/** The options object of a call, or the one that its factory returns; undefined if there is no such object. */
function optionsOf(
  source: Source,
  typescript: TypeScript,
  { arguments: all }: ts.CallExpression | ts.NewExpression,
): ts.ObjectLiteralExpression | undefined {
  const { isObjectLiteralExpression, isArrowFunction, isParenthesizedExpression, isReturnStatement } = typescript;
  const first = all?.[0];
  if (!first || !isObjectLiteralExpression(first)) return undefined;
  const factory = first.properties.find((property) => property.name?.getText() === 'useFactory');
  if (!factory) return source.property(first, 'type') ? first : undefined;
  const inFactory = (node: ts.Node): boolean =>
    node.getStart() >= factory.getStart() && node.getEnd() <= factory.getEnd();
  const literal = (node: ts.Expression | undefined): ts.ObjectLiteralExpression | undefined => {
    const inner = node && isParenthesizedExpression(node) ? node.expression : node;
    return inner && isObjectLiteralExpression(inner) && source.property(inner, 'type') ? inner : undefined;
  };
  const returned = [
    ...source
      .find(isReturnStatement)
      .filter(inFactory)
      .map(({ expression }) => literal(expression)),
    ...source
      .find(isArrowFunction)
      .filter(inFactory)
      .map(({ body }) => literal(body as ts.Expression)),
  ].filter((one) => one !== undefined);
  return returned.length === 1 ? returned[0] : undefined;
}

/** Spread options may contain entities, which a list here would replace. */
function canAdd(
  source: Source,
  { isArrayLiteralExpression, isSpreadAssignment }: TypeScript,
  literal: ts.ObjectLiteralExpression,
): boolean {
  return ['entities', 'migrations'].every((name) => {
    const value = source.property(literal, name)?.initializer;
    if (value) return isArrayLiteralExpression(value);
    return !literal.properties.some((property) => isSpreadAssignment(property) || property.name?.getText() === name);
  });
}
