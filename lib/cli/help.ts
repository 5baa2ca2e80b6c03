import { MAX_ROWS } from '../options/max-rows.js';
import type { CommandName } from './arguments.js';
import { BATCH_SIZE, KEEP_DAYS, LIST_LIMIT } from './defaults.js';

const STORE = `  --data-source <file>   a file whose default export is a DataSource of typeorm, its options, a visit store,
                         a promise of one of these, or a function that returns one. For a file in TypeScript:
                         Node 22.18 or later, or NODE_OPTIONS="--import tsx"
  --store <file>         the same option under another name, for visits that are not stored with typeorm`;

const JSON_OPTION = '  --json                 print the result as one line of JSON';
const QUIET = '  --quiet                print only errors';
const DRY_RUN = '  --dry-run              only count visits';
const IN_BATCHES = `  --batch-size <rows>    rows that one statement changes; at most ${MAX_ROWS}, by default ${BATCH_SIZE}
${DRY_RUN}
${JSON_OPTION}
${QUIET}`;
const KEEP = `  --keep-days <days>     how long visits are kept after they expired or ended; by default ${KEEP_DAYS}`;

const EXIT_CODES = `Exit codes:
  0    success
  1    the database or the command failed, or the doctor found an error
  2    invalid arguments
  130  interrupted with Ctrl-C, after the current batch; completed batches are not undone

Tables are never created or changed. Set NODE_DEBUG=nest-visit to see the stack traces of errors.`;

export const GENERAL_HELP = `nest-visit: manages visits, from a shell or from cron

Usage:
  nest-visit expunge --data-source <file> [options]      deletes visits that expired or ended long ago
  nest-visit wipe --data-source <file> [options]         deletes the session data of expired visits
  nest-visit list --user <id> --data-source <file>       lists the live visits of a user
  nest-visit end <id>... --data-source <file>            ends visits: some ids, those of a user (--user), or all (--all)
  nest-visit stats --data-source <file>                  counts visits
  nest-visit move --from <file> --to <file> [options]    moves live visits to another store, while the application runs
  nest-visit doctor [--options <file>] [--url <address>] checks the options, tables, clock and cookie
  nest-visit <command> --help                            the options of a command, with examples
  nest-visit --version

${EXIT_CODES}`;

function page(usage: string, what: string, options: string, examples: string): string {
  const [title, more] = examples.includes('\n') ? ['Examples', examples] : ['Example', examples];
  return `nest-visit ${usage}\n\n${what}\n\nOptions:\n${options}\n\n${EXIT_CODES}\n\n${title}:\n${more}`;
}

export const HELP_OF: Readonly<Record<CommandName, string>> = {
  expunge: page(
    'expunge --data-source <file> [options]',
    'Deletes visits that expired or ended long ago, with their identities.',
    `${STORE}\n${KEEP}\n${IN_BATCHES}`,
    `  npx nest-visit expunge --dry-run --data-source ./dist/data-source.js
  0 3 * * *    cd /srv/app && npx nest-visit expunge --data-source ./dist/data-source.js`,
  ),

  wipe: page(
    'wipe --data-source <file> [options]',
    'Deletes the session data of expired visits, and keeps their rows.',
    `${STORE}\n${IN_BATCHES}`,
    '  */5 * * * *  cd /srv/app && npx nest-visit wipe --quiet --data-source ./dist/data-source.js',
  ),

  list: page(
    'list --user <id> --data-source <file> [options]',
    'Lists the live visits of a user, the most recently used first. It shows neither keys nor session data.',
    `${STORE}
  --user <id>            the user id that the application passes to login()
  --limit <visits>       the maximum number of visits to list; by default ${LIST_LIMIT}
${JSON_OPTION}`,
    `  npx nest-visit list --user 42 --data-source ./dist/data-source.js
  npx nest-visit list --user 42 --json --store ./dist/redis-store.js | jq '.visits[].id'`,
  ),

  end: page(
    'end <id>... | --user <id> | --all --data-source <file> [options]',
    `Ends visits, as \`visits.end()\` does: their keys never work again, and their session data is deleted. A running
application closes their sockets and event streams within the option streams.interval. Plugins are not called, because
they are part of the application.`,
    `${STORE}
  --user <id>            all visits of this user
  --all                  all visits of the store
  --reason <word>        the reason to record, at most 32 characters; by default revoked
${DRY_RUN}
${JSON_OPTION}
${QUIET}`,
    `  npx nest-visit end 0123456789abcdef0123456789abcdef --data-source ./dist/data-source.js
  npx nest-visit end --user 42 --reason stolen --data-source ./dist/data-source.js
  npx nest-visit end --all --reason leak --store ./dist/redis-store.js`,
  ),

  stats: page(
    'stats --data-source <file> [options]',
    'Counts the live visits and those that are due for clean-up. It reads live visits page by page, so it takes a ' +
      'while if there are many.',
    `${STORE}\n${KEEP}\n${JSON_OPTION}`,
    `  npx nest-visit stats --data-source ./dist/data-source.js
  npx nest-visit stats --json --store ./dist/redis-store.js`,
  ),

  move: page(
    'move --from <file> --to <file> [options]',
    `Moves live visits to another store. The application can keep running if all its processes use both stores through a
MovingVisitStore. You can interrupt the command and run it again. If the new store refuses a visit, the command skips
it, prints its id at the end, and exits with 1. The new store must be shared or durable.`,
    `  --from <file>          a file whose default export is a visit store, or a data source as for the other commands
  --to <file>            the same, for the new store
${IN_BATCHES}`,
    '  npx nest-visit move --from ./dist/old-store.js --to ./dist/new-store.js',
  ),

  doctor: page(
    'doctor [--options <file>] [--data-source <file>] [--url <address>] [options]',
    `Checks the options; the store with its tables, migrations, indexes and server settings; the difference between the
clocks; and the cookie that a running application sends, as it arrives through all proxies. It changes nothing. It
reports an error as "failed" and a possible problem as "warning"; the exit code is 1 if a check has failed.`,
    `  --options <file>       a file whose default export is the options of VisitModule, or a function that returns them
${STORE}
  --url <address>        a page of the running application that starts a visit; it is requested twice, without cookies
${JSON_OPTION}`,
    `  NODE_ENV=production npx nest-visit doctor --options ./dist/visit.options.js
  npx nest-visit doctor --data-source ./dist/data-source.js --url https://www.example.org/sign-in`,
  ),
};
