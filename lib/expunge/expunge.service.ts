import { setTimeout } from 'node:timers/promises';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { VisitOptionError } from '../errors/visit.error.js';
import { InvalidOption } from '../options/invalid-option.js';
import { optionTable } from '../options/option-table.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import { requireClock } from '../store/clock-skew.js';
import type { CleanUpBatch, ExpungedBatch, KeptVisits, StaleCounts } from '../store/visit.facets.js';
import { VisitStore } from '../store/visit.store.js';

const DAY = 86_400_000;

/** After a full batch, clean-up pauses for at least this many milliseconds; after a smaller one, for a part of them. */
const LEAST_REST = 25;

/** Options of `ExpungeService.run()`. */
export interface ExpungeOptions {
  /** How many days visits are kept after they expired or ended, from 0 to 36500. @default `expunge.keepDays` */
  keepDays?: number;
  /** How many rows one statement deletes, from 1 to 500. @default `expunge.batchSize` */
  batchSize?: number;
  /** Whether to count only. @default false */
  dryRun?: boolean;
  /** Called after each batch with the counts so far. */
  onProgress?: (soFar: Readonly<StaleCounts>) => void;
  /**
   * Called at the end if visits were kept because rows of other tables refer to them with a restricting foreign key.
   * @default a warning in the log
   */
  onKept?: (kept: KeptVisits) => void;
}

/** Options of `ExpungeService.wipeExpired()`. */
export interface WipeOptions {
  /** Whether to count only. @default false */
  dryRun?: boolean;
  /** Called after each batch with the count so far. */
  onProgress?: (soFar: number) => void;
}

/**
 * Deletes stale visits and wipes session data, in small batches. It can run on several machines at the same time.
 * Errors of the store are thrown.
 */
@Injectable()
export class ExpungeService {
  /** A property, so that tests can replace it. */
  private readonly sleep: (milliseconds: number) => Promise<unknown> = (milliseconds) =>
    setTimeout(milliseconds, undefined, { signal: this.ending.signal }).catch(() => undefined);
  private readonly ending = new AbortController();

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<
      ResolvedVisitOptions,
      'expunge' | 'touch' | 'clock' | 'maxClockSkew'
    >,
    @Inject(VisitStore) private readonly store: VisitStore,
    @Inject(PluginRegistry) private readonly plugins: Pick<PluginRegistry, 'emit'>,
  ) {}

  /** Called at shutdown: a running clean-up stops after its current batch, and no new one begins. */
  stop(): void {
    this.ending.abort();
  }

  /**
   * Deletes visits that expired or ended more than `keepDays` ago, with their identities, and returns how many of each.
   * If the application shuts down meanwhile, it returns the numbers up to then. Visits to which rows of other tables
   * refer with a restricting foreign key are kept (`onKept`).
   *
   * @throws VisitClockError if the clock of the database differs too much; VisitOptionError for invalid options, before
   * anything is deleted
   */
  async run(options: ExpungeOptions = {}): Promise<StaleCounts> {
    const keepDays = checked('keepDays', options.keepDays) ?? this.options.expunge.keepDays;
    const batchSize = checked('batchSize', options.batchSize) ?? this.options.expunge.batchSize;
    const { dryRun = false, onProgress, onKept = warnOfKept } = options;
    const before = this.options.clock.now() - keepDays * DAY;
    const counts = { visits: 0, identities: 0 };
    let keptVisits = 0;
    const constraints = new Set<string>();
    const add = ({ visits, identities, kept }: ExpungedBatch): void => {
      counts.visits += visits;
      counts.identities += identities;
      keptVisits += kept?.visits ?? 0;
      for (const name of kept?.constraints ?? []) constraints.add(name);
      if (visits > 0 && !dryRun) onProgress?.(counts);
    };
    const { cleanup } = this.store;
    if (!cleanup) return counts;
    if (!dryRun) await requireClock(this.store, this.options, 'expunge');
    await this.eachBatch<ExpungedBatch>({ before, limit: batchSize, dryRun }, (batch) => cleanup.expunge(batch), add);
    if (keptVisits > 0) onKept({ visits: keptVisits, constraints: [...constraints] });
    if (counts.visits > 0 && !dryRun) await this.plugins.emit('onExpunge', { ...counts });
    return counts;
  }

  /**
   * Deletes the session data of expired visits, keeps their rows, and returns how many there were.
   *
   * @throws VisitClockError if the clock of the database differs too much
   */
  async wipeExpired({ dryRun = false, onProgress }: WipeOptions = {}): Promise<number> {
    // An expiry update may still wait in some process: what it would prolong is not wiped.
    const before = this.options.clock.now() - 2 * this.options.touch.interval;
    const { batchSize } = this.options.expunge;
    let wiped = 0;
    const add = ({ visits }: { readonly visits: number }): void => {
      wiped += visits;
      if (visits > 0 && !dryRun) onProgress?.(wiped);
    };
    const { cleanup } = this.store;
    if (!cleanup) return wiped;
    if (!dryRun) await requireClock(this.store, this.options, 'wipe');
    await this.eachBatch({ before, limit: batchSize, dryRun }, (batch) => cleanup.wipe(batch), add);
    return wiped;
  }

  /** Runs one batch after the other until nothing is left or the application shuts down. */
  private async eachBatch<B extends { readonly visits: number; readonly next: unknown }>(
    batch: CleanUpBatch,
    work: (batch: CleanUpBatch) => Promise<B>,
    done: (counts: B) => void,
  ): Promise<void> {
    for (let after: unknown; after !== null && !this.ending.signal.aborted;) {
      const counts = await this.thenRest(
        () => work({ ...batch, after }),
        ({ visits }) => (batch.dryRun ? 0 : visits / batch.limit),
      );
      done(counts);
      after = counts.next;
    }
  }

  /**
   * Runs the work, then pauses for the same time; at least until waiting requests had their turn, if the database runs
   * within the process (SQLite).
   */
  private async thenRest<T>(work: () => Promise<T>, shareDone: (result: T) => number): Promise<T> {
    const began = performance.now();
    const result = await work();
    const share = shareDone(result);
    if (share > 0) await this.sleep(Math.max(performance.now() - began, LEAST_REST * share));
    return result;
  }
}

/** Validates like the options at startup: a negative number of days would delete live visits. */
function checked(name: 'keepDays' | 'batchSize', value: number | undefined): number | undefined {
  try {
    return value === undefined ? undefined : (optionTable.expunge[name].parse(value) as number);
  } catch (error) {
    if (!(error instanceof InvalidOption)) throw error;
    throw new VisitOptionError(`"${name}" of expunge.run() must be ${error.message}, got ${String(value)}`);
  }
}

/** A message for people, without data. */
export function describeKept({ visits, constraints }: KeptVisits): string {
  const [stay, them] = visits === 1 ? ['visit stays', 'it'] : ['visits stay', 'them'];
  const names = constraints.length > 0 ? ` (${constraints.join(', ')})` : '';
  return (
    `${visits} expired or ended ${stay}, because rows of other tables refer to ${them} by a foreign key that ` +
    `restricts${names}: ` +
    'let it say ON DELETE CASCADE or ON DELETE SET NULL'
  );
}

function warnOfKept(kept: KeptVisits): void {
  new Logger('Visit').warn(describeKept(kept));
}
