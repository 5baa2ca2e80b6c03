#!/usr/bin/env node
import 'reflect-metadata';
import { run } from './run.js';

void run(process.argv.slice(2)).then((code) =>
  // A store may have a client that somebody else has opened, and nobody closes. What was written comes first.
  process.stderr.write('', () => process.stdout.write('', () => process.exit(code))),
);
