import { isFailed, type Outcome } from './ask-each.js';
import { byId, MAX_UNEXPLAINED, unexplainedRefusal } from './table-visit.store.js';
import { verdictOn, type Lease } from './visit.record.js';
import type { SaveResult, SessionSave, VisitRecord } from './visit.store.js';

/** A stored visit, and the lease of its lock. */
export interface StoredVisit {
  readonly visit: VisitRecord | null;
  readonly lease?: Lease;
}

/** The operations of a store that writes each save with its own statement. */
export interface SavingEach {
  /**
   * Writes one save with a statement that contains all conditions: the id, that the visit has not ended, the guard, the
   * version, and the lock if the save relies on one. Returns whether it has written.
   */
  readonly saveOne: (save: SessionSave) => Promise<boolean>;
  /** Returns the stored visits in this order. */
  readonly look: (ids: readonly string[]) => Promise<readonly Outcome<StoredVisit>[]>;
  /** The number of concurrent statements. The application needs connections of the pool for itself. */
  readonly atOnce: number;
}

/**
 * Implements `save` with one statement for each visit: it writes, and finds out why writes have changed nothing. A save
 * that fails does not affect the others.
 */
export async function saveEach(
  saves: readonly SessionSave[],
  { saveOne, look, atOnce }: SavingEach,
): Promise<SaveResult[]> {
  const results: SaveResult[] = [];
  let waiting = saves.map((save, index) => ({ save, index }));
  for (let unexplained = 0; waiting.length > 0;) {
    const round = oneOfEach(waiting);
    await inParallel(round, atOnce, async ({ save, index }) => {
      try {
        if (await saveOne(save)) results[index] = { outcome: 'saved', version: save.version + 1 };
      } catch (error) {
        results[index] = { outcome: 'failed', error };
      }
    });
    const missed = round.filter(({ index }) => !(index in results));
    const stored = missed.length > 0 ? await look(missed.map(({ save }) => save.id)) : [];
    for (const [position, { save, index }] of missed.entries()) {
      const found = stored[position]!;
      const verdict: SaveResult | null = isFailed(found)
        ? { outcome: 'failed', error: found.error }
        : verdictOn(save, found.visit, found.lease);
      if (verdict) results[index] = verdict;
    }
    const before = waiting.length;
    waiting = waiting.filter(({ index }) => !(index in results));
    if (waiting.length === before && ++unexplained > MAX_UNEXPLAINED) throw unexplainedRefusal('save');
  }
  return results;
}

/** Processes several items at a time, at most `most`. */
export async function inParallel<T>(
  items: readonly T[],
  most: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  const takeOver = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, takeOver));
}

/** The first of each visit, in the order of their ids. */
function oneOfEach<E extends { save: SessionSave }>(entries: readonly E[]): E[] {
  const first = new Map<string, E>();
  for (const entry of entries) if (!first.has(entry.save.id)) first.set(entry.save.id, entry);
  return [...first.values()].sort((a, b) => byId(a.save, b.save));
}
