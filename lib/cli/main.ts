#!/usr/bin/env node
import 'reflect-metadata';
import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { HELP, Interrupted, runCommand } from './command.js';
import { UsageError } from './usage.error.js';

/** Where nobody watches, a line of progress at most this often, in milliseconds. */
const QUIET_PROGRESS = 10_000;

let interrupted = false;
process.once('SIGINT', () => (interrupted = true));

let lastProgress = Date.now();
let hasProgress = false;

function progress(line: string): void {
  if (process.stderr.isTTY) {
    process.stderr.write(`\r${line}\u001B[K`);
    hasProgress = true;
  } else if (Date.now() - lastProgress >= QUIET_PROGRESS) {
    lastProgress = Date.now();
    process.stderr.write(`${line}\n`);
  }
}

function endProgress(): void {
  if (hasProgress) process.stderr.write('\r\u001B[K');
  hasProgress = false;
}

function out(line: string): void {
  endProgress();
  process.stdout.write(`${line}\n`);
}

function exitCodeOf(error: unknown): number {
  endProgress();
  if (error instanceof Interrupted) return 130;
  const text = error instanceof Error ? error.message.replace(/^\[visit\] /, '') || error.name : String(error);
  process.stderr.write(`nest-visit: ${text}\n`);
  if (!(error instanceof UsageError)) return 1;
  process.stderr.write(`\n${HELP.split('\n').slice(2, 5).join('\n')}\n  nest-visit --help\n`);
  return 2;
}

// Seen from dist/<format>/cli, wherever the link to this file lies.
const { version } = createRequire(realpathSync(process.argv[1]!))('../../../package.json') as { version: string };

runCommand(process.argv.slice(2), { out, progress }, version, () => interrupted).then(
  () => undefined,
  (error: unknown) => {
    process.exitCode = exitCodeOf(error);
  },
);
