import { isHidden } from './hidden-entries.js';

/**
 * The previous state of a value: a primitive as it is, anything that can be changed from within in its encoded form.
 */
export type Snapshot = { readonly value: unknown } | { readonly bytes: Uint8Array };

/** The changes of one request to its session, which can be applied to newer data. */
export interface SessionChanges {
  /** Whether everything that is not in `written` is deleted, whichever request has written it. */
  readonly cleared: boolean;
  readonly written: ReadonlyMap<string, { readonly value: unknown; readonly snapshot: Snapshot }>;
  readonly deleted: ReadonlySet<string>;
}

/** The stored data with the changes applied: keys of other requests are kept (law 3). */
export function applyChanges(stored: ReadonlyMap<string, unknown>, changes: SessionChanges): Map<string, unknown> {
  const data = new Map(stored);
  if (changes.cleared) for (const key of stored.keys()) if (!isHidden(key)) data.delete(key);
  for (const key of changes.deleted) data.delete(key);
  for (const [key, { value }] of changes.written) data.set(key, value);
  return data;
}

export function sameSnapshot(one: Snapshot, other: Snapshot): boolean {
  if ('bytes' in one) return 'bytes' in other && Buffer.compare(one.bytes, other.bytes) === 0;
  return 'value' in other && Object.is(one.value, other.value);
}
