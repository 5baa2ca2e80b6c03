import { parseArgs } from 'node:util';
import { ExpungeService } from '../expunge/expunge.service.js';
import { optionTable } from '../options/option-table.js';
import { parseDuration } from '../options/duration.js';
import { openTypeOrmVisitStore } from '../store/typeorm/open-typeorm-visit-store.js';
import { readDataSource } from './data-source.file.js';
import { UsageError } from './usage.error.js';

const KEEP_DAYS = optionTable.expunge.keepDays.default() as number;
const BATCH_SIZE = optionTable.expunge.batchSize.default() as number;

export const HELP = `nest-visit: cleans up visits, for cron or by hand

Usage:
  nest-visit expunge --data-source <file> [options]   deletes visits that expired or ended long ago
  nest-visit wipe --data-source <file> [options]      empties the session data of visits that have expired

Options:
  --data-source <file>   a JavaScript file that exports a DataSource of typeorm or its options, such as ./dist/data-source.js
  --keep-days <days>     expunge: visits stay this long after they expired or ended (${KEEP_DAYS})
  --batch-size <rows>    rows that one statement changes (${BATCH_SIZE})
  --dry-run              only count
  --json                 print the counts as JSON
  --quiet                print nothing but errors
  --help, --version

Exit codes: 0 done, 1 the database failed, 2 wrong usage, 130 interrupted (what is done stays done)

Example, each night at 3:
  0 3 * * *  cd /srv/app && npx nest-visit expunge --keep-days 7 --data-source ./dist/data-source.js`;

export interface Console {
  out(line: string): void;
  /** Progress; replaced by the next one where that is possible. */
  progress(line: string): void;
}

/**
 * Runs one command.
 *
 * @throws UsageError for wrong arguments; what the store throws
 */
export async function runCommand(args: readonly string[], console: Console, version: string, isInterrupted: () => boolean): Promise<void> {
  const { values, command } = parse(args);
  if (values.help) return console.out(HELP);
  if (values.version) return console.out(version);
  if (command !== 'expunge' && command !== 'wipe') {
    throw new UsageError(
      command === undefined ? 'say what to do: expunge or wipe' : `there is no command "${command}", only expunge and wipe`,
    );
  }
  if (values['data-source'] === undefined) throw new UsageError('--data-source is needed, such as --data-source ./dist/data-source.js');
  const keepDays = number('--keep-days', values['keep-days'] ?? String(KEEP_DAYS), /^\d+(\.\d+)?$/);
  const batchSize = number('--batch-size', values['batch-size'] ?? String(BATCH_SIZE), /^[1-9]\d*$/);
  const source = await readDataSource(values['data-source']);
  const isOpen = 'isInitialized' in source && source.isInitialized;
  if ('initialize' in source && !isOpen) await source.initialize();
  const store = await openTypeOrmVisitStore(source);
  try {
    await store.check();
    const options = { expunge: { schedule: false as const, keepDays, batchSize }, touch: touchDefaults(), clock: Date };
    const service = new ExpungeService(options, store, { onExpunge: async () => {} });
    const interrupt = (): void => {
      if (isInterrupted()) throw new Interrupted();
    };
    const dryRun = values['dry-run'] ?? false;
    const say = (text: string, counts: object): void => {
      if (!values.quiet) console.out(values.json ? JSON.stringify(counts) : text);
    };
    if (command === 'expunge') {
      const counts = await service.run({
        dryRun,
        onProgress: (soFar) => {
          if (!values.quiet) console.progress(`expunged ${soFar.visits} visits so far`);
          interrupt();
        },
      });
      say(`${dryRun ? 'would expunge' : 'expunged'} ${counts.visits} visits and ${counts.identities} identities`, counts);
    } else {
      const visits = await service.wipeExpired({
        dryRun,
        onProgress: (soFar) => {
          if (!values.quiet) console.progress(`wiped ${soFar} visits so far`);
          interrupt();
        },
      });
      say(`${dryRun ? 'would wipe' : 'wiped'} the session data of ${visits} visits`, { visits });
    }
  } finally {
    await store.close();
    if ('destroy' in source && !isOpen && source.isInitialized) await source.destroy();
  }
}

/** The user has asked to stop; batches that are done stay done. */
export class Interrupted extends Error {}

function parse(args: readonly string[]) {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        'data-source': { type: 'string' },
        'keep-days': { type: 'string' },
        'batch-size': { type: 'string' },
        'dry-run': { type: 'boolean' },
        json: { type: 'boolean' },
        quiet: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
      },
    });
    if (positionals.length > 1) throw new UsageError(`one command at a time, got ${positionals.join(' ')}`);
    return { values, command: positionals[0] };
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError((error as Error).message);
  }
}

function number(name: string, text: string, pattern: RegExp): number {
  if (!pattern.test(text)) throw new UsageError(`${name} must be a number, got "${text}"`);
  return Number(text);
}

function touchDefaults(): { interval: number; resolution: number } {
  const of = (value: unknown): number => parseDuration(value)!;
  return { interval: of(optionTable.touch.interval.default()), resolution: of(optionTable.touch.resolution.default()) };
}
