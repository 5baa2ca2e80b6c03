import type { Manner } from './arguments.js';

/** The output of a command. */
export interface Terminal {
  out(line: string): void;
  /** Writes a progress line, which the next one replaces on a terminal. */
  progress(line: string): void;
  /** Writes an error. */
  error(line: string): void;
}

/** The user has interrupted the command; completed batches are not undone. */
export class Interrupted extends Error {}

/** Reports the progress and the result of a command, in the requested format. */
export class Report {
  constructor(
    readonly terminal: Terminal,
    private readonly manner: Manner,
    /** Asked after each batch. */
    private readonly isInterrupted: () => boolean,
  ) {}

  /** Called after each batch. @throws Interrupted */
  progress(text: string, left = 'the rest is still there'): void {
    if (!this.manner.quiet) this.terminal.progress(`${text} so far`);
    if (this.isInterrupted()) throw new Interrupted(`interrupted: ${text}, ${left}`);
  }

  /** Reports the result: text for people, an object for programs. */
  result(text: string, forPrograms: object): void {
    if (!this.manner.quiet) this.terminal.out(this.manner.json ? JSON.stringify(forPrograms) : text);
  }
}

/** A number with what it counts. */
export function many(count: number, what: 'visit' | 'identity'): string {
  return `${count} ${count === 1 ? what : what === 'visit' ? 'visits' : 'identities'}`;
}

/** Text from other sources, without control characters. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

/** Formats rows as a table. The first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
