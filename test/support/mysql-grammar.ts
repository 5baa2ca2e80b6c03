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
 * The part of the packages that is used here: their own types are thousands of lines, which every check of types would
 * read.
 */
interface Packages {
  readonly MySQLLexer: new (input: object) => Recognizer;
  readonly MultiQueryMySQLParser: new (tokens: Tokens) => Recognizer & { query(): unknown };
  readonly CaseChangingStream: new (input: object, isUpper: boolean) => object;
  readonly CharStreams: { fromString(text: string): object };
  readonly CommonTokenStream: new (lexer: Recognizer) => Tokens;
}

let packages: Packages | undefined;

function load(): Packages {
  const grammar = 'antlr4ts-sql/dist/src/grammar-output/mysql';
  const of = (file: string): Packages => require(file) as Packages;
  // In this order: they import each other in circles.
  const { MySQLLexer } = of(`${grammar}/MySQLLexer.js`);
  const { MultiQueryMySQLParser } = of(`${grammar}/MultiQueryMySQLParser.js`);
  const { CaseChangingStream } = of('antlr4ts-sql/dist/src/models/CaseChangingStream.js');
  const { CharStreams, CommonTokenStream } = of('antlr4ts');
  return { MySQLLexer, MultiQueryMySQLParser, CaseChangingStream, CharStreams, CommonTokenStream };
}

/**
 * What the grammar of MySQL 8 has to say against a statement. It is of MySQL 8.0.21: words that were reserved since are
 * looked for by themselves. It takes no text in double quotes for the name of a charset, which MySQL does: to it, both
 * quotes are the same.
 */
export function complaintsOf(sql: string): string[] {
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
  parser.query();
  if (complaints.length === 0 && tokens.LA(1) !== END_OF_FILE) complaints.push(`it ends before ${tokens.LT(1).text}`);
  const reserved = RESERVED_SINCE.exec(sql.replaceAll(/`[^`]*`|'[^']*'|"[^"]*"/g, ''));
  if (reserved) complaints.push(`${reserved[0]} is a reserved word`);
  return complaints;
}

/** Reserved words that came after 8.0.21, up to 8.4. None of them stands in our statements outside of quotes. */
const RESERVED_SINCE = /\b(INTERSECT|MANUAL|PARALLEL|QUALIFY|TABLESAMPLE)\b/i;

/** Keeps what is sent, each text once: rows more or less of a list make no other one. */
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

/** One case after the other. */
const CASES = /( WHEN \? THEN (?:(?! WHEN | END).)*)( WHEN \? THEN (?:(?! WHEN | END).)*)+/g;
