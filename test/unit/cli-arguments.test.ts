import { expect, test } from 'vitest';
import { readArguments } from '../../lib/cli/arguments.js';
import { UsageError } from '../../lib/cli/usage.error.js';

const manner = { json: false, quiet: false };
const common = { batchSize: 250, dryRun: false, ...manner };
const ID = '0123456789abcdef'.repeat(2);
const COMMANDS = 'expunge, wipe, list, end, stats, move';

test.each([
  [['--version'], { is: 'version' }],
  [['expunge', '-v'], { is: 'version' }],
  [['-h'], { is: 'help', command: undefined }],
  [['move', '--help', '--dry-run'], { is: 'help', command: 'move' }],
  [['expunge', '--data-source', 'x.js'], { is: 'expunge', source: 'x.js', keepDays: 7, ...common }],
  [
    ['--keep-days', '1.5', '--data-source=-x.js', 'expunge', '--batch-size', '500', '--json'],
    { is: 'expunge', source: '-x.js', keepDays: 1.5, ...common, batchSize: 500, json: true },
  ],
  [
    ['wipe', '--data-source', 'x.js', '--dry-run', '--quiet'],
    { is: 'wipe', source: 'x.js', ...common, dryRun: true, quiet: true },
  ],
  [['move', '--from', 'a.js', '--to', 'b.js'], { is: 'move', from: 'a.js', to: 'b.js', ...common }],
  [['list', '--user', '42', '--store', 'x.js'], { is: 'list', source: 'x.js', userId: '42', limit: 100, ...manner }],
  [
    ['end', ID, '--data-source', 'x.js', ID],
    { is: 'end', source: 'x.js', victims: { are: 'ids', ids: [ID] }, reason: 'revoked', dryRun: false, ...manner },
  ],
  [
    ['end', '--user=-5', '--store', 'x.js', '--reason', 'stolen', '--dry-run'],
    { is: 'end', source: 'x.js', victims: { are: 'user', userId: '-5' }, reason: 'stolen', dryRun: true, ...manner },
  ],
  [
    ['end', '--all', '--store', 'x.js', '--quiet'],
    { is: 'end', source: 'x.js', victims: { are: 'all' }, reason: 'revoked', dryRun: false, json: false, quiet: true },
  ],
  [['stats', '--store', 'x.js', '--json'], { is: 'stats', source: 'x.js', keepDays: 7, json: true, quiet: false }],
  [['doctor', '--options', 'o.js'], { is: 'doctor', options: 'o.js', ...manner }],
  [
    ['doctor', '--store', 'x.js', '--url', 'https://example.org/'],
    { is: 'doctor', source: 'x.js', url: new URL('https://example.org/'), ...manner },
  ],
])('R63: %j', (args, wish) => {
  expect(readArguments(args)).toEqual(wish);
});

const NOBODY = 'specify which visits to end: their ids, --user <id> or --all';

test.each<[string[], string | RegExp, string | undefined]>([
  [[], `no command given: use ${COMMANDS} or doctor`, undefined],
  [['purge'], `there is no command "purge", only ${COMMANDS} and doctor`, undefined],
  [['constructor'], `there is no command "constructor", only ${COMMANDS} and doctor`, undefined],
  [['expunge', 'wipe'], 'only one command can be given, got expunge wipe', undefined],
  [['expunge', '--cleanup'], 'there is no option --cleanup', undefined],
  [['expunge', '--toString'], 'there is no option --toString', undefined],
  [['expunge', '-x'], 'there is no option -x', undefined],
  [['expunge'], '--data-source is required, such as --data-source ./dist/data-source.js', 'expunge'],
  [['expunge', '--data-source'], '--data-source needs a value', undefined],
  [['expunge', '--data-source='], '--data-source needs a value', undefined],
  [['move', '--from', '--to', 'x'], '--from needs a value', undefined],
  [['expunge', '--json=yes'], '--json takes no value, got "yes"', undefined],
  [['wipe', '--data-source', 'x', '--keep-days', '7'], 'wipe takes no --keep-days because it keeps the rows', 'wipe'],
  [['wipe', '--from', 'x'], 'wipe takes no --from', 'wipe'],
  [['move', '--data-source', 'x'], 'move takes no --data-source', 'move'],
  [['move', '--to', 'x'], '--from is required, such as --from ./dist/from-store.js', 'move'],
  [
    ['wipe', '--data-source', 'x', '--store', 'y'],
    '--data-source and --store are the same option: use only one of them',
    'wipe',
  ],
  [['list', '--store', 'x'], '--user is required, such as --user 42', 'list'],
  [
    ['list', '--store', 'x', '--user', 'a'.repeat(256)],
    /^--user: a user id must be text of 1 to 255 characters .*, got 256/,
    'list',
  ],
  [
    ['list', '--store', 'x', '--user', 'a', '--limit', '0'],
    '--limit must be a whole number of visits, 1 or more, got "0"',
    'list',
  ],
  [['end', '--store', 'x'], NOBODY, 'end'],
  [['end', '--store', 'x', '--all', '--user', '5'], NOBODY, 'end'],
  [['end', '--store', 'x', '--all', ID], NOBODY, 'end'],
  // A key that somebody has pasted is not repeated.
  [
    ['end', '--store', 'x', ID, `${ID}.secret`],
    /^id number 2 is invalid: the id of a visit consists of 32 hexadecimal digits/,
    'end',
  ],
  [
    ['end', '--store', 'x', '--all', '--reason', 'a'.repeat(33)],
    /^--reason: the reason .* must be 1 to 32 characters .*, got 33 characters/,
    'end',
  ],
  [['doctor'], /^specify what to check: one or more of --options, /, 'doctor'],
  [['doctor', '--url', 'ftp://example.org'], '--url must be a URL such as https://www.example.org/sign-in', 'doctor'],
  [['doctor', '--url', 'example.org'], '--url must be a URL such as https://www.example.org/sign-in', 'doctor'],
  [
    ['expunge', '--data-source', 'x', '--keep-days', 'many'],
    '--keep-days must be a number of days from 0 to 36500, got "many"',
    'expunge',
  ],
  [
    ['expunge', '--data-source', 'x', '--keep-days', '36501'],
    '--keep-days must be a number of days from 0 to 36500, got "36501"',
    'expunge',
  ],
  ...['0', '501', '1.5', '1e2'].map((size): [string[], string, string] => [
    ['expunge', '--data-source', 'x', '--batch-size', size],
    `--batch-size must be a whole number of rows from 1 to 500, got "${size}"`,
    'expunge',
  ]),
])('R63: %j is rejected with the usage', (args, message, command) => {
  let error: unknown;
  try {
    readArguments(args);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(UsageError);
  expect(error).toMatchObject({
    message: typeof message === 'string' ? message : (expect.stringMatching(message) as string),
    command,
  });
  expect((error as Error).message).not.toContain('secret');
});
