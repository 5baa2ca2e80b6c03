import {
  VisitStore,
  type Ending,
  type Lock,
  type LockResult,
  type NewVisitRecord,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type StaleCounts,
  type Touch,
  type VisitPage,
  type VisitRecord,
  type VisitStoreCapabilities,
} from 'nest-visit';

/**
 * A store whose visits are kept by browsers, together with their cookies: each call is a request that brings what the jar has, and
 * takes home what it is given. Two of these on one jar are two processes.
 */
export class PretendedBrowser extends VisitStore {
  override readonly capabilities: VisitStoreCapabilities;

  constructor(
    readonly store: VisitStore,
    readonly jar = new Map<string, string>(),
  ) {
    super();
    this.capabilities = store.capabilities;
  }

  check(): Promise<void> {
    return this.store.check();
  }
  find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    return this.request(ids, () => this.store.find(ids));
  }
  create(visits: readonly NewVisitRecord[]): Promise<void> {
    return this.request(idsOf(visits), () => this.store.create(visits));
  }
  save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return this.request(idsOf(saves), () => this.store.save(saves));
  }
  touch(touches: readonly Touch[]): Promise<void> {
    return this.request(idsOf(touches), () => this.store.touch(touches));
  }
  rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    return this.request(idsOf(changes), () => this.store.rekey(changes));
  }
  lock(lock: Lock): Promise<LockResult> {
    return this.request([lock.id], () => this.store.lock(lock));
  }
  unlock(id: string, owner: string): Promise<void> {
    return this.request([id], () => this.store.unlock(id, owner));
  }
  end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return this.request(ids, () => this.store.end(ids, ending));
  }
  listForUser(userId: string, now: number): Promise<VisitRecord[]> {
    return this.store.listForUser(userId, now);
  }
  override liveVisits(page: { after: string; limit: number; now: number }): Promise<VisitPage> {
    return this.store.liveVisits(page);
  }
  override userAgentsOf(userId: string, before: number): Promise<(string | null)[]> {
    return this.store.userAgentsOf(userId, before);
  }
  endAllForUser(userId: string, ending: Ending & { readonly except?: string }): Promise<string[]> {
    return this.store.endAllForUser(userId, ending);
  }
  endEverything(ending: Ending): Promise<number> {
    return this.store.endEverything(ending);
  }
  endedAllAt(userId: string): Promise<number | null> {
    return this.store.endedAllAt(userId);
  }
  expunge(batch: { readonly before: number; readonly limit: number }): Promise<StaleCounts> {
    return this.store.expunge(batch);
  }
  countStale(before: number): Promise<StaleCounts> {
    return this.store.countStale(before);
  }
  wipe(batch: { readonly before: number; readonly limit: number }): Promise<number> {
    return this.store.wipe(batch);
  }
  countUnwiped(before: number): Promise<number> {
    return this.store.countUnwiped(before);
  }
  close(): Promise<void> {
    return this.store.close();
  }

  /** Takes more than real ones: what the contract asks for besides is not a matter of size. */
  private async request<T>(ids: readonly string[], work: () => Promise<T>): Promise<T> {
    const attendance = this.store.attend!(Infinity);
    try {
      await attendance.hold(
        ids,
        ids.flatMap((id) => this.jar.get(id) ?? []),
      );
      const result = await work();
      for (const record of await this.store.find(ids)) {
        if (!record) continue;
        const copy = attendance.copyFor({ id: record.id, keyHash: record.keyHash, now: 0 });
        if (copy) this.jar.set(record.id, copy.text);
      }
      return result;
    } finally {
      attendance.leave();
    }
  }
}

const idsOf = (list: readonly { readonly id: string }[]): string[] => list.map(({ id }) => id);
