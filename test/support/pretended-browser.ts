import {
  VisitStore,
  type ClientStorage,
  type Ending,
  type VisitRecord,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitStoreCapabilities,
} from 'nest-visit';

/**
 * A store whose visits are stored in browsers, together with their cookies. Each call is a request that sends the
 * cookies of the jar and stores those of the response. Two of these with one jar are two processes.
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
    return this.carried(ids, () => this.store.find(ids));
  }
  create(visits: readonly VisitRecord[]): Promise<void> {
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
  end(ids: readonly string[], ending: Ending): Promise<string[]> {
    return this.request(ids, () => this.store.end(ids, ending));
  }
  close(): Promise<void> {
    return this.store.close();
  }

  private request<T>(ids: readonly string[], work: () => Promise<T>): Promise<T> {
    return this.carried(ids, async (storage) => {
      const result = await work();
      for (const record of await this.store.find(ids)) {
        if (!record) continue;
        const copy = storage.copyFor({ id: record.id, keyHash: record.keyHash, now: 0 });
        if (copy) this.jar.set(record.id, copy.text);
      }
      return result;
    });
  }

  /** Accepts more than real browsers: the other requirements of the contract do not depend on the size. */
  private async carried<T>(ids: readonly string[], work: (storage: ClientStorage) => Promise<T>): Promise<T> {
    const storage = this.store.clients!.openStorage(Infinity);
    try {
      await storage.load(
        ids,
        ids.flatMap((id) => this.jar.get(id) ?? []),
      );
      return await work(storage);
    } finally {
      storage.close();
    }
  }
}

const idsOf = (list: readonly { readonly id: string }[]): string[] => list.map(({ id }) => id);
