import assert from 'node:assert/strict';

/** Deeply equal, regardless of the classes of objects and bytes, and of omitted or undefined properties. */
export function same(actual: unknown, expected: unknown, message?: string): void {
  assert.deepEqual(plain(actual), plain(expected), message);
}

/** The expected properties are deeply equal; others are ignored. */
export function fits(actual: unknown, expected: object): void {
  const values = plain(expected);
  assert.deepEqual(partOf(plain(actual), values), values);
}

/** The call is refused, because the store lacks a capability. */
export async function refuses(call: () => Promise<unknown>, title: string): Promise<void> {
  await assert.rejects(
    async () => call(),
    (error: { code?: unknown }) => error.code === 'VISIT_STORE_UNSUPPORTED',
    `${title} must be refused with VisitStoreUnsupportedError (code VISIT_STORE_UNSUPPORTED)`,
  );
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString('hex')}`;
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Set) return new Set([...value].map(plain));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, entry]) => entry !== undefined)
      .map(([name, entry]) => [name, plain(entry)]),
  );
}

function partOf(actual: unknown, expected: unknown): unknown {
  if (!isObject(actual) || !isObject(expected)) return actual;
  return Object.fromEntries(Object.keys(expected).map((name) => [name, partOf(actual[name], expected[name])]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Set);
}
