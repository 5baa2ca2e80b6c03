import { isFailed, type Outcome } from './ask-each.js';
import { byId, MAX_UNEXPLAINED, unexplainedRefusal } from './table-visit.store.js';
import { verdictOn, type Lease } from './visit.record.js';
import type { SaveResult, SessionSave, VisitRecord } from './visit.store.js';

/** A visit as it is stored, and who has its lock. */
export interface StoredVisit {
  readonly visit: VisitRecord | null;
  readonly lease?: Lease;
}

/** What saves are made of, in a store that writes each by a statement of its own. */
export interface SavingEach {
  /**
   * Writes one save by a statement that says all that must hold: the id, that the visit has not ended, the guard, the
   * version, and the lock where the save relies on one. Whether it has written.
   */
  readonly saveOne: (save: SessionSave) => Promise<boolean>;
  /** What is stored of these visits now, in their order. */
  readonly look: (ids: readonly string[]) => Promise<readonly Outcome<StoredVisit>[]>;
  /** How many statements are under way at once, since the application needs connections of the pool for itself. */
  readonly atOnce: number;
}

/**
 * `save`, one statement a visit: it writes, and looks why those that have hit nothing did. A save that fails fails by
 * itself.
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

/** Works at several items at a time, at most `most`. */
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
