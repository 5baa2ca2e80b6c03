import { isHidden } from './hidden-entries.js';
import { sameSnapshot, type SessionChanges, type Snapshot } from './session.changes.js';
import type { SessionSerializer } from './session.codec.js';

/** The unsaved changes at a point in time. */
export interface Mark {
  readonly cleared: boolean;
  readonly written: readonly (readonly [key: string, snapshot: Snapshot])[];
  readonly deleted: readonly string[];
}

/**
 * The session data as one request sees it, and its changes. Synchronous and without a store; decoded when it is first
 * used. For every key that was written, deleted, or handed out as an object, it stores the previous value. Comparing
 * with that value detects changes, in nested values too.
 */
export class SessionDictionary {
  private current: Map<string, unknown> | undefined;
  private before = new Map<string, Snapshot | null>();
  private cleared = false;

  /**
   * @param load returns the decoded stored data; called once, and again after `revert()`
   * @param notice called before each change, which it may refuse by an error, and when an object is handed out that may
   * be changed from within
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

  /** The current entries. Changes to their values are not noticed. */
  contents(): Map<string, unknown> {
    return new Map([...this.data].filter(([key]) => !isHidden(key)));
  }

  /** Whether the key has been written, deleted, or handed out as an object. */
  isTouched(key: string): boolean {
    return this.before.has(key);
  }

  /** The value when it was last loaded or saved; undefined if there was none. For a key that is touched. */
  valueBefore(key: string): unknown {
    const before = this.before.get(key);
    return before && this.copyOf(key, before);
  }

  /** Discards unsaved changes. The next access loads again. */
  revert(): void {
    this.current = undefined;
    this.before = new Map();
    this.cleared = false;
  }

  /**
   * The current changes, in a form that can be applied again.
   *
   * @throws SessionDataError for a value that cannot be stored
   */
  mark(): Mark | null {
    const changes = this.changes();
    if (!changes) return null;
    const written = [...changes.written].map(([key, { snapshot }]) => [key, snapshot] as const);
    return { cleared: changes.cleared, written, deleted: [...changes.deleted] };
  }

  /** Discards unsaved changes, except those of the mark. */
  restore(mark: Mark | null): void {
    this.revert();
    if (!mark) return;
    if (mark.cleared) this.removeAll();
    for (const key of mark.deleted) this.remove(key);
    for (const [key, snapshot] of mark.written) this.put(key, this.copyOf(key, snapshot));
  }

  /** The value at that time; an object is a new one each time. */
  copyOf(key: string, snapshot: Snapshot): unknown {
    return 'bytes' in snapshot ? this.serializer.decode(snapshot.bytes).get(key) : snapshot.value;
  }

  /**
   * The changes since it was loaded or saved, or null.
   *
   * @throws SessionDataError for a value that cannot be stored
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

  /** The changes of one key. */
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
   * Records that `changes` have been saved and that `stored` is now stored. Keys that this request has not touched are
   * updated; values that the handler holds, or has changed since, stay as the handler sees them.
   */
  saved(changes: SessionChanges, stored: ReadonlyMap<string, unknown>): void {
    for (const [key, { snapshot }] of changes.written) this.before.set(key, snapshot);
    for (const key of changes.deleted) this.before.set(key, null);
    if (changes.cleared) this.cleared = false;
    const data = this.data;
    for (const key of data.keys()) if (!stored.has(key) && !this.before.has(key)) data.delete(key);
    for (const [key, value] of stored) if (!this.before.has(key)) data.set(key, value);
  }

  /** Sets the result of an atomic update, which is already saved. */
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
