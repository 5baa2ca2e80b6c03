#!/usr/bin/env node
import 'reflect-metadata';
import { run } from './run.js';

void run(process.argv.slice(2)).then((code) =>
  // A store may have a client that other code has opened and does not close. Wait until the output has been written.
  process.stderr.write('', () => process.stdout.write('', () => process.exit(code))),
);
