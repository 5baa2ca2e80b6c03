#!/usr/bin/env node
import 'reflect-metadata';
import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { debuglog } from 'node:util';
import { Interrupted, runCommand } from './command.js';
import { lineOf } from './error-line.js';
import { UsageError } from './usage.error.js';

/** Where nobody watches, a line of progress at most this often, in milliseconds. */
const RARELY = 10_000;

const debug = debuglog('nest-visit');
let interrupted = false;
// Once: who presses Ctrl-C again means it.
process.once('SIGINT', () => (interrupted = true));

let progressAt = Date.now();
let isProgressShown = false;

function progress(line: string): void {
  if (process.stderr.isTTY) {
    process.stderr.write(`\r${line}\u001B[K`);
    isProgressShown = true;
  } else if (Date.now() - progressAt >= RARELY) {
    progressAt = Date.now();
    process.stderr.write(`${line}\n`);
  }
}

function out(line: string): void {
  endProgress();
  process.stdout.write(`${line}\n`);
}

function endProgress(): void {
  if (isProgressShown) process.stderr.write('\r\u001B[K');
  isProgressShown = false;
}

/** Seen from dist/<format>/cli, wherever the link lies by which this file was called. */
function version(): string {
  const { version: own } = createRequire(realpathSync(process.argv[1]!))('../../../package.json') as { version: string };
  return own;
}

function report(error: unknown): number {
  endProgress();
  debug('%O', error);
  process.stderr.write(`nest-visit: ${lineOf(error)}\n`);
  if (error instanceof UsageError) process.stderr.write(`Try: nest-visit ${error.command ? `${error.command} ` : ''}--help\n`);
  return error instanceof Interrupted ? 130 : error instanceof UsageError ? 2 : 1;
}

runCommand(process.argv.slice(2), { terminal: { out, progress }, version, isInterrupted: () => interrupted }).catch((error: unknown) => {
  process.exitCode = report(error);
});
