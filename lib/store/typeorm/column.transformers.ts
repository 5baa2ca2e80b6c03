import { inspect } from 'node:util';
import type { ValueTransformer } from 'typeorm';

/** Instants are kept as milliseconds since 1970 UTC, so that no time zone of process, connection or database can move them. */
export const instant: ValueTransformer = {
  to: (value?: Date | number | null) => (value == null ? value : Number(value)),
  // Drivers give 64-bit integers as text.
  from: (value?: string | number | null) => (value == null ? value : new Date(Number(value))),
};

/** Drivers disagree about what a binary column holds: Buffer, Uint8Array or ArrayBuffer. */
export const bytes: ValueTransformer = {
  to: (value?: Uint8Array | null) => (value == null ? value : toBuffer(value)),
  from: (value?: Uint8Array | ArrayBuffer | null) => (value == null ? value : toBuffer(value)),
};

/** The same bytes as a Buffer, without a copy. SQLite lets a column hold other types, too: of those the bytes of their text. */
export function toBuffer(value: Uint8Array | ArrayBuffer): Buffer {
  if (Buffer.isBuffer(value)) return value;
  if (typeof value !== 'object') return Buffer.from(String(value));
  return value instanceof ArrayBuffer ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** Session data on its way into a statement: whoever prints the parameters, such as TypeORM's log of queries, shows `<n bytes>`. */
export function toConfidential(value: Uint8Array): Buffer {
  // A view of its own: what others do with the bytes is not ours to change.
  const view = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return Object.assign(view, { toJSON: shown, [inspect.custom]: shown });
}

function shown(this: Buffer): string {
  return `<${this.length} bytes>`;
}
