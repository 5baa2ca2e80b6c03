import { MAX_ROWS } from '../options/max-rows.js';
import type { CommandName } from './arguments.js';
import { BATCH_SIZE, KEEP_DAYS, LIST_LIMIT } from './defaults.js';

const STORE = `  --data-source <file>   a file whose default export is a DataSource of typeorm, or its options, or a store of visits, or a promise
                         of one of them, or a function that gives one. TypeScript where Node loads it: from 22.18 on, or with
                         NODE_OPTIONS="--import tsx"
  --store <file>         another name of the same, for visits that are not kept by typeorm`;

const JSON_OPTION = '  --json                 print JSON, in one line';
const QUIET = '  --quiet                print nothing but errors';
const DRY_RUN = '  --dry-run              only count';
const IN_BATCHES = `  --batch-size <rows>    rows that one statement changes, at most ${MAX_ROWS} (${BATCH_SIZE})
${DRY_RUN}
${JSON_OPTION}
${QUIET}`;
const KEEP = `  --keep-days <days>     visits stay this long after they expired or ended (${KEEP_DAYS})`;

const EXIT_CODES = `Exit codes:
  0    done
  1    the database failed, something unexpected, or the doctor has found something wrong
  2    wrong usage
  130  interrupted by Ctrl-C, after the batch that was under way; what is done stays done

Tables are never created or changed. With NODE_DEBUG=nest-visit, errors show where they come from.`;

export const GENERAL_HELP = `nest-visit: looks after visits, for cron or by hand

Usage:
  nest-visit expunge --data-source <file> [options]      deletes visits that expired or ended long ago
  nest-visit wipe --data-source <file> [options]         empties the session data of visits that have expired
  nest-visit list --user <id> --data-source <file>       lists the live visits of a user
  nest-visit end <id>... --data-source <file>            ends visits: by their ids, of a user (--user), or all (--all)
  nest-visit stats --data-source <file>                  counts visits
  nest-visit move --from <file> --to <file> [options]    moves live visits to another store, while the application runs
  nest-visit doctor [--options <file>] [--url <address>] looks whether all is well: options, tables, clock, cookie
  nest-visit <command> --help                            what a command takes, with examples
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
    'Empties the session data of visits that have expired, and keeps their rows.',
    `${STORE}\n${IN_BATCHES}`,
    '  */5 * * * *  cd /srv/app && npx nest-visit wipe --quiet --data-source ./dist/data-source.js',
  ),

  list: page(
    'list --user <id> --data-source <file> [options]',
    'Lists the live visits of a user, the most recently used first. Neither keys nor session data are shown.',
    `${STORE}
  --user <id>            the user id, as the application signs in with it
  --limit <visits>       so many at most (${LIST_LIMIT})
${JSON_OPTION}`,
    `  npx nest-visit list --user 42 --data-source ./dist/data-source.js
  npx nest-visit list --user 42 --json --store ./dist/redis-store.js | jq '.visits[].id'`,
  ),

  end: page(
    'end <id>... | --user <id> | --all --data-source <file> [options]',
    `Ends visits, as \`visits.end()\` does: their keys never work again, and their session data is wiped. Sockets and event streams of a
running application end with the next look at their visits (option streams.interval). Its plugins hear of nothing: they live in the
application.`,
    `${STORE}
  --user <id>            all visits of this user
  --all                  all visits there are
  --reason <word>        a short word for the record, at most 32 characters (revoked)
${DRY_RUN}
${JSON_OPTION}
${QUIET}`,
    `  npx nest-visit end 0123456789abcdef0123456789abcdef --data-source ./dist/data-source.js
  npx nest-visit end --user 42 --reason stolen --data-source ./dist/data-source.js
  npx nest-visit end --all --reason leak --store ./dist/redis-store.js`,
  ),

  stats: page(
    'stats --data-source <file> [options]',
    'Counts visits: live ones page by page, which takes a while where there are many, and those that wait for ' +
      'clean-up.',
    `${STORE}\n${KEEP}\n${JSON_OPTION}`,
    `  npx nest-visit stats --data-source ./dist/data-source.js
  npx nest-visit stats --json --store ./dist/redis-store.js`,
  ),

  move: page(
    'move --from <file> --to <file> [options]',
    `Moves visits that are neither ended nor expired to another store. The application goes on meanwhile, if all its processes use both
stores by a MovingVisitStore. Can be interrupted, and run again. A visit that the new store does not take is passed over, and named at
the end; then the exit code is 1. The new store must be shared or durable.`,
    `  --from <file>          a file whose default export is a store of visits, or a data source as for the other commands
  --to <file>            the same, for where they are to be
${IN_BATCHES}`,
    '  npx nest-visit move --from ./dist/old-store.js --to ./dist/new-store.js',
  ),

  doctor: page(
    'doctor [--options <file>] [--data-source <file>] [--url <address>] [options]',
    `Looks whether all is well, and changes nothing: the options; whether the store can be used, with its tables, migrations, indexes and
the settings of its server; how far the clocks are apart; and the cookie that a running application really sends, past all proxies.
Says "failed" of what is wrong, and "warning" of what may be; the exit code is 1 if something has failed.`,
    `  --options <file>       a file whose default export are the options of VisitModule, or a function that gives them
${STORE}
  --url <address>        a page of the running application where a visit begins; it is asked for twice, without cookies
${JSON_OPTION}`,
    `  NODE_ENV=production npx nest-visit doctor --options ./dist/visit.options.js
  npx nest-visit doctor --data-source ./dist/data-source.js --url https://www.example.org/sign-in`,
  ),
};
