import type { DataSource } from 'typeorm';
import { reasonOf } from '../errors/failure.js';
import { describeKept, ExpungeService } from '../expunge/expunge.service.js';
import { openDataSource } from '../store/open-data-source.js';
import { MovingVisitStore, type MovedPage, type RefusedVisit } from '../store/moving/moving-visit.store.js';
import type { VisitStore } from '../store/visit.store.js';
import { readArguments } from './arguments.js';
import { isStore, readSource, type Source } from './data-source.file.js';
import { lineOf } from './error-line.js';
import { KEEP_DAYS, TOUCH } from './defaults.js';
import { GENERAL_HELP, HELP_OF } from './help.js';

/** So many visits are named that could not be moved. */
const MOST_NAMED = 20;

/** Where a command writes. */
export interface Terminal {
  out(line: string): void;
  /** Progress; replaced by the next one where that is possible. */
  progress(line: string): void;
  /** What is not as it should be. */
  error(line: string): void;
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
  const wish = readArguments(args);
  if (wish.is === 'version') return terminal.out(version());
  if (wish.is === 'help') return terminal.out(wish.command ? HELP_OF[wish.command] : GENERAL_HELP);
  const { batchSize, dryRun, json, quiet } = wish;
  const progress = (text: string): void => {
    if (!quiet) terminal.progress(`${text} so far`);
    if (isInterrupted()) throw new Interrupted(`interrupted: ${text}, the rest is still there`);
  };
  const report = (text: string, counts: object): void => {
    if (!quiet) terminal.out(json ? JSON.stringify(counts) : text);
  };
  if (wish.is === 'migrate') {
    const from = await openStore(await readSource(wish.from));
    // A connection that stays open would keep the process from ending.
    const to = await readSource(wish.to)
      .then(openStore)
      .catch(async (error: unknown) => {
        await from.close();
        throw error;
      });
    const store = new MovingVisitStore({ from, to });
    try {
      await store.check();
      if (dryRun) {
        const visits = await store.countLive();
        return report(`would move ${many(visits, 'visit')}`, { visits });
      }
      const { visits, refused } = await moveAll(store, batchSize, (count) => progress(`moved ${many(count, 'visit')}`));
      report(`moved ${many(visits, 'visit')}`, { visits, ...(refused.length > 0 ? { refused: refused.map(({ id }) => id) } : {}) });
      if (refused.length > 0) throw new Error(refusalOf(refused));
      return;
    } finally {
      await store.close();
    }
  }

  const store = await openStore(await readSource(wish.source));
  try {
    await store.check();
    const keepDays = wish.is === 'expunge' ? wish.keepDays : KEEP_DAYS;
    const options = { expunge: { schedule: false as const, keepDays, batchSize }, touch: TOUCH, clock: Date, maxClockSkew: 60_000 };
    const service = new ExpungeService(options, store, { emit: async () => {} });
    if (wish.is === 'expunge') {
      const counts = await service.run({
        dryRun,
        onProgress: ({ visits }) => progress(`expunged ${many(visits, 'visit')}`),
        onKept: (kept) => terminal.error(`nest-visit: ${describeKept(kept)}`),
      });
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

/** How many visits have moved, and which have not. */
async function moveAll(
  store: MovingVisitStore,
  limit: number,
  onProgress: (soFar: number) => void,
): Promise<{ visits: number; refused: RefusedVisit[] }> {
  let visits = 0;
  const refused: RefusedVisit[] = [];
  for (let after: string | null = ''; after !== null;) {
    const page: MovedPage = await store.movePage({ after, limit });
    visits += page.moved;
    refused.push(...page.refused);
    after = page.next;
    onProgress(visits);
  }
  return { visits, refused };
}

/** Of each, why. What a store says of it may hold what it would not take. */
function refusalOf(refused: readonly RefusedVisit[]): string {
  const named = refused.slice(0, MOST_NAMED).map(({ id, error }) => `${id} (${reasonOf(error)})`);
  const more = refused.length > named.length ? ` and ${refused.length - named.length} more` : '';
  return `${many(refused.length, 'visit')} not taken by the new store, and left in the old one: ${named.join(', ')}${more}`;
}

/** A command that cleans up changes no tables, whatever the application does at its start, and prints counts, no SQL. */
const HARMLESS = { synchronize: false, dropSchema: false, migrationsRun: false, logging: [] };

/** A store that closes its data source, whoever opened that: when the command is done, so is the process. */
async function openStore(source: Source): Promise<VisitStore> {
  if (isStore(source)) return source;
  if (!('createQueryRunner' in source)) return openDataSource({ ...source, ...HARMLESS });
  if (!source.isInitialized) await initialize(source.setOptions(HARMLESS));
  return openDataSource(source, { owned: true });
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
