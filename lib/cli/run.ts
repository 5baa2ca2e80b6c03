import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { debuglog } from 'node:util';
import { runCommand } from './command.js';
import { lineOf } from './error-line.js';
import { Interrupted, type Terminal } from './terminal.js';
import { UsageError } from './usage.error.js';

/** The interval between progress lines if the output is not a terminal, in milliseconds. */
const RARELY = 10_000;

const debug = debuglog('nest-visit');

/** The terminal of this process, or the files that it writes to. */
class Screen implements Terminal {
  private progressAt = Date.now();
  private isProgressShown = false;

  progress(line: string): void {
    if (process.stderr.isTTY) {
      process.stderr.write(`\r${line}\u001B[K`);
      this.isProgressShown = true;
    } else if (Date.now() - this.progressAt >= RARELY) {
      this.progressAt = Date.now();
      process.stderr.write(`${line}\n`);
    }
  }

  out(line: string): void {
    this.endProgress();
    process.stdout.write(`${line}\n`);
  }

  error(line: string): void {
    this.endProgress();
    process.stderr.write(`${line}\n`);
  }

  private endProgress(): void {
    if (this.isProgressShown) process.stderr.write('\r\u001B[K');
    this.isProgressShown = false;
  }
}

/** The version of the package, relative to dist/<format>/cli, wherever the link is that started the program. */
function version(): string {
  const { version: own } = createRequire(realpathSync(process.argv[1]!))('../../../package.json') as {
    version: string;
  };
  return own;
}

/** Runs one command of the terminal. Returns the exit code, and never rejects. */
export async function run(args: readonly string[]): Promise<number> {
  const screen = new Screen();
  let interrupted = false;
  // Only once: pressing Ctrl-C again ends the process immediately.
  const interrupt = (): void => void (interrupted = true);
  process.once('SIGINT', interrupt);
  try {
    return (await runCommand(args, { terminal: screen, version, isInterrupted: () => interrupted })) ? 0 : 1;
  } catch (error) {
    debug('%O', error);
    screen.error(`nest-visit: ${lineOf(error)}`);
    if (error instanceof UsageError) screen.error(`Try: nest-visit ${error.command ? `${error.command} ` : ''}--help`);
    return error instanceof Interrupted ? 130 : error instanceof UsageError ? 2 : 1;
  } finally {
    process.off('SIGINT', interrupt);
  }
}
