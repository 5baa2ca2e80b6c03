import { expect, test } from 'vitest';
import { readArguments } from '../../lib/cli/arguments.js';
import { UsageError } from '../../lib/cli/usage.error.js';

const common = { batchSize: 250, dryRun: false, json: false, quiet: false };

test.each([
  [['--version'], { is: 'version' }],
  [['expunge', '-v'], { is: 'version' }],
  [['-h'], { is: 'help', command: undefined }],
  [['migrate', '--help', '--dry-run'], { is: 'help', command: 'migrate' }],
  [['expunge', '--data-source', 'x.js'], { is: 'expunge', source: 'x.js', keepDays: 7, ...common }],
  [
    ['--keep-days', '1.5', '--data-source=-x.js', 'expunge', '--batch-size', '500', '--json'],
    { is: 'expunge', source: '-x.js', keepDays: 1.5, ...common, batchSize: 500, json: true },
  ],
  [['wipe', '--data-source', 'x.js', '--dry-run', '--quiet'], { is: 'wipe', source: 'x.js', ...common, dryRun: true, quiet: true }],
  [['migrate', '--from', 'a.js', '--to', 'b.js'], { is: 'migrate', from: 'a.js', to: 'b.js', ...common }],
])('R63: %j', (args, wish) => {
  expect(readArguments(args)).toEqual(wish);
});

test.each([
  [[], 'say what to do: expunge, wipe or migrate', undefined],
  [['purge'], 'there is no command "purge", only expunge, wipe and migrate', undefined],
  [['constructor'], 'there is no command "constructor", only expunge, wipe and migrate', undefined],
  [['expunge', 'wipe'], 'one command at a time, got expunge wipe', undefined],
  [['expunge', '--cleanup'], 'there is no option --cleanup', undefined],
  [['expunge', '--toString'], 'there is no option --toString', undefined],
  [['expunge', '-x'], 'there is no option -x', undefined],
  [['expunge'], '--data-source is needed, such as --data-source ./dist/data-source.js', 'expunge'],
  [['expunge', '--data-source'], '--data-source needs a value', undefined],
  [['expunge', '--data-source='], '--data-source needs a value', undefined],
  [['migrate', '--from', '--to', 'x'], '--from needs a value', undefined],
  [['expunge', '--json=yes'], '--json takes no value, got "yes"', undefined],
  [['wipe', '--data-source', 'x', '--keep-days', '7'], 'wipe takes no --keep-days: it keeps the rows', 'wipe'],
  [['wipe', '--from', 'x'], 'wipe takes no --from', 'wipe'],
  [['migrate', '--data-source', 'x'], 'migrate takes no --data-source', 'migrate'],
  [['migrate', '--to', 'x'], '--from is needed, such as --from ./dist/from-store.js', 'migrate'],
  [['expunge', '--data-source', 'x', '--keep-days', 'many'], '--keep-days must be a number of days, got "many"', 'expunge'],
  ...['0', '501', '1.5', '1e2'].map((size): [string[], string, string] => [
    ['expunge', '--data-source', 'x', '--batch-size', size],
    `--batch-size must be a whole number of rows from 1 to 500, got "${size}"`,
    'expunge',
  ]),
])('R63: %j is wrong usage', (args, message, command) => {
  let error: unknown;
  try {
    readArguments(args);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(UsageError);
  expect(error).toMatchObject({ message, command });
});
