import { MAX_ROWS } from '../store/table-visit.store.js';
import { BATCH_SIZE, KEEP_DAYS } from './defaults.js';

const OPTIONS = `  --data-source <file>   a file that exports a DataSource of typeorm, or its options, or a promise of one of them: by default,
                         or under any name. A function that gives one of them is called if it is the default export.
                         TypeScript where Node loads it: from 22.18 on, or with NODE_OPTIONS="--import tsx"`;

const MORE_OPTIONS = `  --batch-size <rows>    rows that one statement changes, at most ${MAX_ROWS} (${BATCH_SIZE})
  --dry-run              only count
  --json                 print the counts as JSON
  --quiet                print nothing but errors`;

const EXIT_CODES = `Exit codes:
  0    done
  1    the database failed, or something unexpected
  2    wrong usage
  130  interrupted by Ctrl-C, after the batch that was under way; what is done stays done

Tables are never created or changed. With NODE_DEBUG=nest-visit, errors show where they come from.`;

const STORE = 'a file that exports a store of visits, or a data source as for the other commands';

export const GENERAL_HELP = `nest-visit: cleans up visits, for cron or by hand, and moves them to another store

Usage:
  nest-visit expunge --data-source <file> [options]   deletes visits that expired or ended long ago
  nest-visit wipe --data-source <file> [options]      empties the session data of visits that have expired
  nest-visit migrate --from <file> --to <file> [options]   moves live visits to another store, while the application runs
  nest-visit <command> --help                         what a command takes
  nest-visit --version

${EXIT_CODES}`;

export const HELP_OF = {
  expunge: `nest-visit expunge --data-source <file> [options]

Deletes visits that expired or ended long ago, with their identities.

Options:
${OPTIONS}
  --keep-days <days>     visits stay this long after they expired or ended (${KEEP_DAYS})
${MORE_OPTIONS}

${EXIT_CODES}

Example, each night at 3:
  0 3 * * *    cd /srv/app && npx nest-visit expunge --data-source ./dist/data-source.js`,

  wipe: `nest-visit wipe --data-source <file> [options]

Empties the session data of visits that have expired, and keeps their rows.

Options:
${OPTIONS}
${MORE_OPTIONS}

${EXIT_CODES}

Example, every five minutes:
  */5 * * * *  cd /srv/app && npx nest-visit wipe --quiet --data-source ./dist/data-source.js`,

  migrate: `nest-visit migrate --from <file> --to <file> [options]

Moves visits that are neither ended nor expired to another store. The application goes on meanwhile, if all its processes use both
stores by a MovingVisitStore. Can be interrupted, and run again. A visit that the new store does not take is passed over, and named at
the end; then the exit code is 1. The new store must be shared or durable.

Options:
  --from <file>          ${STORE}
  --to <file>            the same, for where they are to be
${MORE_OPTIONS}

${EXIT_CODES}

Example:
  npx nest-visit migrate --from ./dist/old-store.js --to ./dist/new-store.js`,
} as const;
