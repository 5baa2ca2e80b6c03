import type { Manner } from './arguments.js';

/** Where a command writes. */
export interface Terminal {
  out(line: string): void;
  /** Progress; replaced by the next one where that is possible. */
  progress(line: string): void;
  /** What is not as it should be. */
  error(line: string): void;
}

/** The user has asked to stop; batches that are done stay done. */
export class Interrupted extends Error {}

/** What a command says of its work, in the manner that it was asked for. */
export class Report {
  constructor(
    readonly terminal: Terminal,
    private readonly manner: Manner,
    /** Asked after each batch. */
    private readonly isInterrupted: () => boolean,
  ) {}

  /** After each batch. @throws Interrupted */
  progress(text: string, left = 'the rest is still there'): void {
    if (!this.manner.quiet) this.terminal.progress(`${text} so far`);
    if (this.isInterrupted()) throw new Interrupted(`interrupted: ${text}, ${left}`);
  }

  /** The result: text for people, the other for programs. */
  result(text: string, forPrograms: object): void {
    if (!this.manner.quiet) this.terminal.out(this.manner.json ? JSON.stringify(forPrograms) : text);
  }
}

/** A number with what it counts. */
export function many(count: number, what: 'visit' | 'identity'): string {
  return `${count} ${count === 1 ? what : what === 'visit' ? 'visits' : 'identities'}`;
}

/** Text that others have written, without what a terminal would obey. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

/** Rows one under the other. The first one is the head. */
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
