import { isFailed, type Outcome } from '../ask-each.js';
import { bytesFor, mostBytes, tooLong } from '../statement-size.js';
import { byId, MAX_UNEXPLAINED, unexplainedRefusal } from '../table-visit.store.js';
import { verdictOn } from '../visit.record.js';
import type { SaveResult, SessionSave, VisitRecord } from '../visit.store.js';
import { isUnsent } from './driver-error.js';
import type { SqlAccess } from './sql.connection.js';

/** The maximum number of saves in one statement. A longer condition costs more than a second statement. */
const MAX_SAVES = 64;

/** Returns stored visits; one that cannot be read fails alone. */
type FindEach = (ids: readonly string[]) => Promise<readonly Outcome<VisitRecord | null>[]>;

/** Implements `save` with few statements, each for many visits. A save that the database refuses fails alone. */
export async function saveInGroups(
  saves: readonly SessionSave[],
  access: SqlAccess,
  findEach: FindEach,
): Promise<SaveResult[]> {
  const { dialect } = access.connection;
  const results: SaveResult[] = [];
  for (const [index, { data }] of saves.entries()) {
    const error = tooLong(data, dialect.longestStatement);
    if (error) results[index] = { outcome: 'failed', error };
  }
  let waiting = saves.map((save, index) => ({ save, index })).filter(({ index }) => !(index in results));
  let unexplained = 0;
  let mostInGroup = MAX_SAVES;
  while (waiting.length > 0) {
    const group = nextGroup(waiting, mostInGroup, mostBytes(dialect.longestStatement));
    let outcomes: Map<string, Outcome<true>>;
    try {
      outcomes = await saveGroup(
        group.map(({ save }) => save),
        access,
        findEach,
      );
    } catch (error) {
      // The refused saves are found by splitting the group in halves. Saves that may have been written are never
      // repeated.
      const lost = dialect.isRefusal(error) || isUnsent(error) ? (group.length === 1 ? group : []) : waiting;
      for (const { index } of lost) results[index] = { outcome: 'failed', error };
      waiting = waiting.filter(({ index }) => !(index in results));
      mostInGroup = Math.max(1, group.length >> 1);
      continue;
    }
    const missed: typeof group = [];
    for (const { save, index } of group) {
      const outcome = outcomes.get(save.id);
      if (!outcome) missed.push({ save, index });
      else
        results[index] = isFailed(outcome)
          ? { outcome: 'failed', error: outcome.error }
          : { outcome: 'saved', version: save.version + 1 };
    }
    const stored = missed.length > 0 ? await findEach(missed.map(({ save }) => save.id)) : [];
    for (const [position, { save, index }] of missed.entries()) {
      const verdict = await judge(save, stored[position] ?? null, access);
      if (verdict) results[index] = verdict;
    }
    const before = waiting.length;
    waiting = waiting.filter(({ index }) => !(index in results));
    if (waiting.length === before && ++unexplained > MAX_UNEXPLAINED) throw unexplainedRefusal('save');
  }
  return results;
}

/**
 * For each id, whether it was saved or may have been. The database either returns which visits of a group were saved,
 * or saves all or none.
 */
async function saveGroup(
  saves: readonly SessionSave[],
  { connection, sql }: SqlAccess,
  findEach: FindEach,
): Promise<Map<string, Outcome<true>>> {
  const ids = saves.map(({ id }) => id);
  const all = (some: readonly string[]): Map<string, true> => new Map(some.map((id) => [id, true]));
  try {
    const { rows, affected } = await connection.run(sql.save(saves));
    if (connection.dialect.returning) return all(rows.map(({ id }) => String(id)));
    if (affected === ids.length) return all(ids);
  } catch (error) {
    if (connection.dialect.isUnmet(error)) return all([]);
    throw error;
  }
  // All existing visits. If this cannot be determined, the save may have been written and is not repeated.
  const stored = await findEach(ids);
  const outcomes = new Map<string, Outcome<true>>();
  for (const [index, id] of ids.entries()) {
    const outcome = stored[index];
    if (isFailed(outcome)) outcomes.set(id, outcome);
    else if (outcome) outcomes.set(id, true);
  }
  return outcomes;
}

/** The result of a save that has written nothing, given the stored visit; null if there is no longer a reason. */
async function judge(
  save: SessionSave,
  stored: Outcome<VisitRecord | null>,
  { connection, sql }: SqlAccess,
): Promise<SaveResult | null> {
  if (isFailed(stored)) return { outcome: 'failed', error: stored.error };
  if (save.lockOwner === undefined) return verdictOn(save, stored, {});
  try {
    const { rows } = await connection.run(sql.lease(save.id));
    return verdictOn(save, stored, rows[0] ?? {});
  } catch (error) {
    return { outcome: 'failed', error };
  }
}

/** The first saves that fit into one statement: each visit once, ordered by id, limited in number and size. */
function nextGroup<E extends { save: SessionSave }>(entries: readonly E[], most: number, longest: number): E[] {
  const group = new Map<string, E>();
  let bytes = 0;
  for (const entry of entries) {
    const { id, data } = entry.save;
    bytes += bytesFor(data);
    if (group.size >= most || (bytes > longest && group.size > 0)) break;
    if (!group.has(id)) group.set(id, entry);
  }
  return [...group.values()].sort((a, b) => byId(a.save, b.save));
}
