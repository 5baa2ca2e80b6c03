import { randomBytes } from 'node:crypto';
import { askEach, Failed, isFailed, type Asking, type Outcome } from '../ask-each.js';
import type { VisitServer } from '../visit.facets.js';
import type { SaveResult, SessionSave, VisitRecord, VisitStore } from '../visit.store.js';
import { Batcher, type BatcherOptions } from './batcher.js';

/** The result of a save, unless it failed. */
export type SaveOutcome = Exclude<SaveResult, { outcome: 'failed' }>;

/**
 * The methods of a store that each request uses, for one visit at a time. Calls of all current requests are combined
 * into few calls.
 */
export interface VisitAccess {
  find(id: string): Promise<VisitRecord | null>;
  create(visit: VisitRecord): Promise<void>;
  save(save: SessionSave): Promise<SaveOutcome>;
  /** Refuses all waiting calls that have not been sent. */
  refuse(error: unknown): void;
  /** The same, only for writes. */
  refuseWrites(error: unknown): void;
}

/**
 * Two batches: while one is in the database, the next one is being sent. More would make batches smaller, not answers
 * faster.
 */
const GROUPED = { most: 256, inFlight: 2 };
/** For visits on several servers: one visit per call, and any number of calls. */
const EACH_BY_ITSELF = { most: 1, inFlight: 10_000 };

export function createVisitAccess(
  store: Pick<VisitStore, 'find' | 'create' | 'save'> & Pick<VisitServer, 'isDivided'>,
  limits: Pick<BatcherOptions, 'deadline' | 'explain'>,
): VisitAccess {
  const options = { ...(store.isDivided ? EACH_BY_ITSELF : GROUPED), ...limits };
  /** Looks up a visit that does not exist. */
  const probe = (): Promise<unknown> => store.find([randomBytes(16).toString('hex')]);

  const finding: Asking<string, VisitRecord | null> = {
    ask: (ids) => {
      const distinct = new Set(ids);
      return distinct.size === ids.length ? store.find(ids) : findDistinct(ids, [...distinct]);
    },
    probe,
  };
  const findDistinct = async (ids: readonly string[], distinct: readonly string[]): Promise<(VisitRecord | null)[]> => {
    const records = await store.find(distinct);
    const byId = new Map(distinct.map((id, index) => [id, records[index] ?? null]));
    return ids.map((id) => byId.get(id) ?? null);
  };
  const findEach = (visits: readonly { readonly id: string }[]) =>
    askEach(
      visits.map(({ id }) => id),
      finding,
    );

  const creating: Asking<VisitRecord, true> = {
    ask: async (visits) => {
      await store.create(visits);
      return visits.map(() => true);
    },
    probe,
    // The visit may have been inserted although the answer was lost. Ids are random, so a row with this id and this key
    // is ours, and inserting again is safe.
    inspect: async (visits, error) => {
      const stored = await findEach(visits);
      return stored.map((found, index) => {
        if (isFailed(found)) return new Failed(error);
        return found?.keyHash === visits[index]!.keyHash ? true : undefined;
      });
    },
  };

  const saving: Asking<SessionSave, SaveOutcome> = {
    ask: async (saves, again) => {
      const results = await store.save(saves);
      return results.map((result, index): Outcome<SaveOutcome> => {
        if (result.outcome === 'failed') return new Failed(result.error);
        // The first attempt may have been written although its answer was lost. Then the second one conflicts with it,
        // and a change that is applied again would count twice.
        if (again && result.outcome === 'conflict' && !isOfOthers(saves[index]!, result))
          return new Failed(new Error('it is unknown whether the save was written'));
        return result;
      });
    },
    probe,
    inspect: async (some) => some.map(() => undefined),
  };

  const grouped = <Question, Answer>(asking: Asking<Question, Answer>): Batcher<Question, Answer> =>
    new Batcher(asking, options);
  const [finds, creates, saves] = [grouped(finding), grouped(creating), grouped(saving)];
  return {
    find: (id) => finds.load(id),
    create: async (visit) => void (await creates.load(visit)),
    save: (save) => saves.load(save),
    refuse: (error) => {
      for (const batcher of [finds, creates, saves]) batcher.refuse(error);
    },
    refuseWrites: (error) => {
      for (const batcher of [creates, saves]) batcher.refuse(error);
    },
  };
}

/** Whether the stored data shows that the save was not written: otherwise the next version would be its own. */
function isOfOthers(
  save: SessionSave,
  stored: { readonly version: number; readonly data: Uint8Array | null },
): boolean {
  if (stored.version !== save.version + 1) return false;
  return save.data && stored.data ? Buffer.compare(save.data, stored.data) !== 0 : save.data !== stored.data;
}
