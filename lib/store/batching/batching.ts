import type { NewVisitRecord, SaveResult, SessionSave, VisitRecord, VisitStore } from '../visit.store.js';
import { Batcher, type BatcherOptions } from './batcher.js';

/** What each request needs of a store, one visit at a time: gathered from all requests of the moment into few calls. */
export interface VisitAccess {
  find(id: string): Promise<VisitRecord | null>;
  create(visit: NewVisitRecord): Promise<void>;
  save(save: SessionSave): Promise<SaveResult>;
}

/** Two: while one batch is with the database, the next one is on its way; more would make batches smaller, not answers faster. */
const GROUPED = { most: 256, inFlight: 2 };

export function createVisitAccess(store: VisitStore, limits: Pick<BatcherOptions, 'deadline' | 'explain'>): VisitAccess {
  const options = { ...GROUPED, ...limits };
  const finds = new Batcher(async (ids: readonly string[]) => {
    const distinct = [...new Set(ids)];
    const records = await store.find(distinct);
    if (distinct.length === ids.length) return records;
    const byId = new Map(distinct.map((id, index) => [id, records[index] ?? null]));
    return ids.map((id) => byId.get(id) ?? null);
  }, options);
  const saves = new Batcher((batch: readonly SessionSave[]) => store.save(batch), options);
  const creates = new Batcher(async (visits: readonly NewVisitRecord[]) => {
    await store.create(visits);
    return visits.map(() => undefined);
  }, options);
  return { find: (id) => finds.load(id), create: (visit) => creates.load(visit), save: (save) => saves.load(save) };
}
