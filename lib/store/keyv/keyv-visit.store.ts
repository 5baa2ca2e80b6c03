import { VisitOptionError, VisitStoreUnsupportedError } from '../../errors/visit.error.js';
import {
  VisitStore,
  type Ending,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitRecord,
  type VisitStoreCapabilities,
} from '../visit.store.js';
import { ended, rekeyed, saved, touched } from '../visit.record.js';
import { valueOf, visitOf } from './visit.values.js';

/** The part of a Keyv, version 5, that the store uses. */
export interface VisitKeyv {
  throwOnErrors: boolean;
  /** The value, or undefined if there is none. */
  get(key: string): Promise<unknown>;
  /** Sets a value for `ttl` milliseconds. Resolves to false if this failed. */
  set(key: string, value: string, ttl?: number): Promise<boolean>;
  /** Closes the connection. */
  disconnect(): Promise<unknown>;
}

/** Options of `KeyvVisitStore`. */
export interface KeyvVisitStoreOptions {
  /** The Keyv, created with `throwOnErrors: true` and its own `namespace`. */
  readonly keyv: VisitKeyv;
  /** Whether other processes use the same store: true for memcached, false for a file or memory. */
  readonly shared: boolean;
  /** Whether values survive a restart: true for a file, false for memcached or memory. */
  readonly durable: boolean;
  /**
   * Whether values may disappear early, as in memcached when its memory is full. Then the end of a visit may also be
   * lost, so the store is not `revocable`.
   */
  readonly evicts: boolean;
  /** Whether the Keyv is closed with the application. @default false */
  readonly owned?: boolean;
}

const DAY = 86_400_000;
/** Stands for a value that cannot be read. */
const SPOILED = Symbol('spoiled');
/** How long a visit is kept after it has expired, so that late requests find out what has happened. */
const KEEP_FOR = DAY;
/** Memcached treats longer lifetimes as an instant in the past. Such a value stays until it is removed. */
const LONGEST_LIFE = 29 * DAY;

/**
 * Stores visits in a Keyv: a file, memcached, or any other adapter.
 *
 * Such a store reads and writes single values, so it can neither compare and write in one step nor search visits
 * (`capabilities`). Within one object of this class, calls for a visit run one after the other. If one process ends a
 * visit, another one that has just read it may write it back. Therefore an end is also stored as a separate value,
 * which is never overwritten and which every look-up reads.
 */
export class KeyvVisitStore extends VisitStore {
  override readonly capabilities: VisitStoreCapabilities;
  /** Memcached may consist of several servers, and its client distributes the keys. */
  override readonly server = { isDivided: true };
  readonly #keyv: VisitKeyv;
  readonly #owned: boolean;
  /** For each visit, the completion of the last call. */
  readonly #lines = new Map<string, Promise<unknown>>();

  /** @throws VisitOptionError */
  constructor({ keyv, shared, durable, evicts, owned = false }: KeyvVisitStoreOptions) {
    super();
    if (typeof keyv?.get !== 'function' || typeof keyv.set !== 'function')
      throw new VisitOptionError(
        'KeyvVisitStore needs a "keyv": new Keyv(…) of the package keyv, version 5.4 or later',
      );
    // It would answer "no visit" when its server is away.
    if (!keyv.throwOnErrors)
      throw new VisitOptionError('the "keyv" of KeyvVisitStore must be made with throwOnErrors: true');
    for (const [name, value] of Object.entries({ shared, durable, evicts })) {
      if (typeof value !== 'boolean')
        throw new VisitOptionError(`"${name}" of KeyvVisitStore must be true or false, got ${String(value)}`);
    }
    this.#keyv = keyv;
    this.#owned = owned;
    this.capabilities = { atomic: false, revocable: !evicts, shared, durable };
  }

  async check(): Promise<void> {
    await this.#keyv.get('check');
  }

  async find(ids: readonly string[]): Promise<(VisitRecord | null)[]> {
    // One by one: the `getMany` of some adapters takes a server that is away for a value that is not there.
    return Promise.all(
      ids.map(async (id) => {
        const [visit, end] = await Promise.all([this.#read(visitKey(id)), this.#read(endKey(id))]);
        // Whatever stands where an end would be: nobody can tell that the visit has not ended.
        if (visit === SPOILED || end === SPOILED) return null;
        return visitOf(id, end) ?? visitOf(id, visit);
      }),
    );
  }

  async create(visits: readonly VisitRecord[]): Promise<void> {
    const ids = visits.map(({ id }) => id);
    const found = await this.find([...new Set(ids)]);
    if (new Set(ids).size < ids.length || found.some((visit) => visit !== null))
      throw new Error('[visit] a visit with this id already exists');
    await Promise.all(visits.map((visit) => this.#write(visit, visit.accessed)));
  }

  save(saves: readonly SessionSave[]): Promise<SaveResult[]> {
    return Promise.all(
      saves.map((save) => this.#save(save).catch((error: unknown): SaveResult => ({ outcome: 'failed', error }))),
    );
  }

  async touch(touches: readonly Touch[]): Promise<void> {
    await Promise.all(
      touches.map((touch) =>
        this.#inLine(touch.id, async (visit) => {
          const next = touched(visit, touch);
          if (next) await this.#write(next, touch.accessed);
        }),
      ),
    );
  }

  rekey(changes: readonly Rekey[]): Promise<RekeyResult[]> {
    return Promise.all(
      changes.map((change) =>
        this.#inLine(change.id, async (visit): Promise<RekeyResult> => {
          const { result, next } = rekeyed(visit, change);
          return !next || (await this.#write(next, change.now)) ? result : { outcome: 'refused', reason: 'ended' };
        }),
      ),
    );
  }

  async end(ids: readonly string[], ending: Ending): Promise<string[]> {
    if (!this.capabilities.revocable && !ending.retiresKey) throw new VisitStoreUnsupportedError('end', 'revocable');
    const done = await Promise.all(
      ids.map((id) =>
        this.#inLine(id, async (visit) => {
          const next = ended(visit, ending);
          if (!next) return false;
          await this.#set(endKey(id), next, ending.at);
          await this.#set(visitKey(id), next, ending.at);
          return true;
        }),
      ),
    );
    return ids.filter((_, index) => done[index]);
  }

  async close(): Promise<void> {
    if (this.#owned) await this.#keyv.disconnect();
  }

  #save(save: SessionSave): Promise<SaveResult> {
    // Nobody holds a lock here.
    return this.#inLine(save.id, async (visit): Promise<SaveResult> => {
      const { result, next } = saved(visit, save);
      return !next || (await this.#write(next, save.now)) ? result : { outcome: 'refused', reason: 'ended' };
    });
  }

  /** A value that is not JSON is not ours. It says nothing about the store, so it does not fail other visits. */
  async #read(key: string): Promise<unknown> {
    try {
      return await this.#keyv.get(key);
    } catch (error) {
      if (error instanceof SyntaxError) return SPOILED;
      throw error;
    }
  }

  /** Runs the calls for a visit one after the other. Nothing is kept of a queue that is empty. */
  #inLine<T>(id: string, work: (visit: VisitRecord | null) => Promise<T>): Promise<T> {
    const before = this.#lines.get(id) ?? Promise.resolve();
    const turn = before.then(async () => {
      const [visit = null] = await this.find([id]);
      return work(visit);
    });
    const done = turn.then(
      () => {},
      () => {},
    );
    this.#lines.set(id, done);
    void done.then(() => {
      if (this.#lines.get(id) === done) this.#lines.delete(id);
    });
    return turn;
  }

  /**
   * Writes a visit. Returns false if another process has ended it in the meantime: that end must not be forgotten
   * before the value that was written over it.
   */
  async #write(visit: VisitRecord, now: number): Promise<boolean> {
    await this.#set(visitKey(visit.id), visit, now);
    const end = this.capabilities.shared ? visitOf(visit.id, await this.#keyv.get(endKey(visit.id))) : null;
    if (end) await this.#set(visitKey(visit.id), end, now);
    return !end;
  }

  /** Stores a value. Its lifetime is counted from now by the application's clock, and never ends before the visit. */
  async #set(key: string, visit: VisitRecord, now: number): Promise<void> {
    const life = Math.max(0, visit.expiry - Math.min(now, visit.accessed)) + KEEP_FOR;
    const isStored = await this.#keyv.set(key, valueOf(visit), life > LONGEST_LIFE ? 0 : life);
    if (!isStored) throw new Error(`[visit] ${key} could not be stored`);
  }
}

const visitKey = (id: string): string => `visit:${id}`;
const endKey = (id: string): string => `ended:${id}`;
