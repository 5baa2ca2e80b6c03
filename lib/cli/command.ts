import { parseArgs } from 'node:util';
import type { DataSource } from 'typeorm';
import { ExpungeService } from '../expunge/expunge.service.js';
import { openTypeOrmVisitStore } from '../store/typeorm/open-typeorm-visit-store.js';
import { MovingVisitStore } from '../store/moving/moving-visit.store.js';
import { TypeOrmVisitStore } from '../store/typeorm/typeorm-visit.store.js';
import type { VisitStore } from '../store/visit.store.js';
import { isStore, readSource, type Source } from './data-source.file.js';
import { lineOf } from './error-line.js';
import { BATCH_SIZE, KEEP_DAYS, TOUCH } from './defaults.js';
import { GENERAL_HELP, HELP_OF } from './help.js';
import { UsageError } from './usage.error.js';

/** Where a command writes. */
export interface Terminal {
  out(line: string): void;
  /** Progress; replaced by the next one where that is possible. */
  progress(line: string): void;
}

/** What a command is run with. */
export interface Surroundings {
  readonly terminal: Terminal;
  readonly version: () => string;
  /** Asked after each batch. */
  readonly isInterrupted: () => boolean;
}

/** The user has asked to stop; batches that are done stay done. */
export class Interrupted extends Error {}

/**
 * Runs one command.
 *
 * @throws UsageError for wrong arguments, Interrupted, and what the database throws
 */
export async function runCommand(args: readonly string[], { terminal, version, isInterrupted }: Surroundings): Promise<void> {
  const { values, command } = parse(args);
  if (values.version) return terminal.out(version());
  if (values.help) return terminal.out(command ? HELP_OF[command] : GENERAL_HELP);
  if (!command) throw new UsageError('say what to do: expunge, wipe or migrate');
  if (command === 'wipe' && values['keep-days'] !== undefined) throw new UsageError('wipe takes no --keep-days: it keeps the rows');
  for (const name of command === 'migrate' ? (['data-source', 'keep-days'] as const) : (['from', 'to'] as const)) {
    if (values[name] !== undefined) throw new UsageError(`${command} takes no --${name}`);
  }
  const keepDays = number('--keep-days', values['keep-days'], /^\d+(\.\d+)?$/, 'a number of days') ?? KEEP_DAYS;
  const batchSize = number('--batch-size', values['batch-size'], /^[1-9]\d*$/, 'a whole number of rows, 1 or more') ?? BATCH_SIZE;

  const dryRun = values['dry-run'] ?? false;
  const progress = (text: string): void => {
    if (!values.quiet) terminal.progress(`${text} so far`);
    if (isInterrupted()) throw new Interrupted(`interrupted: ${text}, the rest is still there`);
  };
  const report = (text: string, counts: object): void => {
    if (!values.quiet) terminal.out(values.json ? JSON.stringify(counts) : text);
  };
  if (command === 'migrate') {
    const files = { from: needed('from', values.from), to: needed('to', values.to) };
    const from = await openStore(await readSource(files.from));
    // A connection that stays open would keep the process from ending.
    const to = await readSource(files.to)
      .then(openStore)
      .catch(async (error: unknown) => {
        await from.close();
        throw error;
      });
    const store = new MovingVisitStore({ from, to });
    try {
      await store.check();
      const visits = dryRun
        ? await store.countLive()
        : await moveAll(store, batchSize, (count) => progress(`moved ${many(count, 'visit')}`));
      return report(`${dryRun ? 'would move' : 'moved'} ${many(visits, 'visit')}`, { visits });
    } finally {
      await store.close();
    }
  }

  const store = await openStore(await readSource(needed('data-source', values['data-source'])));
  try {
    await store.check();
    const options = { expunge: { schedule: false as const, keepDays, batchSize }, touch: TOUCH, clock: Date };
    const service = new ExpungeService(options, store, { emit: async () => {} });
    if (command === 'expunge') {
      const counts = await service.run({ dryRun, onProgress: ({ visits }) => progress(`expunged ${many(visits, 'visit')}`) });
      const { visits, identities } = counts;
      report(`${dryRun ? 'would expunge' : 'expunged'} ${many(visits, 'visit')} and ${many(identities, 'identity')}`, counts);
    } else {
      const wiped = (count: number): string => `${dryRun ? 'would wipe' : 'wiped'} the session data of ${many(count, 'visit')}`;
      const visits = await service.wipeExpired({ dryRun, onProgress: (soFar) => progress(wiped(soFar)) });
      report(wiped(visits), { visits });
    }
  } finally {
    await store.close();
  }
}

/** How many visits have moved. */
async function moveAll(store: MovingVisitStore, limit: number, onProgress: (soFar: number) => void): Promise<number> {
  let count = 0;
  for (let after: string | null = ''; after !== null;) {
    const { moved, next }: { moved: number; next: string | null } = await store.movePage({ after, limit });
    count += moved;
    after = next;
    onProgress(count);
  }
  return count;
}

function needed(name: string, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new UsageError(`--${name} is needed, such as --${name} ./dist/${name === 'data-source' ? name : `${name}-store`}.js`);
}

function parse(args: readonly string[]) {
  const { values, positionals } = split(args);
  if (positionals.length > 1) throw new UsageError(`one command at a time, got ${positionals.join(' ')}`);
  const [command] = positionals;
  if (command === undefined || isCommand(command)) return { values, command };
  throw new UsageError(`there is no command "${command}", only expunge, wipe and migrate`);
}

const isCommand = (text: string): text is keyof typeof HELP_OF => Object.hasOwn(HELP_OF, text);

function split(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        'data-source': { type: 'string' },
        from: { type: 'string' },
        to: { type: 'string' },
        'keep-days': { type: 'string' },
        'batch-size': { type: 'string' },
        'dry-run': { type: 'boolean' },
        json: { type: 'boolean' },
        quiet: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function number(name: string, text: string | undefined, pattern: RegExp, expected: string): number | undefined {
  if (text === undefined) return undefined;
  if (!pattern.test(text)) throw new UsageError(`${name} must be ${expected}, got "${text}"`);
  return Number(text);
}

/** A command that cleans up changes no tables, whatever the application does at its start, and prints counts, no SQL. */
const HARMLESS = { synchronize: false, dropSchema: false, migrationsRun: false, logging: [] };

/** A store that closes its data source, whoever opened that: when the command is done, so is the process. */
async function openStore(source: Source): Promise<VisitStore> {
  if (isStore(source)) return source;
  if (!('createQueryRunner' in source)) return openTypeOrmVisitStore({ ...source, ...HARMLESS });
  if (!source.isInitialized) await initialize(source.setOptions(HARMLESS));
  return new TypeOrmVisitStore(source, { owned: true });
}

async function initialize(source: DataSource): Promise<void> {
  try {
    await source.initialize();
  } catch (error) {
    throw new Error(`cannot open the data source: ${lineOf(error)}`, { cause: error });
  }
}

function many(count: number, what: 'visit' | 'identity'): string {
  return `${count} ${count === 1 ? what : what === 'visit' ? 'visits' : 'identities'}`;
}
