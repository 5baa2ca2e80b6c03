import { createRequire } from 'node:module';
import type { Logger } from 'typeorm';

// The grammar of MySQL 8 as Oracle publishes it for MySQL Workbench, and a parser that was generated from it.

const require = createRequire(import.meta.url);

/** MySQL 8.4. */
const VERSION = 80400;
const END_OF_FILE = -1;

interface Tokens {
  LA(offset: number): number;
  LT(offset: number): { readonly text?: string };
}

interface Recognizer {
  serverVersion: number;
  removeErrorListeners(): void;
  addErrorListener(listener: object): void;
}

/**
 * The part of the packages that is used here: their own types have thousands of lines, which would slow down every type
 * check.
 */
interface Packages {
  readonly MySQLLexer: new (input: object) => Recognizer;
  readonly MultiQueryMySQLParser: new (tokens: Tokens) => Recognizer & {
    readonly interpreter: { setPredictionMode(mode: unknown): void };
    query(): unknown;
  };
  readonly CaseChangingStream: new (input: object, isUpper: boolean) => object;
  readonly CharStreams: { fromString(text: string): object };
  readonly CommonTokenStream: new (lexer: Recognizer) => Tokens;
  readonly PredictionMode: { readonly SLL: unknown; readonly LL: unknown };
}

let packages: Packages | undefined;

function load(): Packages {
  const grammar = 'antlr4ts-sql/dist/src/grammar-output/mysql';
  const of = (file: string): Packages => require(file) as Packages;
  // In this order, because they import each other in cycles.
  const { MySQLLexer } = of(`${grammar}/MySQLLexer.js`);
  const { MultiQueryMySQLParser } = of(`${grammar}/MultiQueryMySQLParser.js`);
  const { CaseChangingStream } = of('antlr4ts-sql/dist/src/models/CaseChangingStream.js');
  const { CharStreams, CommonTokenStream } = of('antlr4ts');
  const { PredictionMode } = of('antlr4ts/atn/PredictionMode.js');
  return { MySQLLexer, MultiQueryMySQLParser, CaseChangingStream, CharStreams, CommonTokenStream, PredictionMode };
}

/** By text: the stores over SQL send the same statements. */
const known = new Map<string, readonly string[]>();

/**
 * The objections of the grammar of MySQL 8 to a statement. The grammar is of MySQL 8.0.21, so words that were reserved
 * later are searched separately. Unlike MySQL, it does not accept text in double quotes as the name of a charset.
 */
export function complaintsOf(sql: string): readonly string[] {
  const complaints = known.get(sql) ?? examine(sql);
  known.set(sql, complaints);
  return complaints;
}

function examine(sql: string): readonly string[] {
  const { SLL, LL } = (packages ??= load()).PredictionMode;
  // What the quicker mode accepts is correct; what it does not understand may still be.
  const complaints = parse(sql, SLL).length === 0 ? [] : parse(sql, LL);
  const reserved = RESERVED_SINCE.exec(sql.replaceAll(/`[^`]*`|'[^']*'|"[^"]*"/g, ''));
  return reserved ? [...complaints, `${reserved[0]} is a reserved word`] : complaints;
}

function parse(sql: string, mode: unknown): string[] {
  const { MySQLLexer, MultiQueryMySQLParser, CaseChangingStream, CharStreams, CommonTokenStream } = (packages ??=
    load());
  const complaints: string[] = [];
  const listener = {
    syntaxError: (_recognizer: unknown, _symbol: unknown, line: number, column: number, message: string) =>
      void complaints.push(`${line}:${column} ${message.slice(0, 120)}`),
  };
  const lexer = new MySQLLexer(
    new CaseChangingStream(CharStreams.fromString(sql.replaceAll(/"(\w+)"/g, "'$1'")), true),
  );
  const tokens = new CommonTokenStream(lexer);
  const parser = new MultiQueryMySQLParser(tokens);
  for (const recognizer of [lexer, parser]) {
    recognizer.serverVersion = VERSION;
    recognizer.removeErrorListeners();
    recognizer.addErrorListener(listener);
  }
  parser.interpreter.setPredictionMode(mode);
  parser.query();
  if (complaints.length === 0 && tokens.LA(1) !== END_OF_FILE) complaints.push(`it ends before ${tokens.LT(1).text}`);
  return complaints;
}

/** Words that were reserved after 8.0.21, up to 8.4. No statement of the library contains them outside of quotes. */
const RESERVED_SINCE = /\b(INTERSECT|MANUAL|PARALLEL|QUALIFY|TABLESAMPLE)\b/i;

/** Collects the statements, each text once, regardless of the number of rows in a list. */
export class StatementLog implements Logger {
  readonly statements = new Set<string>();

  logQuery(sql: string): void {
    const shortened = sql
      .replaceAll(/\((\?(, \?)*)\)(, \(\?(, \?)*\))+/g, '($1), ($1)')
      .replaceAll(/\?(, \?){2,}/g, '?, ?');
    this.statements.add(
      shortened.replaceAll(/( UNION ALL SELECT \?){2,}/g, ' UNION ALL SELECT ?').replaceAll(CASES, '$1'),
    );
  }

  logQueryError(): void {}
  logQuerySlow(): void {}
  logSchemaBuild(): void {}
  logMigration(): void {}
  log(): void {}
}

/** Cases are checked one after the other. */
const CASES = /( WHEN \? THEN (?:(?! WHEN | END).)*)( WHEN \? THEN (?:(?! WHEN | END).)*)+/g;
