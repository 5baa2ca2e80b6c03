import { isHidden } from './hidden-entries.js';
import { sameSnapshot, type SessionChanges, type Snapshot } from './session.changes.js';
import type { SessionSerializer } from './session.codec.js';

/** The unsaved changes of a moment. */
export interface Mark {
  readonly cleared: boolean;
  readonly written: readonly (readonly [key: string, snapshot: Snapshot])[];
  readonly deleted: readonly string[];
}

/**
 * What one request sees of its session, and what it has changed. Synchronous, without a store; decoded when it is first
 * touched. For every key that was written, deleted, or handed out as an object, it remembers how the value was
 * before: comparing with that tells a change from a mere look, in nested values too.
 */
export class SessionDictionary {
  private current: Map<string, unknown> | undefined;
  private before = new Map<string, Snapshot | null>();
  private cleared = false;

  /**
   * @param load the stored data, decoded; called once, and again after `revert()`
   * @param notice called before each change (which it may refuse by an error), and when an object is handed out that
   *   may be changed from within
   */
  constructor(
    private readonly serializer: SessionSerializer,
    private readonly load: () => Map<string, unknown>,
    private readonly notice: (kind: 'change' | 'handout') => void = () => {},
  ) {}

  get(key: string): unknown {
    const value = this.data.get(key);
    if (typeof value === 'object' && value !== null && !this.before.has(key)) {
      this.remember(key);
      this.notice('handout');
    }
    return value;
  }

  has(key: string): boolean {
    return this.data.has(key);
  }

  set(key: string, value: unknown): void {
    this.notice('change');
    this.put(key, value);
  }

  delete(key: string): boolean {
    this.notice('change');
    return this.remove(key);
  }

  clear(): void {
    this.notice('change');
    this.removeAll();
  }

  keys(): string[] {
    return [...this.data.keys()].filter((key) => !isHidden(key));
  }

  get size(): number {
    return this.keys().length;
  }

  /** The entries as they are now. Not for looking at one of them: what is changed in them is not noticed. */
  contents(): Map<string, unknown> {
    return new Map([...this.data].filter(([key]) => !isHidden(key)));
  }

  /** Whether the key has been written, deleted, or handed out as an object. */
  isTouched(key: string): boolean {
    return this.before.has(key);
  }

  /** The value as it was when it was loaded or saved last; undefined if there was none. For a key that is touched. */
  valueBefore(key: string): unknown {
    const before = this.before.get(key);
    return before && this.copyOf(key, before);
  }

  /** Forgets what has not been saved. The next look loads again. */
  revert(): void {
    this.current = undefined;
    this.before = new Map();
    this.cleared = false;
  }

  /**
   * What has changed by now, kept so that it can be made again.
   *
   * @throws SessionDataError for a value that cannot be kept
   */
  mark(): Mark | null {
    const changes = this.changes();
    if (!changes) return null;
    const written = [...changes.written].map(([key, { snapshot }]) => [key, snapshot] as const);
    return { cleared: changes.cleared, written, deleted: [...changes.deleted] };
  }

  /** Forgets what has not been saved, but for what had been changed at the mark. */
  restore(mark: Mark | null): void {
    this.revert();
    if (!mark) return;
    if (mark.cleared) this.removeAll();
    for (const key of mark.deleted) this.remove(key);
    for (const [key, snapshot] of mark.written) this.put(key, this.copyOf(key, snapshot));
  }

  /** The value as it was then; an object is a new one each time. */
  copyOf(key: string, snapshot: Snapshot): unknown {
    return 'bytes' in snapshot ? this.serializer.decode(snapshot.bytes).get(key) : snapshot.value;
  }

  /**
   * What has changed since it was loaded or saved, or null if nothing has.
   *
   * @throws SessionDataError for a value that cannot be kept
   */
  changes(): SessionChanges | null {
    if (this.before.size === 0) return null;
    const written = new Map<string, { value: unknown; snapshot: Snapshot }>();
    const deleted = new Set<string>();
    let changed = false;
    for (const [key, before] of this.before) {
      if (this.data.has(key)) {
        const value = this.data.get(key);
        const snapshot = this.snapshot(key, value);
        const same = before !== null && sameSnapshot(before, snapshot);
        if (!same || this.cleared) written.set(key, { value, snapshot });
        changed ||= !same;
      } else if (before !== null) {
        deleted.add(key);
        changed = true;
      }
    }
    return changed ? { cleared: this.cleared, written, deleted } : null;
  }

  /** What has changed in one key. */
  changesOf(key: string): SessionChanges {
    const all = this.changes();
    const write = all?.written.get(key);
    return {
      cleared: false,
      written: new Map(write ? [[key, write]] : []),
      deleted: new Set(all?.deleted.has(key) ? [key] : []),
    };
  }

  /**
   * Takes note that `changes` have been saved and that `stored` is now what the store has. Keys this request has not
   * touched follow it; what the handler holds, or has changed since, stays as the handler sees it.
   */
  saved(changes: SessionChanges, stored: ReadonlyMap<string, unknown>): void {
    for (const [key, { snapshot }] of changes.written) this.before.set(key, snapshot);
    for (const key of changes.deleted) this.before.set(key, null);
    if (changes.cleared) this.cleared = false;
    const data = this.data;
    for (const key of data.keys()) if (!stored.has(key) && !this.before.has(key)) data.delete(key);
    for (const [key, value] of stored) if (!this.before.has(key)) data.set(key, value);
  }

  /** Puts the outcome of an atomic update in place: seen from here on, and already saved. */
  replace(key: string, value: unknown): void {
    if (value === undefined) this.data.delete(key);
    else this.data.set(key, value);
    this.before.set(key, value === undefined ? null : this.snapshot(key, value));
  }

  private put(key: string, value: unknown): void {
    this.remember(key);
    this.data.set(key, value);
  }

  private remove(key: string): boolean {
    this.remember(key);
    return this.data.delete(key);
  }

  private removeAll(): void {
    for (const key of this.keys()) this.remove(key);
    this.cleared = true;
  }

  private get data(): Map<string, unknown> {
    return (this.current ??= this.load());
  }

  private remember(key: string): void {
    if (this.before.has(key)) return;
    this.before.set(key, this.data.has(key) ? this.snapshot(key, this.data.get(key)) : null);
  }

  private snapshot(key: string, value: unknown): Snapshot {
    const type = typeof value;
    if (type === 'string' || type === 'number' || type === 'boolean' || value === null) return { value };
    return { bytes: this.serializer.encode(new Map([[key, value]])) };
  }
}
