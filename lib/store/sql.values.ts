import { inspect } from 'node:util';

/**
 * The same bytes as a Buffer, without a copy. SQLite lets a column hold other types, too: of those the bytes of their
 * text.
 */
export function toBuffer(value: Uint8Array | ArrayBuffer): Buffer {
  if (Buffer.isBuffer(value)) return value;
  if (typeof value !== 'object') return Buffer.from(String(value));
  return value instanceof ArrayBuffer
    ? Buffer.from(value)
    : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/**
 * Session data on its way into a statement: whoever prints the parameters, such as a log of queries, shows `<n bytes>`.
 */
export function toConfidential(value: Uint8Array): Buffer {
  // A view of its own: what others do with the bytes is not ours to change.
  const view = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return Object.assign(view, { toJSON: shown, [inspect.custom]: shown });
}

function shown(this: Buffer): string {
  return `<${this.length} bytes>`;
}

/** Needs no escapes, and is the same in every charset that servers take from clients. */
const PLAIN = /^[\w .:;,/()+-]*$/;

/**
 * Text in a statement that is not prepared. The drivers put parameters into its text, escaped by backslashes, which
 * mean nothing under NO_BACKSLASH_ESCAPES: a quote would end the text, and what follows would be SQL. Hexadecimal
 * digits mean the same in every mode, and in every charset of the connection.
 */
class HexText {
  constructor(private readonly text: string) {}

  /** Called by the drivers. */
  toSqlString(): string {
    return `_utf8mb4 X'${Buffer.from(this.text).toString('hex')}'`;
  }

  /** Called by loggers. */
  toJSON(): string {
    return this.text;
  }
}

/**
 * A parameter of a statement that `mysql` or `mysql2` sends without preparing it: text that is not plain goes as
 * hexadecimal digits.
 */
export function toMysqlValue(value: unknown): unknown {
  return typeof value === 'string' && !PLAIN.test(value) ? new HexText(value) : value;
}
